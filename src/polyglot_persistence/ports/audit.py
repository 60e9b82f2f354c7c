"""What an audit needs of each store, beside what the service itself needs (`ports`).

The same rules hold: every method has a deadline; `UnavailableError` means that it had no effect.

Ids are ordered by their bytes, as PostgreSQL does; bounds of a range are both within it.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple, Protocol
from uuid import UUID

ID_MIN = UUID(int=0)
ID_MAX = UUID(int=2**128 - 1)


class RangeSum(NamedTuple):
    """How many orders a range of ids holds, and the sum of their checksums."""

    orders: int
    checksum: int


class SearchContents(Protocol):
    """What a search index holds, as a search would find it now."""

    @property
    def shown_after_seconds(self) -> float:
        """The longest that an indexed order takes to be found, on a machine that is not busy."""

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


class CacheContents(Protocol):
    """What the cache holds."""

    async def scan(self, cursor: int, entries_max: int) -> "CachePart":
        """Return about so many raw entries, from a cursor on; 0 begins.

        What is there from the first call to the last is returned at least once.
        """


class CachePart(NamedTuple):
    """Some entries of the cache."""

    cursor: int
    """For the next call; 0: there are no more."""
    entries: Sequence[tuple[UUID, bytes]]
    """Id and raw entry, each once."""


class RecordRange(NamedTuple):
    """The next orders by id."""

    last: UUID
    """Where the range ends: the last order's id, or `ID_MAX` if no order comes after."""
    sums: RangeSum


class Standing(NamedTuple):
    """What the record says of some ids, as of one moment."""

    rows: Mapping[UUID, int]
    """Checksums of those that are orders."""
    waiting: frozenset[UUID]
    """Those that wait to be indexed, and those of which it is known that they never can be."""


class SalesDay(NamedTuple):
    """How the cells of a UTC day compare with the sums over its orders."""

    orders: int
    quarter_hours: int
    """Wrong cells of the rollup of quarter hours."""
    product_days: int
    """Wrong cells of the rollup of products."""
    repaired: bool


class SalesTotals(NamedTuple):
    """All orders, and whether both rollups add up to the same."""

    orders: int
    revenue: Decimal
    equal: bool


class Freshness(NamedTuple):
    """How many orders there were, and how many were in every store within so many seconds."""

    orders: int
    within_1s: int
    within_5s: int
    within_60s: int


class AuditedRecord(Protocol):
    """The record and its rollups."""

    async def range_from(self, first: UUID, orders_max: int) -> RecordRange:
        """Return the sum of the next orders from an id on."""

    async def checksums_between(self, first: UUID, last: UUID) -> Mapping[UUID, int]:
        """Return the checksum of each order of a range."""

    async def standing(self, ids: Sequence[UUID]) -> Standing:
        """Return what is known of the ids."""

    async def index_again(self, ids: Sequence[UUID]) -> None:
        """Let the index be made to agree with the record on these ids, by way of the outbox."""

    async def count_orders(self) -> int:
        """Return how many orders there are."""

    async def next_day(self, first: date) -> date | None:
        """Return the first UTC day from this one on that has orders or cells."""

    async def compare_day(self, day: date, *, repair: bool) -> SalesDay:
        """Compare a day's cells with the sums over its orders; with `repair` put them right.

        Exact under load: what is being persisted is in both or in neither.
        """

    async def sales_totals(self) -> SalesTotals:
        """Compare the rollups with the orders as a whole, as of one moment."""

    async def rebuild_position(self) -> date | None:
        """Return the last day that a rebuild has done which was cut short within the hour."""

    async def keep_rebuild_position(self, done_until: date | None) -> None:
        """Keep how far a rebuild has come; None: it has ended."""

    async def count_freshness(self, counts: Freshness) -> None:
        """Add to the counts of this hour."""

    async def freshness(self) -> Freshness:
        """Return the counts of the last day."""
