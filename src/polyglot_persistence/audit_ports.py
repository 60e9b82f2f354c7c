"""What an audit needs of each store, beside what the service itself needs (`ports`).

The same rules hold: every method has a deadline; `UnavailableError` means that it had no effect.

Ids are ordered by their bytes, as PostgreSQL does; bounds of a range are both within it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

ID_MIN = UUID(int=0)
ID_MAX = UUID(int=2**128 - 1)

SUMMED_ORDERS_MAX = 1_000_000
"""Most orders in a range: sums of so many checksums are exact in a binary float."""


class RangeSum(NamedTuple):
    """How many orders a range of ids holds, and the sum of their checksums."""

    orders: int
    checksum: int


class SearchContents(Protocol):
    """What a search index holds, as a search would find it now."""

    async def sum_between(self, first: UUID, last: UUID) -> RangeSum:
        """Return number and checksum of the documents of a range.

        Raises:
            UnavailableError: the index is missing, incomplete or away.
        """

    async def checksums_between(
        self, first: UUID, last: UUID, orders_max: int
    ) -> Mapping[UUID, int]:
        """Return the checksums of the documents with the lowest ids of a range, in their order.

        They are computed from the documents themselves where an engine lets others edit them;
        -1 stands for a document that is no order.
        """

    async def checksums_of(self, ids: Sequence[UUID]) -> Mapping[UUID, int]:
        """Return the same of those of the ids that are there."""
