"""Sales by period and product, exact as of now, out of the rollups alone."""

import asyncio
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from polyglot_persistence.adapters.postgres.queries import QUERIES
from polyglot_persistence.domain.order import AMOUNT_MAX, AcceptedOrder, Order, new_id
from polyglot_persistence.domain.periods import Grain, bounds, zone_of
from polyglot_persistence.ports.record import Record
from polyglot_persistence.ports.sales import DaySales, ProductSales, Sales, SalesView
from tests.support.eventually import WAIT_SECONDS
from tests.support.record import Onlooker
from tests.support.records import RecordEngine

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = Sales(Decimal("0.00"), 0)


@pytest.fixture
def view(record: RecordEngine) -> SalesView:
    return record.sales()


def sale(moment: datetime, amount: str, product: str = "tea") -> AcceptedOrder:
    order = Order(new_id(), product, Decimal(amount), moment)
    return AcceptedOrder(order, datetime.now(UTC), order.id)


async def test_without_orders_every_period_is_empty(view: SalesView) -> None:
    """All of them are listed, and the moment is told."""
    days = [NEW_YEAR + timedelta(days=n) for n in range(4)]
    found = await view.periods(days)
    assert found.sums == [NOTHING] * 3
    assert abs(datetime.now(UTC) - found.as_of) < timedelta(minutes=5)
    dates = [day.date() for day in days]
    assert (await view.product_periods("tea", dates)).sums == [NOTHING] * 3
    assert (await view.top_products(dates[0], dates[-1], 10)).products == []
    assert (await view.live_days(10)).days == []


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"])
@pytest.mark.parametrize("grain", Grain)
async def test_periods_of_any_zone_are_exact(
    store: Record, view: SalesView, grain: Grain, zone: str
) -> None:
    """Each sale in the period in which its moment lies, over changes of the clocks, to the cent."""
    rng = random.Random(11)
    starts = {
        Grain.HOUR: datetime(2026, 4, 4, tzinfo=UTC),
        Grain.DAY: datetime(2026, 3, 20, tzinfo=UTC),
        Grain.MONTH: datetime(2025, 9, 9, tzinfo=UTC),
    }
    first = starts[grain]
    length = {Grain.HOUR: 2, Grain.DAY: 25, Grain.MONTH: 300}[grain]
    parts = bounds(grain, zone_of(zone), first, first + timedelta(days=length), 800)
    # Among them the very bounds, and the last microsecond before each.
    moments = [*parts, *[part.astimezone(UTC) - timedelta(microseconds=1) for part in parts]]
    moments += [first + timedelta(seconds=rng.uniform(0, length * 86_400)) for _ in range(300)]
    sales = [
        sale(one.astimezone(UTC), f"{rng.randrange(10**6)}.{n % 100:02}")
        for n, one in enumerate(moments)
    ]
    await store.persist(sales)
    found = await view.periods(parts)
    expected = [
        [one.order.amount for one in sales if start <= one.order.created_at < end]
        for start, end in pairwise(parts)
    ]
    assert found.sums == [(sum(amounts, Decimal("0.00")), len(amounts)) for amounts in expected]
    assert sum(sums.orders for sums in found.sums) >= 300


async def test_sums_of_the_largest_amounts_are_exact(store: Record, view: SalesView) -> None:
    """Beyond what a float can tell apart."""
    await store.persist([sale(NEW_YEAR, str(AMOUNT_MAX)) for _ in range(500)])
    await store.persist([sale(NEW_YEAR, "0.01")])
    found = await view.periods([NEW_YEAR, NEW_YEAR + timedelta(days=1)])
    assert found.sums == [Sales(AMOUNT_MAX * 500 + Decimal("0.01"), 501)]


async def test_what_is_persisted_is_in_the_next_answer(store: Record, view: SalesView) -> None:
    """A late order for a day long past as well; `as_of` is not before it was persisted."""
    days = [NEW_YEAR, NEW_YEAR + timedelta(days=1)]
    for n in range(1, 4):
        persisted = await store.persist([sale(NEW_YEAR, "1.10")])
        found = await view.periods(days)
        assert found.sums == [Sales(Decimal("1.10") * n, n)]
        assert all(row.persisted_at <= found.as_of for row in persisted.stored.values())


async def test_a_product_has_its_own_days(store: Record, view: SalesView) -> None:
    """By its whole name; UTC days, and months of them."""
    await store.persist(
        [
            sale(NEW_YEAR, "1.00"),
            sale(NEW_YEAR + timedelta(days=31, microseconds=-1), "2.00"),
            sale(NEW_YEAR + timedelta(days=31), "4.00"),
            sale(NEW_YEAR, "8.00", "teapot"),
            sale(NEW_YEAR - timedelta(microseconds=1), "16.00"),
        ]
    )
    months = [date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)]
    found = await view.product_periods("tea", months)
    assert found.sums == [Sales(Decimal("3.00"), 2), Sales(Decimal("4.00"), 1)]


async def test_a_product_is_found_in_each_form_of_its_name(store: Record, view: SalesView) -> None:
    """Older versions stored a name as it came; asked for is the composed form (NFC)."""
    await store.persist(
        [
            sale(NEW_YEAR, "1.00", "Cr\u00e8me"),
            sale(NEW_YEAR, "2.00", "Cre\u0300me"),
            sale(NEW_YEAR, "4.00", "Creme"),
        ]
    )
    days = [date(2026, 1, 1), date(2026, 1, 2)]
    found = await view.product_periods("Cr\u00e8me", days)
    assert found.sums == [Sales(Decimal("3.00"), 2)]


async def test_top_products_are_ranked_by_revenue(store: Record, view: SalesView) -> None:
    """The highest first, of equal ones by name, within the days."""
    await store.persist(
        [
            sale(NEW_YEAR, "5.00", "b"),
            sale(NEW_YEAR, "2.50", "a"),
            sale(NEW_YEAR + timedelta(hours=23), "2.50", "a"),
            sale(NEW_YEAR, "9.00", "c"),
            sale(NEW_YEAR + timedelta(days=1), "99.00", "late"),
        ]
    )
    top = await view.top_products(date(2026, 1, 1), date(2026, 1, 2), 2)
    assert top.products == [
        ProductSales("c", Decimal("9.00"), 1),
        ProductSales("a", Decimal("5.00"), 2),
    ]


async def test_live_days_are_the_view_and_what_came_since(store: Record, view: SalesView) -> None:
    """New days and late orders for old ones, as many of the latest days as asked for."""
    old = NEW_YEAR - timedelta(days=5)
    await store.persist([sale(NEW_YEAR + timedelta(days=n), "1.00") for n in range(3)])
    await view.refresh()
    await store.persist(
        [sale(NEW_YEAR + timedelta(days=1), "0.50"), sale(NEW_YEAR + timedelta(days=7), "7.00")]
    )
    await store.persist([sale(old, "3.00")])
    assert [day.orders for day in await view.latest_days(10)] == [1, 1, 1]
    live = [
        DaySales(date(2026, 1, 8), Decimal("7.00"), 1),
        DaySales(date(2026, 1, 3), Decimal("1.00"), 1),
        DaySales(date(2026, 1, 2), Decimal("1.50"), 2),
        DaySales(date(2026, 1, 1), Decimal("1.00"), 1),
        DaySales(old.date(), Decimal("3.00"), 1),
    ]
    for days_max in range(1, 7):
        assert (await view.live_days(days_max)).days == live[:days_max]


async def test_no_answer_looks_at_the_orders(
    store: Record, view: SalesView, seen: Onlooker
) -> None:
    """However many there are: a year costs its quarter hours, or its product days."""
    await store.persist([sale(NEW_YEAR, "1.00")])
    await view.refresh()
    days = [NEW_YEAR + timedelta(days=n) for n in range(366)]
    dates = [day.date() for day in days]
    await seen.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    async with asyncio.timeout(WAIT_SECONDS):
        assert (await view.periods(days)).sums[0].orders == 1
        assert (await view.product_periods("tea", dates)).sums[0].orders == 1
        assert len((await view.top_products(dates[0], dates[-1], 10)).products) == 1
        assert len((await view.live_days(366)).days) == 1
    await seen.execute("COMMIT")


async def test_a_products_year_is_found_by_the_index(seen: Onlooker) -> None:
    """One look for each day: not every product of each day is read."""
    await seen.execute(
        "INSERT INTO sales_product_days SELECT day, 'p' || n, 0, 1, 1 FROM generate_series("
        "'2026-01-01'::date, '2026-03-31', '1 day') AS day, generate_series(1, 500) AS n;"
        "ANALYZE sales_product_days"
    )
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(90)]
    plan = await seen.value(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + QUERIES["product_periods"], ["p7"], days, days
    )
    assert '"Seq Scan"' not in plan
    assert "sales_product_days_pkey" in plan
