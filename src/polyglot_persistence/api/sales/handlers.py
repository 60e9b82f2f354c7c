"""Sales by period and by product, the daily dashboard and its refresh."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from starlette.requests import Request

from polyglot_persistence.api.sales.schemas import (
    DaySalesOut,
    PeriodOut,
    ProductSalesOut,
    RefreshedOut,
    SalesOut,
    SalesTotalOut,
    TopProductsOut,
)
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.csv import csv_reply, wanted_csv
from polyglot_persistence.api.web.queries import parse_count, parse_moment
from polyglot_persistence.api.web.replies import Headers, Reply, json_reply
from polyglot_persistence.domain.order import parse_name
from polyglot_persistence.domain.periods import Grain, back, bounds, zone_of
from polyglot_persistence.errors import InvalidError, MalformedError
from polyglot_persistence.flows.projections.sales import SalesFlow, average
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.sales import Sales

DAYS = 30
DAYS_MAX = 36_600
"""A hundred years: more days than the record can have."""

PERIODS = {Grain.HOUR: 24, Grain.DAY: 30, Grain.MONTH: 12}
PERIODS_MAX = {Grain.HOUR: 744, Grain.DAY: 732, Grain.MONTH: 120}
"""A month of hours, two years of days, ten years of months."""

PRODUCTS = 10
PRODUCTS_MAX = 1_000
PRODUCT_DAYS_MAX = 366
"""The cost of the products' ranking grows with days and products."""

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2200, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TRUTHS = {"true": True, "false": False}


class SalesRoutes:
    """The routes over the rollups."""

    def __init__(self, sales: SalesFlow, clock: Clock) -> None:
        self._sales = sales
        self._clock = clock

    async def dashboard(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/dashboard/sales: the latest days that have sales."""
        days_max = parse_count(request, "days", otherwise=DAYS, cap=None, maximum=DAYS_MAX)
        live = request.query_params.get("live", "false")
        if live not in _TRUTHS:
            raise MalformedError("the query parameter live must be true or false")
        flow = self._sales
        found = await (flow.live_days if _TRUTHS[live] else flow.latest_days)(days_max)
        rows = [DaySalesOut(row.day, row.revenue, row.orders) for row in found.days]
        return json_reply(200, rows, _as_of(found.as_of) if found.as_of else ())

    async def refresh(self, _request: Request, _body: BodyReader) -> Reply:
        """POST /api/admin/refresh: refresh the view, concurrently with its readers."""
        return json_reply(200, RefreshedOut(await self._sales.refresh("request")))

    async def by_period(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/sales: whole hours, days or months of a time zone."""
        grain = _grain(request)
        zone = _zone(request)
        product_name = _product(request, grain, zone)
        periods = self._bounds(request, grain, zone)
        report = await self._sales.by_period(grain, zone, periods, product_name)
        rows = [
            PeriodOut(
                row.start, row.sales.revenue, row.sales.orders, average(row.sales), row.growth
            )
            for row in report.rows
        ]
        if form := wanted_csv(request):
            head = ("start", "revenue", "orders", "average", "growth")
            cells = [(r.start.isoformat(), r.revenue, r.orders, r.average, r.growth) for r in rows]
            return csv_reply(form, "sales.csv", head, cells, _as_of(report.as_of))
        total = SalesTotalOut(*report.total, average(report.total))
        return json_reply(
            200,
            SalesOut(report.as_of, grain.value, zone.key, rows, total, product_name),
            _VARY,
        )

    async def products(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/sales/products: the products with the highest revenue."""
        products_max = parse_count(request, "limit", otherwise=PRODUCTS, cap=PRODUCTS_MAX)
        end = _day(request, "to") or self._clock.now().date() + timedelta(days=1)
        first = _day(request, "from") or max(end - timedelta(days=DAYS), _FIRST.date())
        if not first < end:
            raise MalformedError("the query parameter to must be later than from")
        if (end - first).days > PRODUCT_DAYS_MAX:
            raise MalformedError(
                f"the query parameters from and to may be {PRODUCT_DAYS_MAX} days apart at most"
            )
        top = await self._sales.top_products(first, end, products_max)
        rows = [
            ProductSalesOut(p.product_name, p.revenue, p.orders, _mean(p.revenue, p.orders))
            for p in top.products
        ]
        if form := wanted_csv(request):
            head = ("product_name", "revenue", "orders", "average")
            cells = [(r.product_name, r.revenue, r.orders, r.average) for r in rows]
            return csv_reply(form, "products.csv", head, cells, _as_of(top.as_of))
        return json_reply(200, TopProductsOut(top.as_of, first, end, rows), _VARY)

    def _bounds(self, request: Request, grain: Grain, zone: ZoneInfo) -> list[datetime]:
        most = PERIODS_MAX[grain]
        try:
            # A period that begins now has begun.
            now = self._clock.now() + timedelta(microseconds=1)
            end = _moment(request, "to", zone) or now
            first = _moment(request, "from", zone)
            if first is None:
                last = end - timedelta(microseconds=1)
                first = max(back(grain, zone, last, PERIODS[grain]), _FIRST)
            if not first < end:
                raise MalformedError("the query parameter to must be later than from")
            return bounds(grain, zone, first, end, most)
        except ValueError as error:
            raise MalformedError(
                f"the query parameters from, to and tz: {error}; by={grain.value} takes {most} "
                "periods at most"
            ) from error


_VARY: Headers = ((b"vary", b"accept"),)


def _as_of(moment: datetime) -> Headers:
    return ((b"x-as-of", moment.isoformat().encode()),)


def _mean(revenue: Decimal, orders: int) -> Decimal | None:
    return average(Sales(revenue, orders))


def _grain(request: Request) -> Grain:
    try:
        return Grain(request.query_params.get("by", "day"))
    except ValueError:
        raise MalformedError("the query parameter by must be hour, day or month") from None


def _zone(request: Request) -> ZoneInfo:
    try:
        return zone_of(request.query_params.get("tz", "UTC"))
    except ValueError as error:
        raise MalformedError(f"the query parameter tz: {error}") from None


def _product(request: Request, grain: Grain, zone: ZoneInfo) -> str | None:
    product = request.query_params.get("product")
    if product is None:
        return None
    if grain is Grain.HOUR or zone.key != "UTC":
        raise MalformedError(
            "the query parameter product goes with by=day and by=month of tz=UTC: sales of a "
            "product are kept by UTC day"
        )
    try:
        return parse_name(product, "product")
    except InvalidError as error:
        raise MalformedError(f"the query parameter {error}") from None


def _moment(request: Request, name: str, zone: ZoneInfo) -> datetime | None:
    """Return a date as its beginning in the zone, or a moment; without an offset it is local."""
    moment = parse_moment(request, name, zone)
    if moment is not None and not _FIRST <= moment <= _LAST:
        raise MalformedError(f"the query parameter {name} must lie between 1970 and 2200")
    return moment


def _day(request: Request, name: str) -> date | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        day = date.fromisoformat(text if _DATE.fullmatch(text) else "")
        if _FIRST.date() <= day <= _LAST.date():
            return day
    except ValueError:
        pass
    raise MalformedError(
        f"the query parameter {name} must be a UTC date from 1970 to 2200; e.g. 2026-01-31"
    )
