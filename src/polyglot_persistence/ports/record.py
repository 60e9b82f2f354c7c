"""The system of record as a whole; a flow uses only the parts that it needs."""

from datetime import datetime
from typing import NamedTuple, Protocol

from polyglot_persistence.ports.attempts import Attempts
from polyglot_persistence.ports.epoch import CacheEpoch
from polyglot_persistence.ports.history import RecordHistory
from polyglot_persistence.ports.leadership import Leadership
from polyglot_persistence.ports.orders import Orders
from polyglot_persistence.ports.outbox import Outbox
from polyglot_persistence.ports.state import StoreState


class Progress(NamedTuple):
    """Counts of the record, read in one statement whose cost does not grow with the orders."""

    persisted: int
    """Orders in the record."""
    outbox_orders: int
    outbox_oldest: datetime | None
    dead_letters: int
    """Counted up to `dead_letters_max`."""
    latest_dead_letter: int | None
    """The highest letter id; it changes with every new letter."""
    view_refreshed_at: datetime | None


class RecordState(Protocol):
    """The record's counts and its state."""

    async def progress(self, *, dead_letters_max: int) -> Progress:
        """Return the record's counts; at most `dead_letters_max` dead letters are counted."""

    async def ping(self) -> StoreState:
        """Return the server's version and whether its commits are durable."""


class Record(
    Orders, Outbox, Attempts, CacheEpoch, Leadership, RecordHistory, RecordState, Protocol
):
    """PostgreSQL, the system of record."""
