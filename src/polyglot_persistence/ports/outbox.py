"""The outbox: persisted orders that are not known to be searchable."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.ports.orders import StoredOrder


class OutboxBatch(NamedTuple):
    """Persisted orders that are not known to be searchable."""

    orders: Sequence[StoredOrder]
    gone: Sequence[UUID] = ()
    """Ids without an order; their documents are to be removed."""
    new: frozenset[UUID] = frozenset()
    """Orders waiting for their first indexing."""


class Outbox(Protocol):
    """Rows that the persist transaction wrote, each with the ids that it inserted."""

    def claim_outbox(
        self, older_than_seconds: float, orders_max: int
    ) -> AbstractAsyncContextManager[OutboxBatch]:
        """Lock outbox rows that no other process has locked and yield their orders (maybe none).

        Leaving the context normally deletes the rows; an exception leaves them.
        """

    async def outbox_done(self, outbox_ids: Sequence[int]) -> Sequence[int]:
        """Delete outbox rows whose orders are searchable; return those that still existed."""
