"""The system of record as a whole; a flow takes the jobs of it that it needs."""

from datetime import datetime
from typing import NamedTuple, Protocol

from polyglot_persistence.ports.attempts import Attempts
from polyglot_persistence.ports.epoch import CacheEpoch
from polyglot_persistence.ports.leadership import Leadership
from polyglot_persistence.ports.orders import Orders
from polyglot_persistence.ports.outbox import Outbox
from polyglot_persistence.ports.state import StoreState


class Progress(NamedTuple):
    """How far the record is, read in one statement whose cost does not grow with the orders."""

    persisted: int
    """Orders in the record."""
    outbox_orders: int
    outbox_oldest: datetime | None
    dead_letters: int
    """At most as many as were to be counted."""
    latest_dead_letter: int | None
    """The highest id of one; it changes with every new letter."""
    view_refreshed_at: datetime | None


class RecordState(Protocol):
    """How far the record is, and whether it is there."""

    async def progress(self, *, dead_letters_max: int) -> Progress:
        """Return how far the record is, counting at most so many dead letters."""

    async def ping(self) -> StoreState:
        """Ask for the server's version and whether its commits are durable."""


class Record(Orders, Outbox, Attempts, CacheEpoch, Leadership, RecordState, Protocol):
    """PostgreSQL, the system of record."""
