"""Audit ports: what an audit needs of each store, beside the other ports.

The same rules hold: every method has a deadline; `UnavailableError` means that it had no effect.

Ids are ordered by their bytes, as in PostgreSQL; a range includes both of its bounds.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.domain.history import Position

ID_MIN = UUID(int=0)
ID_MAX = UUID(int=2**128 - 1)


class RangeSum(NamedTuple):
    """How many orders a range of ids holds, and the sum of their checksums."""

    orders: int
    checksum: int


class SearchContents(Protocol):
    """Contents of a search index, as a search would find them now."""

    @property
    def shown_after_seconds(self) -> float:
        """The longest time until an indexed order is found, on a machine that is not busy."""

    async def sum_between(self, first: UUID, last: UUID) -> RangeSum:
        """Return number and checksum of the documents of a range.

        Raises:
            UnavailableError: the index is missing, incomplete or away.
        """

    async def checksums_between(
        self, first: UUID, last: UUID, orders_max: int
    ) -> Mapping[UUID, int]:
        """Return the checksums of the documents with the lowest ids of a range, in their order.

        They are computed from the documents themselves where an engine allows edits by others; -1
        stands for a document that is no valid order.
        """

    async def checksums_of(self, ids: Sequence[UUID]) -> Mapping[UUID, int]:
        """Return the checksums of the given ids that have a document."""


class CacheContents(Protocol):
    """Contents of the cache."""

    async def scan(self, cursor: int, entries_max: int) -> "CachePart":
        """Return about `entries_max` raw entries, from a cursor on; 0 begins.

        An entry present from the first call to the last is returned at least once.
        """

    async def compared_to(self) -> Position | None:
        """Return the position of the record that all entries were last compared to.

        None if the cache holds none: nothing is known of its entries.
        """

    async def keep_compared_to(self, position: Position) -> None:
        """Store that position beside the entries: it is lost only along with them."""


class CachePart(NamedTuple):
    """Some entries of the cache."""

    cursor: int
    """Cursor of the next call; 0 after the last."""
    entries: Sequence[tuple[UUID, bytes]]
    """Id and raw entry, each once."""


class RecordRange(NamedTuple):
    """The next orders by id."""

    last: UUID
    """Where the range ends: the last order's id, or `ID_MAX` if no order comes after."""
    sums: RangeSum


class Standing(NamedTuple):
    """The record's state of some ids, as of one moment."""

    rows: Mapping[UUID, int]
    """Checksums of the ids that are orders."""
    waiting: frozenset[UUID]
    """Ids that wait to be indexed, and ids that are known to be unindexable."""


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
    """Number of orders, and how many of them were in every store within each bound in seconds."""

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
        """Return the state of the ids."""

    async def index_again(self, ids: Sequence[UUID]) -> None:
        """Queue ids in the outbox, so that the index will agree with the record on them."""

    async def count_orders(self) -> int:
        """Return the number of orders."""

    async def next_day(self, first: date) -> date | None:
        """Return the first UTC day from this one on that has orders or cells."""

    async def compare_day(self, day: date, *, repair: bool) -> SalesDay:
        """Compare a day's cells with the sums over its orders; with `repair` correct them.

        Exact under load: an order being persisted is in both or in neither.
        """

    async def sales_totals(self) -> SalesTotals:
        """Compare the rollups with the orders as a whole, as of one moment."""

    async def rebuild_position(self) -> date | None:
        """Return the last day done by a rebuild that was interrupted within the last hour."""

    async def keep_rebuild_position(self, done_until: date | None) -> None:
        """Store the position of a rebuild; None: it has ended."""

    async def count_freshness(self, counts: Freshness) -> None:
        """Add to the counts of this hour."""

    async def freshness(self) -> Freshness:
        """Return the counts of the last day."""
