"""The orders in the record: rows, and dead letters of orders that can never be persisted."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.domain.dead_letter import DeadLetter, DeadLetterRow
from polyglot_persistence.domain.order import AcceptedOrder, Order


class StoredOrder(NamedTuple):
    """A row of the record."""

    order: Order
    accepted_at: datetime
    persisted_at: datetime

    def accepted(self) -> AcceptedOrder:
        """Return it as an order accepted alone: a row does not name its unit."""
        return AcceptedOrder(self.order, self.accepted_at, self.order.id)


class Found(NamedTuple):
    """The record's state of some ids, and the cache epoch, read in one statement."""

    orders: dict[UUID, StoredOrder]
    dead: dict[UUID, DeadLetterRow]
    """Dead letters of ids without a row; never of stage index."""
    epoch: str
    """Empty if none was created: no copy ever equals it."""


class Persisted(NamedTuple):
    """The outcome of one persist transaction."""

    stored: dict[UUID, StoredOrder]
    """Every order of the batch that is now in the record, as stored there."""
    inserted: frozenset[UUID]
    """The orders that this transaction added: only they fed rollup and outbox."""
    outbox_id: int | None
    """The outbox row with the inserted ids, if any."""
    conflicts: dict[UUID, StoredOrder]
    """Orders of refused units whose row differs or belongs to another unit. Such a unit was left
    out whole."""


class Orders(Protocol):
    """The orders in PostgreSQL, the system of record."""

    async def persist(self, batch: Sequence[AcceptedOrder]) -> Persisted:
        """Insert whole units with rollup and outbox row, in one transaction.

        Idempotent by order id: an existing row with the same content counts as stored and feeds
        nothing. A unit with a member whose row has other content is left out and reported. So is a
        keyed bulk if only its first order has a row, with another moment of acceptance: that row
        belongs to another bulk.
        Dead letters of inserted ids are removed in the same transaction, unless they stand for
        another order under that id. The batch may hold an id twice; the second is treated as part
        of a later batch.

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

        An existing one (same order, stage, payload) counts up and gets the new reason.
        """
