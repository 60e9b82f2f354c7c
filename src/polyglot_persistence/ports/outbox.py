"""The outbox: which persisted orders are not known to be searchable."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.ports.orders import StoredOrder


class OutboxBatch(NamedTuple):
    """Persisted orders that are not known to be searchable."""

    orders: Sequence[StoredOrder]
    gone: Sequence[UUID] = ()
    """Ids that are no orders: a document of one is to be removed."""
    new: frozenset[UUID] = frozenset()
    """Those of the orders that wait since they were persisted, and not to be indexed again."""


class Outbox(Protocol):
    """Rows that the persist transaction wrote, each with the ids that it inserted."""

    def claim_outbox(
        self, older_than_seconds: float, orders_max: int
    ) -> AbstractAsyncContextManager[OutboxBatch]:
        """Lock outbox rows that nobody else works on and yield their orders (maybe none).

        Leaving the context normally deletes the rows; an exception leaves them.
        """

    async def outbox_done(self, outbox_ids: Sequence[int]) -> Sequence[int]:
        """Delete outbox rows whose orders are searchable; return which were still there."""
