"""Sales port: sums over the rollups that the persist transaction maintains.

The rules of `ports` apply here, too. A sum is exact to the cent: it includes every order committed
at its `as_of`, regardless of `created_at`.
"""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple, Protocol


class DaySales(NamedTuple):
    """Revenue of one UTC day."""

    day: date
    revenue: Decimal
    orders: int


class ProductSales(NamedTuple):
    """Revenue of one product."""

    product_name: str
    revenue: Decimal
    orders: int


class Sales(NamedTuple):
    """Revenue of one period."""

    revenue: Decimal
    orders: int


class PeriodSums(NamedTuple):
    """Sums of consecutive periods, all as of one moment."""

    as_of: datetime
    sums: Sequence[Sales]


class TopProducts(NamedTuple):
    """Products by revenue, the highest first."""

    as_of: datetime
    products: Sequence[ProductSales]


class LatestDays(NamedTuple):
    """The latest days that have sales, newest first."""

    as_of: datetime | None
    """None: the view was never refreshed."""
    days: Sequence[DaySales]


class SalesView(Protocol):
    """Aggregates of the record: the rollups of the persist transaction, and `daily_sales_mv`."""

    async def refresh(self) -> datetime:
        """Refresh `daily_sales_mv` CONCURRENTLY and return the moment for which it is now exact.

        One process at a time: a second caller waits for the first to end and then refreshes.

        Raises:
            UnavailableError: the view is unchanged.
            UnknownOutcomeError: the view may be fresher than its moment; refresh it again.
        """

    async def latest_days(self, days_max: int) -> Sequence[DaySales]:
        """Return the latest UTC days that have sales, newest first, as of the last refresh."""

    async def refreshed_at(self) -> datetime | None:
        """Return when the view was last refreshed."""

    async def live_days(self, days_max: int) -> LatestDays:
        """Return the latest UTC days as of now: those of the view, plus the changes since."""

    async def periods(self, bounds: Sequence[datetime]) -> PeriodSums:
        """Return the sums between each two neighboring bounds, which are full quarter hours.

        The cost grows with the time between the first and the last, not with the orders.
        """

    async def product_periods(self, product_name: str, bounds: Sequence[date]) -> PeriodSums:
        """Return the sums of one product between each two neighboring UTC days.

        The name is given composed (NFC), and found in its decomposed form (NFD) as well.
        """

    async def top_products(self, first: date, end: date, products_max: int) -> TopProducts:
        """Return the products with the highest revenue from one UTC day until before another."""
