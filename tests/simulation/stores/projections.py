"""What rebuilds, audits and reports need of a simulated PostgreSQL."""

import itertools
import unicodedata
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.domain.dead_letter import Stage
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.audit import (
    ID_MAX,
    Freshness,
    RangeSum,
    RecordRange,
    SalesDay,
    SalesTotals,
    Standing,
)
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.rebuild import Rebuild
from polyglot_persistence.ports.sales import (
    DaySales,
    LatestDays,
    PeriodSums,
    ProductSales,
    Sales,
    TopProducts,
)
from tests.simulation.stores.journal import Table
from tests.simulation.stores.orders import (
    fitting,
    outbox_batch,
    quarter_hour,
    utc_day,
)
from tests.simulation.stores.record import (
    IDLE_SECONDS_MAX,
    ONLY,
    OutboxRow,
    Progressed,
    RecordServer,
    add,
)

K = TypeVar("K")
V = TypeVar("V")

OUTBOX_ROW_IDS_MAX = 1_000
_NOTHING = Sales(Decimal("0.00"), 0)


class SimulatedRebuildRecord:
    """`ports.rebuild.RebuildRecord`."""

    def __init__(self, record: RecordServer) -> None:
        self._record = record

    async def current(self) -> Rebuild | None:
        """Return the rebuild under way."""
        self._record.reading()
        return self._record.rebuilds.get(ONLY)

    async def begin(self, index: str) -> Rebuild:
        """Forget arrivals and remember the index."""
        with self._record.transaction():
            self._record.arrivals.clear()
            begun = Rebuild(index, None, 0, len(self._record.orders))
            self._record.rebuilds.put(ONLY, begun)
        return begun

    async def orders_after(self, position: UUID | None, orders_max: int) -> Sequence[StoredOrder]:
        """Return the next by id."""
        return [row for row in self._by_id() if position is None or row.order.id > position][
            :orders_max
        ]

    async def advance(self, position: UUID, orders: int) -> None:
        """Remember how far it is."""
        with self._record.transaction():
            current = self._record.rebuilds.get(ONLY)
            if current is not None:
                filled = current.filled + orders
                self._record.rebuilds.put(ONLY, current._replace(position=position, filled=filled))

    async def orders_between(self, first: UUID, last: UUID) -> Sequence[StoredOrder]:
        """Return a range by id."""
        return [row for row in self._by_id() if first <= row.order.id <= last]

    @asynccontextmanager
    async def claim_arrivals(self, orders_max: int) -> AsyncIterator[Sequence[StoredOrder]]:
        """Lock arrivals as `claim_outbox` does with rows."""
        record = self._record
        with record.session(idle_seconds_max=IDLE_SECONDS_MAX) as session:
            free = [i for i in sorted(record.arrivals) if not record.locked("arrivals", i)]
            if record.is_read_only:
                raise UnavailableError("PostgreSQL is read-only")
            record.row_locks |= {("arrivals", row_id): session for row_id in free}
            claimed = fitting({i: len(record.arrivals[i]) for i in free}, orders_max)
            ids = dict.fromkeys(i for row_id in claimed for i in record.arrivals[row_id])
            yield [record.orders[i] for i in ids if i in record.orders]
            session.check()
            if claimed:
                with record.transaction():
                    for row_id in claimed:
                        record.arrivals.remove(row_id)

    async def outbox_end(self) -> int:
        """Return the highest id of the outbox."""
        self._record.reading()
        return max(self._record.outbox, default=0)

    async def outbox_between(
        self, after: int, end: int, orders_max: int
    ) -> tuple[Sequence[StoredOrder], int] | None:
        """Return the next rows, claimed or not."""
        record = self._record
        record.reading()
        rows = {i: len(record.outbox[i].order_ids) for i in sorted(record.outbox)}
        chosen = fitting({i: n for i, n in rows.items() if after < i <= end}, orders_max)
        return (outbox_batch(record, chosen).orders, chosen[-1]) if chosen else None

    async def end(self) -> None:
        """Forget it."""
        with self._record.transaction():
            self._record.rebuilds.clear()
            self._record.arrivals.clear()

    def _by_id(self) -> list[StoredOrder]:
        self._record.reading()
        return by_id(self._record)


class SimulatedAudit:
    """`ports.audit.AuditedRecord`."""

    def __init__(self, record: RecordServer) -> None:
        self._record = record

    async def range_from(self, first: UUID, orders_max: int) -> RecordRange:
        """Sum up the next by id."""
        self._record.reading()
        part = [row for row in by_id(self._record) if row.order.id >= first][:orders_max]
        last = part[-1].order.id if len(part) == orders_max else ID_MAX
        return RecordRange(last, sum_of(part))

    async def checksums_between(self, first: UUID, last: UUID) -> Mapping[UUID, int]:
        """Return those of a range."""
        self._record.reading()
        return {
            i: checksum(row.order) for i, row in self._record.orders.items() if first <= i <= last
        }

    async def standing(self, ids: Sequence[UUID]) -> Standing:
        """Return which are orders, and which wait."""
        record = self._record
        record.reading()
        waiting = {i for row in record.outbox.values() for i in row.order_ids}
        waiting |= {
            row.letter.order_id
            for row in record.letters.values()
            if row.letter.stage is Stage.INDEX and row.letter.order_id is not None
        }
        return Standing(
            {i: checksum(record.orders[i].order) for i in ids if i in record.orders},
            frozenset(ids) & waiting,
        )

    async def index_again(self, ids: Sequence[UUID]) -> None:
        """Put ids into the outbox."""
        with self._record.transaction() as now:
            for start in range(0, len(ids), OUTBOX_ROW_IDS_MAX):
                part = tuple(ids[start : start + OUTBOX_ROW_IDS_MAX])
                self._record.outbox.put(self._record.new_id(), OutboxRow(now, part))

    async def count_orders(self) -> int:
        """Count."""
        self._record.reading()
        return len(self._record.orders)

    async def next_day(self, first: date) -> date | None:
        """Return the first day that has orders or cells."""
        record = self._record
        record.reading()
        days = {utc_day(row.order.created_at) for row in record.orders.values()}
        days |= {utc_day(bucket) for bucket in record.quarter_hours}
        days |= {day for day, _ in record.product_days}
        return min((day for day in days if day >= first), default=None)

    async def compare_day(self, day: date, *, repair: bool) -> SalesDay:
        """Compare cells with what they should be."""
        record = self._record
        record.reading()
        rows = [r for r in record.orders.values() if utc_day(r.order.created_at) == day]
        hours: dict[datetime, Sales] = {}
        products: dict[tuple[date, str], Sales] = {}
        for row in rows:
            bucket, cell = quarter_hour(row.order.created_at), (day, row.order.product_name)
            hours[bucket] = add(hours.get(bucket), row.order.amount)
            products[cell] = add(products.get(cell), row.order.amount)
        kept_hours = {k: v for k, v in record.quarter_hours.items() if utc_day(k) == day}
        kept_products = {k: v for k, v in record.product_days.items() if k[0] == day}
        wrong_hours = _differing(hours, kept_hours)
        wrong_products = _differing(products, kept_products)
        wrong = len(wrong_hours), len(wrong_products)
        if not repair or not any(wrong):
            return SalesDay(len(rows), *wrong, repaired=False)
        with record.transaction():
            for bucket in wrong_hours:
                _set(record.quarter_hours, bucket, hours.get(bucket))
            for cell in wrong_products:
                _set(record.product_days, cell, products.get(cell))
        return SalesDay(len(rows), *wrong, repaired=True)

    async def sales_totals(self) -> SalesTotals:
        """Compare the rollups as wholes."""
        record = self._record
        record.reading()
        revenue = sum((row.order.amount for row in record.orders.values()), Decimal(0))
        total = Sales(revenue, len(record.orders))
        hours, products = record.quarter_hours.values(), record.product_days.values()
        equal = _total(hours) == total and _total(products) == total
        return SalesTotals(total.orders, total.revenue, equal)

    async def rebuild_position(self) -> date | None:
        """Return how far a rebuild of within the hour came."""
        now = self._record.reading()
        position = self._record.sales_rebuilds.get(ONLY)
        if position is None or position.changed_at <= now - timedelta(hours=1):
            return None
        return position.done_until

    async def keep_rebuild_position(self, done_until: date | None) -> None:
        """Keep or forget it."""
        with self._record.transaction() as now:
            _set(
                self._record.sales_rebuilds,
                ONLY,
                None if done_until is None else Progressed(done_until, now),
            )

    async def count_freshness(self, counts: Freshness) -> None:
        """Add to this hour."""
        with self._record.transaction() as now:
            hour = now.replace(minute=0, second=0, microsecond=0)
            before = self._record.hours.get(hour, Freshness(0, 0, 0, 0))
            self._record.hours.put(
                hour, Freshness(*(a + b for a, b in zip(before, counts, strict=True)))
            )

    async def freshness(self) -> Freshness:
        """Sum up the last day."""
        now = self._record.reading()
        day = [v for k, v in self._record.hours.items() if k > now - timedelta(days=1)]
        return (
            Freshness(*(sum(column) for column in zip(*day, strict=True)))
            if day
            else Freshness(0, 0, 0, 0)
        )


class SimulatedSales:
    """`ports.sales.SalesView`."""

    def __init__(self, record: RecordServer) -> None:
        self._record = record

    async def refresh(self) -> datetime:
        """Make the view what the rollup is now."""
        record = self._record
        with record.transaction() as now:
            record.view.clear()
            for day, sales in _days(record).items():
                record.view.put(day, sales)
            record.refreshed.put(ONLY, now)
        return now

    async def latest_days(self, days_max: int) -> Sequence[DaySales]:
        """Return the view's latest days."""
        self._record.reading()
        return _latest(self._record.view, days_max)

    async def refreshed_at(self) -> datetime | None:
        """Return the moment for which the view is exact."""
        self._record.reading()
        return self._record.refreshed.get(ONLY)

    async def live_days(self, days_max: int) -> LatestDays:
        """Return the latest days of the rollup."""
        return LatestDays(self._record.reading(), _latest(_days(self._record), days_max))

    async def periods(self, bounds: Sequence[datetime]) -> PeriodSums:
        """Sum up between neighbouring bounds."""
        now = self._record.reading()
        cells = self._record.quarter_hours.items()
        return PeriodSums(
            now,
            [
                _total([v for k, v in cells if first <= k < end])
                for first, end in itertools.pairwise(bounds)
            ],
        )

    async def product_periods(self, product_name: str, bounds: Sequence[date]) -> PeriodSums:
        """Sum up one product between neighbouring days."""
        now = self._record.reading()
        names = {product_name, unicodedata.normalize("NFD", product_name)}
        cells = [(k[0], v) for k, v in self._record.product_days.items() if k[1] in names]
        return PeriodSums(
            now,
            [
                _total([v for day, v in cells if first <= day < end])
                for first, end in itertools.pairwise(bounds)
            ],
        )

    async def top_products(self, first: date, end: date, products_max: int) -> TopProducts:
        """Return the products with the highest revenue."""
        now = self._record.reading()
        sums: dict[str, Sales] = {}
        for (day, name), cell in self._record.product_days.items():
            if first <= day < end:
                sums[name] = add(sums.get(name), cell.revenue, cell.orders)
        ordered = sorted(sums.items(), key=lambda item: (-item[1].revenue, item[0]))
        return TopProducts(
            now, [ProductSales(name, *cell) for name, cell in ordered[:products_max]]
        )


def by_id(record: RecordServer) -> list[StoredOrder]:
    """Return all orders by id."""
    return [record.orders[order_id] for order_id in sorted(record.orders)]


def sum_of(rows: Sequence[StoredOrder]) -> RangeSum:
    """Return number and checksum of rows."""
    return RangeSum(len(rows), sum(checksum(row.order) for row in rows))


def _differing(wanted: Mapping[K, Sales], kept: Mapping[K, Sales]) -> list[K]:
    return [k for k in dict.fromkeys([*wanted, *kept]) if wanted.get(k) != kept.get(k)]


def _set(table: Table[K, V], key: K, value: V | None) -> None:
    if value is None:
        table.remove(key)
    else:
        table.put(key, value)


def _total(cells: Iterable[Sales]) -> Sales:
    total = _NOTHING
    for cell in cells:
        total = add(total, cell.revenue, cell.orders)
    return total


def _days(record: RecordServer) -> dict[date, Sales]:
    days: dict[date, Sales] = {}
    for bucket, cell in record.quarter_hours.items():
        day = utc_day(bucket)
        days[day] = add(days.get(day), cell.revenue, cell.orders)
    return days


def _latest(days: Mapping[date, Sales], days_max: int) -> list[DaySales]:
    return [DaySales(day, *days[day]) for day in sorted(days, reverse=True)[:days_max]]
