"""The record of orders."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.domain.dead_letter import (
    DeadLetter,
    DeadLetterRow,
)
from polyglot_persistence.domain.order import AcceptedOrder, Order
from polyglot_persistence.ports.leadership import Lead
from polyglot_persistence.ports.state import StoreState


class StoredOrder(NamedTuple):
    """A row of the record."""

    order: Order
    accepted_at: datetime
    persisted_at: datetime


class Found(NamedTuple):
    """What the record knows of some ids, and the cache epoch, read in one statement."""

    orders: dict[UUID, StoredOrder]
    dead: dict[UUID, DeadLetterRow]
    """Dead letters of ids that have no row; stage index never is here."""
    epoch: str
    """Empty if none was created: no copy ever equals it."""


class Persisted(NamedTuple):
    """The outcome of one persist transaction."""

    stored: dict[UUID, StoredOrder]
    """Every order of the batch that is in the record now, as it stands there."""
    inserted: frozenset[UUID]
    """Those of them that this transaction added: they alone fed rollup and outbox."""
    outbox_id: int | None
    """The outbox row with the inserted ids, if any."""
    conflicts: dict[UUID, StoredOrder]
    """Orders of refused units whose row says something else, or is another unit's. Such a unit was
    left out whole."""


class OutboxBatch(NamedTuple):
    """Persisted orders that are not known to be searchable."""

    orders: Sequence[StoredOrder]
    gone: Sequence[UUID] = ()
    """Ids that are no orders: a document of one is to be removed."""
    new: frozenset[UUID] = frozenset()
    """Those of the orders that wait since they were persisted, and not to be indexed again."""


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


class OrderStore(Protocol):
    """PostgreSQL, the system of record."""

    async def persist(self, batch: Sequence[AcceptedOrder]) -> Persisted:
        """Insert whole units with rollup and outbox row, in one transaction.

        Idempotent by order id: a row that exists with the same content counts as stored and feeds
        nothing. A unit with a member whose row has other content is left out and reported, and so
        is a keyed bulk whose first order alone has a row, which was accepted at another moment:
        that is another bulk's.
        Dead letters of inserted ids are removed in the same transaction, unless they stand for
        another order under that id. The batch may hold an id
        twice; the second is treated as if it came in a later batch.

        Raises:
            UnavailableError: rolled back, or not even begun; the store may be away.
            UnexplainedError: likewise, and one of the units may be at fault.
            UnknownOutcomeError: the commit's answer was lost; persist it again.
            PoisonError: the store can never take this batch; one of its units is at fault.
        """

    async def find(self, ids: Sequence[UUID]) -> Found:
        """Return rows, dead letters and the epoch in one statement, which only a primary runs."""

    async def page(
        self, before: tuple[datetime, UUID] | None, orders_max: int
    ) -> Sequence[StoredOrder]:
        """Return orders by (created_at, id), newest first, strictly before the given position."""

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters.

        One that is there already (order, stage, payload) counts up and has the new reason.
        """

    async def attempted(self, subjects: Sequence[str]) -> frozenset[str]:
        """Return those of the subjects of which an attempt is not known to be survived."""

    async def begin_attempts(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """Count one more attempt at what may kill its worker; return how many there are now.

        It outlives the caller's death, but perhaps not one of PostgreSQL at the same moment.
        """

    async def take_back_attempts(self, subjects: Sequence[str]) -> None:
        """Count one attempt less: whoever made it lives, and it was cut short all the same."""

    async def end_attempts(self, subjects: Sequence[str]) -> None:
        """Forget all attempts, for one was survived; and those of anything older than a day."""

    def claim_outbox(
        self, older_than_seconds: float, orders_max: int
    ) -> AbstractAsyncContextManager[OutboxBatch]:
        """Lock outbox rows that nobody else works on and yield their orders (maybe none).

        Leaving the context normally deletes the rows; an exception leaves them.
        """

    async def outbox_done(self, outbox_ids: Sequence[int]) -> Sequence[int]:
        """Delete outbox rows whose orders are searchable; return which were still there."""

    async def progress(self, *, dead_letters_max: int) -> Progress:
        """Return how far the record is, counting at most so many dead letters."""

    async def epoch(self) -> str | None:
        """Return the cache epoch, None if none was created.

        It names the server's timeline: after a failover that lost the latest epoch it is another.
        """

    async def found_epoch(self) -> tuple[str, bool]:
        """Return the cache epoch and whether this call created it."""

    async def new_epoch(self) -> str:
        """Raise the cache epoch: from its commit on, no older copy proves an absence."""

    def lead(self, role: str) -> "AbstractAsyncContextManager[Lead | None]":
        """Try to be the only process in a role (advisory lock); yield None if another is.

        The role lasts as long as the context and the connection behind it.
        """

    async def ping(self) -> StoreState:
        """Ask for the server's version and whether its commits are durable."""
