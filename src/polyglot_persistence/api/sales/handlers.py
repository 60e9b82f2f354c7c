"""Handlers of sales by period and by product, the daily dashboard and its refresh."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request

from polyglot_persistence.api.sales.schemas import (
    DAYS,
    FIRST,
    DailySalesParameters,
    DaySalesOut,
    PeriodOut,
    ProductSalesOut,
    RefreshedOut,
    SalesOut,
    SalesParameters,
    SalesTotalOut,
    TopProductsOut,
    TopProductsParameters,
)
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.csv import csv_reply
from polyglot_persistence.api.web.replies import Headers, Reply, json_reply
from polyglot_persistence.domain.periods import Grain, back, bounds
from polyglot_persistence.errors import MalformedError
from polyglot_persistence.flows.projections.sales import SalesFlow, average
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.sales import Sales

PERIODS = {Grain.HOUR: 24, Grain.DAY: 30, Grain.MONTH: 12}
PERIODS_MAX = {Grain.HOUR: 744, Grain.DAY: 732, Grain.MONTH: 120}
"""A month of hours, two years of days, ten years of months."""

PRODUCT_DAYS_MAX = 366
"""Bounds the cost of the ranking, which grows with days and products."""


@dataclass
class SalesRoutes:
    """The routes over the rollups."""

    sales: SalesFlow
    clock: Clock

    async def dashboard(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/dashboard/sales: the latest days that have sales."""
        query = DailySalesParameters(request)
        flow = self.sales
        found = await (flow.live_days if query.live else flow.latest_days)(query.days)
        rows = [DaySalesOut(*row) for row in found.days]
        return json_reply(200, rows, _as_of(found.as_of) if found.as_of else ())

    async def refresh(self, _request: Request, _body: BodyReader) -> Reply:
        """POST /api/admin/refresh: refresh the view, concurrently with its readers."""
        return json_reply(200, RefreshedOut(await self.sales.refresh("request")))

    async def by_period(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/sales: whole hours, days or months of a time zone."""
        query = SalesParameters(request)
        report = await self.sales.by_period(query.by, query.tz, self._bounds(query), query.product)
        rows = [PeriodOut(r.start, *r.sales, average(r.sales), r.growth) for r in report.rows]
        if query.wants_csv:
            return csv_reply(query, "sales.csv", PeriodOut, rows, _as_of(report.as_of))
        total = SalesTotalOut(*report.total, average(report.total))
        out = SalesOut(report.as_of, query.by.value, query.tz.key, rows, total, query.product)
        return json_reply(200, out, _VARY)

    async def products(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/sales/products: the products with the highest revenue."""
        query = TopProductsParameters(request)
        end = query.until or self.clock.now().date() + timedelta(days=1)
        first = query.since or max(end - timedelta(days=DAYS), FIRST.date())
        if not first < end:
            raise MalformedError("the query parameter to must be later than from")
        if (end - first).days > PRODUCT_DAYS_MAX:
            raise MalformedError(
                f"the query parameters from and to must be at most {PRODUCT_DAYS_MAX} days apart"
            )
        top = await self.sales.top_products(first, end, query.limit)
        rows = [
            ProductSalesOut(*one, average(Sales(one.revenue, one.orders))) for one in top.products
        ]
        if query.wants_csv:
            return csv_reply(query, "products.csv", ProductSalesOut, rows, _as_of(top.as_of))
        return json_reply(200, TopProductsOut(top.as_of, first, end, rows), _VARY)

    def _bounds(self, query: SalesParameters) -> list[datetime]:
        grain, zone, most = query.by, query.tz, PERIODS_MAX[query.by]
        try:
            # A period that begins now has begun.
            now = self.clock.now() + timedelta(microseconds=1)
            end = now if query.until is None else query.in_zone(query.until)
            if query.since is None:
                last = end - timedelta(microseconds=1)
                first = max(back(grain, zone, last, PERIODS[grain]), FIRST)
            else:
                first = query.in_zone(query.since)
            if not first < end:
                raise MalformedError("the query parameter to must be later than from")
            return bounds(grain, zone, first, end, most)
        except ValueError as error:
            raise MalformedError(
                f"the query parameters from, to and tz: {error}; by={grain.value} takes at "
                f"most {most} periods"
            ) from error


_VARY: Headers = ((b"vary", b"accept"),)


def _as_of(moment: datetime) -> Headers:
    return ((b"x-as-of", moment.isoformat().encode()),)
