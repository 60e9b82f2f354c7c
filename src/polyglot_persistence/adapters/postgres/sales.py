"""The `SalesView` port: `daily_sales_mv` over the rollup that the persist transaction maintains.

Invariant: a reader never waits for a refresh.
"""

import unicodedata
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final

import asyncpg

from polyglot_persistence.adapters.postgres.locks import lock_key
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.errors import PolyglotError, UnknownOutcomeError
from polyglot_persistence.ports.sales import (
    DaySales,
    LatestDays,
    PeriodSums,
    ProductSales,
    Sales,
    TopProducts,
)

REFRESH_TIMEOUT_SECONDS: Final = 300.0
"""For waiting for another process's refresh, and again for our own."""

_REFRESH_LOCK: Final = lock_key("refresh daily_sales_mv")


class PostgresSalesView:
    """Daily sales over a pool; a refresh takes a connection of its own."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def refresh(self) -> datetime:
        """See `SalesView.refresh`.

        Orders committed by the returned moment are in the view; later ones may be.

        Raises:
            UnavailableError: the view is unchanged.
            UnknownOutcomeError: the view may be fresher than its moment; refresh it again.
        """
        async with self._pool.dedicated(timeout_seconds=REFRESH_TIMEOUT_SECONDS) as session:
            # A session lock, which ends with the connection: CONCURRENTLY cannot run in a
            # transaction.
            moment: datetime = await session.fetchval("lock_refresh", _REFRESH_LOCK)
            populated = await session.fetchval("view_is_populated")
            await session.effect("refresh_mv" if populated else "fill_mv")
            try:
                await session.effect("record_refresh", moment)
            except PolyglotError as error:
                raise UnknownOutcomeError(f"refreshed, and not recorded: {error}") from error
        return moment

    async def latest_days(self, days_max: int) -> Sequence[DaySales]:
        records = await self._pool.read("read_dashboard", days_max)
        return [DaySales(r["sale_date"], r["total_revenue"], r["orders"]) for r in records]

    async def refreshed_at(self) -> datetime | None:
        async with self._pool.reading() as session:
            moment: datetime | None = await session.fetchval("refreshed_at")
        return moment

    async def live_days(self, days_max: int) -> LatestDays:
        records = await self._pool.read("live_dashboard", days_max)
        days = [
            DaySales(r["sale_date"], r["total_revenue"], r["orders"])
            for r in records
            if r["sale_date"] is not None
        ]
        return LatestDays(records[0]["as_of"], days)

    async def periods(self, bounds: Sequence[datetime]) -> PeriodSums:
        return _sums(await self._pool.read("sales_periods", bounds))

    async def product_periods(self, product_name: str, bounds: Sequence[date]) -> PeriodSums:
        length = (bounds[-1] - bounds[0]).days
        days = [bounds[0] + timedelta(days=n) for n in range(length)]
        # Older versions stored a name unnormalized.
        names = list({product_name, unicodedata.normalize("NFD", product_name)})
        return _sums(await self._pool.read("product_periods", names, days, bounds))

    async def top_products(self, first: date, end: date, products_max: int) -> TopProducts:
        """The cost grows with days and products."""
        records = await self._pool.read("top_products", first, end, products_max)
        products = [
            ProductSales(r["product_name"], r["revenue"], r["orders"])
            for r in records
            if r["product_name"] is not None
        ]
        return TopProducts(records[0]["as_of"], products)


def _sums(records: Sequence[asyncpg.Record]) -> PeriodSums:
    return PeriodSums(records[0]["as_of"], [Sales(r["revenue"], r["orders"]) for r in records])
