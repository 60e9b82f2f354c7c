"""Sales by period and by product, and the daily view."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from polyglot_persistence.domain.order import CENT
from polyglot_persistence.domain.periods import Grain, previous
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.sales import LatestDays, Sales, SalesView, TopProducts
from polyglot_persistence.telemetry import logger

_log = logger("sales")

_GROWTH_STEP = Decimal("0.0001")


class PeriodSales(NamedTuple):
    """One period and the one before it."""

    start: datetime
    sales: Sales
    growth: Decimal | None
    """Of revenue: 0.25 is a quarter more. None if the earlier revenue is 0."""


class Report(NamedTuple):
    """Consecutive periods and their sum, exact as of one moment."""

    as_of: datetime
    rows: Sequence[PeriodSales]
    total: Sales


def average(sales: Sales) -> Decimal | None:
    """Return the mean amount of an order, rounded half to even."""
    return (sales.revenue / sales.orders).quantize(CENT) if sales.orders else None


@dataclass
class SalesFlow:
    """Reads the sales, and refreshes `daily_sales_mv`."""

    view: SalesView
    clock: Clock

    async def latest_days(self, days_max: int) -> LatestDays:
        """Return the latest UTC days that have sales, newest first, as of the last refresh."""
        as_of = await self.view.refreshed_at()  # first: the days are never older than `as_of`
        return LatestDays(as_of, await self.view.latest_days(days_max))

    async def live_days(self, days_max: int) -> LatestDays:
        """Return the latest UTC days that have sales, newest first, as of now."""
        return await self.view.live_days(days_max)

    async def by_period(
        self, grain: Grain, zone: ZoneInfo, bounds: Sequence[datetime], product_name: str | None
    ) -> Report:
        """Return the periods between the bounds (`periods.bounds`); of one product in UTC days."""
        before = previous(grain, zone, bounds[0])
        if product_name is None:
            found = await self.view.periods([before, *bounds])
        else:
            days = [bound.date() for bound in (before, *bounds)]
            found = await self.view.product_periods(product_name, days)
        rows = [
            PeriodSales(start, sales, _growth(earlier, sales))
            for start, (earlier, sales) in zip(bounds, pairwise(found.sums), strict=False)
        ]
        return Report(found.as_of, rows, _total([row.sales for row in rows]))

    async def top_products(self, first: date, end: date, products_max: int) -> TopProducts:
        """Return the products with the highest revenue from one UTC day until before another."""
        return await self.view.top_products(first, end, products_max)

    async def refresh(self, trigger: str) -> datetime:
        """Refresh the view and return the moment for which it is now exact."""
        refreshed_at = await self.view.refresh()
        _log.info("view_refreshed", trigger=trigger, as_of=refreshed_at.isoformat())
        return refreshed_at


def _growth(earlier: Sales, sales: Sales) -> Decimal | None:
    if not earlier.revenue:
        return None
    return ((sales.revenue - earlier.revenue) / earlier.revenue).quantize(_GROWTH_STEP)


def _total(sales: Sequence[Sales]) -> Sales:
    revenue = sum((one.revenue for one in sales), Decimal("0.00"))
    return Sales(revenue, sum(one.orders for one in sales))
