"""The contract of `SalesView`: daily sales as of a refresh, exact to the cent."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.record import Record
from polyglot_persistence.ports.sales import DaySales, SalesView
from tests.support.eventually import WAIT_SECONDS, eventually
from tests.support.record import Onlooker, onlooker
from tests.support.records import RecordEngine


@pytest.fixture
def view(record: RecordEngine) -> SalesView:
    return record.sales()


def sale(moment: datetime, amount: str) -> AcceptedOrder:
    order = Order(new_id(), "tea", Decimal(amount), moment)
    return AcceptedOrder(order, datetime.now(UTC), order.id)


async def test_an_empty_record_has_no_days(view: SalesView) -> None:
    """Nothing before the first refresh, and nothing after it."""
    assert await view.latest_days(30) == []
    assert await view.refreshed_at() is None
    await view.refresh()
    assert await view.latest_days(30) == []


async def test_days_are_utc_days_newest_first(store: Record, view: SalesView) -> None:
    """Only days with sales, the latest ones, and each sale on the day on which it was made."""
    midnight = datetime(2024, 3, 1, tzinfo=UTC)
    await store.persist(
        [
            sale(midnight - timedelta(microseconds=1), "0.01"),
            sale(midnight, "10.10"),
            sale(midnight + timedelta(hours=23, minutes=59), "0.20"),
            sale(midnight + timedelta(days=5), "0.00"),
            sale(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), "7.77"),
        ]
    )
    await view.refresh()
    days = [
        DaySales(date(2024, 3, 6), Decimal("0.00"), 1),
        DaySales(date(2024, 3, 1), Decimal("10.30"), 2),
        DaySales(date(2024, 2, 29), Decimal("0.01"), 1),
        DaySales(date(1969, 12, 31), Decimal("7.77"), 1),
    ]
    assert await view.latest_days(36_600) == days
    assert await view.latest_days(2) == days[:2]


async def test_revenue_is_exact_at_any_size(store: Record, view: SalesView) -> None:
    """Sums of the largest amounts stay exact to the cent, beyond what a float can tell apart."""
    moment = datetime(2024, 3, 1, tzinfo=UTC)
    await store.persist([sale(moment, "9999999999.99") for _ in range(1000)])
    await store.persist([sale(moment, "0.01")])
    await view.refresh()
    assert await view.latest_days(1) == [DaySales(moment.date(), Decimal("9999999999990.01"), 1001)]


async def test_the_view_is_as_of_the_last_refresh(store: Record, view: SalesView) -> None:
    """What came later appears with the next refresh, and the moment says which is which."""
    moment = datetime(2024, 3, 1, tzinfo=UTC)
    persisted = await store.persist([sale(moment, "1.00")])
    first = await view.refresh()
    assert await view.refreshed_at() == first
    assert all(row.persisted_at < first for row in persisted.stored.values())
    await store.persist([sale(moment, "2.00")])
    assert (await view.latest_days(1))[0].revenue == Decimal("1.00")
    second = await view.refresh()
    assert second > first
    assert await view.refreshed_at() == second
    assert (await view.latest_days(1))[0] == DaySales(moment.date(), Decimal("3.00"), 2)


async def test_the_moment_is_before_whatever_the_refresh_may_miss(
    store: Record, view: SalesView, seen: Onlooker, record_dsn: str
) -> None:
    """An order that commits while the refresh waits its turn is not claimed to be in the view."""
    day = datetime(2024, 3, 1, tzinfo=UTC)
    async with onlooker(record_dsn) as rival:
        await rival.execute("BEGIN")
        await rival.execute("REFRESH MATERIALIZED VIEW daily_sales_mv")
        task = asyncio.create_task(view.refresh())
        await seen.blocked()
        late = await store.persist([sale(day, "1.00")])
        await rival.execute("COMMIT")
    assert await task < next(iter(late.stored.values())).persisted_at


async def test_refreshes_at_once_run_one_after_another(
    store: Record, view: SalesView, seen: Onlooker
) -> None:
    """None fails, each holds what was committed when it was called, their moments differ."""
    day = datetime(2024, 3, 1, tzinfo=UTC)
    await store.persist([sale(day, "1.00")])
    moments = await asyncio.gather(*[view.refresh() for _ in range(5)])
    assert len(set(moments)) == 5
    assert await view.refreshed_at() == max(moments)
    assert (await view.latest_days(1))[0].orders == 1


async def test_readers_do_not_wait_for_a_refresh(
    store: Record, view: SalesView, seen: Onlooker, record_dsn: str
) -> None:
    """CONCURRENTLY: while the view is being refreshed the days before are served."""
    day = datetime(2024, 3, 1, tzinfo=UTC)
    await store.persist([sale(day, "1.00")])
    await view.refresh()
    async with onlooker(record_dsn) as rival:
        # Stops the refresh in its middle: it holds the view and waits for the rollup.
        await rival.execute("BEGIN; LOCK TABLE sales_quarter_hours IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(view.refresh())
        await seen.blocked()
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await view.latest_days(1))[0].orders == 1
        await rival.execute("COMMIT")
    await task


async def test_a_view_without_data_is_filled(view: SalesView, seen: Onlooker) -> None:
    """After a restore that left it out: unavailable, until the next refresh fills it."""
    await seen.execute("REFRESH MATERIALIZED VIEW daily_sales_mv WITH NO DATA")
    with pytest.raises(UnavailableError):
        await view.latest_days(1)
    await view.refresh()
    assert await view.latest_days(1) == []


async def test_a_refresh_that_dies_holds_up_nobody(
    view: SalesView, seen: Onlooker, record_dsn: str
) -> None:
    """Its lock goes with its connection, and the moment of the last good refresh stays."""
    first = await view.refresh()
    async with onlooker(record_dsn) as rival:
        await rival.execute("BEGIN; LOCK TABLE sales_quarter_hours IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(view.refresh())
        await seen.terminate(await seen.blocked())
        with pytest.raises(UnknownOutcomeError):
            await task
    assert await view.refreshed_at() == first
    assert await view.refresh() > first


async def test_a_refresh_that_is_not_recorded_is_no_refusal(
    store: Record, view: SalesView, seen: Onlooker
) -> None:
    """The view holds what is new, and its moment is the one before."""
    first = await view.refresh()
    await store.persist([sale(datetime(2024, 3, 1, tzinfo=UTC), "1.00")])
    await seen.execute("ALTER TABLE view_refreshes ADD CONSTRAINT no CHECK (false) NOT VALID")
    try:
        with pytest.raises(UnknownOutcomeError):
            await view.refresh()
    finally:
        await seen.execute("ALTER TABLE view_refreshes DROP CONSTRAINT no")
    assert await view.refreshed_at() == first
    assert len(await view.latest_days(5)) == 1


async def test_a_refresh_that_the_server_refuses_changes_nothing(
    store: Record, view: SalesView, seen: Onlooker
) -> None:
    """It reports an error of the statement, so the view is as it was."""
    await view.refresh()
    await store.persist([sale(datetime(2024, 3, 1, tzinfo=UTC), "1.00")])
    (create,) = await seen.rows(
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'daily_sales_mv_by_date'"
    )
    await seen.execute("DROP INDEX daily_sales_mv_by_date")  # without it there is no CONCURRENTLY
    try:
        with pytest.raises(UnavailableError):
            await view.refresh()
    finally:
        await seen.execute(*create)
    assert await view.latest_days(5) == []


async def test_a_cancelled_refresh_frees_its_lock(
    view: SalesView, seen: Onlooker, record_dsn: str
) -> None:
    """A process that stops does not keep the others from refreshing."""
    async with onlooker(record_dsn) as rival:
        await rival.execute("BEGIN; LOCK TABLE sales_quarter_hours IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(view.refresh())
        await seen.blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def look() -> None:
            assert await seen.rows("SELECT FROM pg_locks WHERE locktype = 'advisory'") == []

        await eventually(look)
    await view.refresh()


async def test_refreshing_costs_the_rollup_not_the_orders(
    store: Record, view: SalesView, seen: Onlooker
) -> None:
    """The view never looks at the orders, however many there are."""
    definition = await seen.value("SELECT pg_get_viewdef('daily_sales_mv'::regclass)")
    assert "sales_quarter_hours" in definition
    await store.persist([sale(datetime(2024, 3, 1, tzinfo=UTC), "1.00")])
    await seen.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    async with asyncio.timeout(WAIT_SECONDS):
        await view.refresh()
    await seen.execute("COMMIT")
