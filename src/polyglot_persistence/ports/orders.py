"""The orders in the record: rows, and the dead letters of what can never be one."""

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
        """Return it as an order that was accepted alone: a row does not name its unit."""
        return AcceptedOrder(self.order, self.accepted_at, self.order.id)


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


class Orders(Protocol):
    """The orders in PostgreSQL, the system of record."""

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
