"""Sales over HTTP, from flows over a view that answers as the test says."""

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, cast

import httpx2
import pytest
import pytest_asyncio

from polyglot_persistence.api.app import build_app
from polyglot_persistence.flows.projections.sales import SalesFlow
from polyglot_persistence.ports.sales import (
    DaySales,
    LatestDays,
    PeriodSums,
    ProductSales,
    Sales,
    TopProducts,
)
from tests.support.scripted import FakeClock
from tests.support.stub_flows import LIMITS, NOW, OPEN, StubFlows


class View:
    """A view that remembers what it was asked."""

    def __init__(self) -> None:
        self.bounds: Sequence[datetime] = []
        self.days: Sequence[date] = []
        self.sums: list[Sales] = []
        self.products: list[ProductSales] = []

    async def periods(self, bounds: Sequence[datetime]) -> PeriodSums:
        self.bounds = bounds
        empty = [Sales(Decimal("0.00"), 0)] * (len(bounds) - 1 - len(self.sums))
        return PeriodSums(NOW, [*self.sums, *empty])

    async def product_periods(self, _product: str, bounds: Sequence[date]) -> PeriodSums:
        self.days = bounds
        return PeriodSums(NOW, [Sales(Decimal("1.00"), 1)] * (len(bounds) - 1))

    async def top_products(self, first: date, end: date, products_max: int) -> TopProducts:
        self.days = (first, end)
        return TopProducts(NOW, self.products[:products_max])

    async def live_days(self, _days_max: int) -> LatestDays:
        return LatestDays(NOW, [DaySales(NOW.date(), Decimal("2.50"), 2)])


class Setup:
    """The application over that view."""

    def __init__(self) -> None:
        self.view = View()
        clock = FakeClock()
        flows = StubFlows().as_flows()._replace(sales=SalesFlow(cast("Any", self.view), clock))
        app = build_app(flows, LIMITS, clock=clock, stopping=cast("Any", None), access=OPEN)
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://localhost"
        )

    async def get(self, query: str, **headers: str) -> Any:
        return await self.client.get(f"/api/sales{query}", headers=headers)


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fresh application."""
    setup = Setup()
    async with setup.client:
        yield setup


async def test_days_of_a_time_zone(setup: Setup) -> None:
    """Rows begin at local midnight; the first is compared with the period before it."""
    setup.view.sums = [
        Sales(Decimal("8.00"), 1),
        Sales(Decimal("10.00"), 3),
        Sales(Decimal("0.00"), 0),
    ]
    answer = await setup.get("?by=day&from=2026-03-29&to=2026-04-01&tz=Europe/Berlin")
    assert answer.status_code == 200, answer.text
    assert [bound.isoformat() for bound in setup.view.bounds] == [
        "2026-03-28T00:00:00+01:00",
        "2026-03-29T00:00:00+01:00",
        "2026-03-30T00:00:00+02:00",
        "2026-03-31T00:00:00+02:00",
        "2026-04-01T00:00:00+02:00",
    ]
    out = json.loads(answer.text, parse_float=Decimal)
    assert out == {
        "as_of": "2026-01-31T12:00:00Z",
        "by": "day",
        "tz": "Europe/Berlin",
        "rows": [
            {
                "start": "2026-03-29T00:00:00+01:00",
                "revenue": Decimal("10.00"),
                "orders": 3,
                "average": Decimal("3.33"),
                "growth": Decimal("0.2500"),
            },
            {
                "start": "2026-03-30T00:00:00+02:00",
                "revenue": Decimal("0.00"),
                "orders": 0,
                "average": None,
                "growth": Decimal("-1.0000"),
            },
            {
                "start": "2026-03-31T00:00:00+02:00",
                "revenue": Decimal("0.00"),
                "orders": 0,
                "average": None,
                "growth": None,
            },
        ],
        "total": {"revenue": Decimal("10.00"), "orders": 3, "average": Decimal("3.33")},
    }


@pytest.mark.parametrize(("by", "periods"), [("hour", 24), ("day", 30), ("month", 12)])
async def test_the_latest_periods_are_the_default(setup: Setup, by: str, periods: int) -> None:
    """Up to and with the one that is not over yet."""
    out = (await setup.get(f"?by={by}")).json()
    assert len(out["rows"]) == periods
    assert setup.view.bounds[-2] <= FakeClock().now() < setup.view.bounds[-1]


async def test_a_product_goes_with_utc_days_and_months(setup: Setup) -> None:
    """The bounds are days, one more before them for the growth of the first."""
    answer = await setup.get("?by=month&from=2026-01-15&to=2026-03-01&product=Tea")
    assert setup.view.days == [
        date(2025, 12, 1),
        date(2026, 1, 1),
        date(2026, 2, 1),
        date(2026, 3, 1),
    ]
    assert answer.json()["product"] == "Tea"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?by=week", "by must be"),
        ("?tz=Mars", "tz"),
        ("?tz=../UTC", "tz"),
        ("?from=yesterday", "from must be"),
        ("?to=1969-12-31", "to must lie between 1970 and 2200"),
        ("?from=2026-01-02&to=2026-01-02", "to must be later than from"),
        ("?from=2020-01-01&to=2026-01-01", "732 periods"),
        ("?by=hour&from=2026-01-01&to=2026-03-01", "744 periods"),
        ("?by=day&tz=Africa/Monrovia&from=1971-01-01&to=1971-01-03", "quarters of an hour"),
        ("?by=hour&product=Tea", "product goes with"),
        ("?product=Tea&tz=Europe/Berlin", "product goes with"),
        ("?product=%00", "product"),
        ("?format=xml", "format must be"),
        ("?format=csv&bom=yes", "bom must be"),
        ("/products?from=2026-01-31T12:00:00Z", "from must be"),
        ("/products?from=2026-02-01&to=2026-01-01", "to must be later than from"),
        ("/products?from=2020-01-01&to=2026-01-01", "366 days"),
        ("/products?limit=0", "limit must be"),
    ],
)
async def test_a_bad_query_names_parameter_and_rule(setup: Setup, query: str, named: str) -> None:
    """A 400, never a guess."""
    answer = await setup.get(query)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems#malformed"), answer.text
    assert named in answer.json()["detail"]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1", "=cmd|' /C calc'!A0", 'a "quoted", name']


async def test_csv_holds_no_formula(setup: Setup) -> None:
    """A name that begins like one is text to a spreadsheet; quotes and commas survive."""
    setup.view.products = [ProductSales(name, Decimal("1.50"), 1) for name in FORMULAS]
    answer = await setup.get("/products?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="products.csv"'
    assert answer.headers["x-as-of"].startswith("2026-01-31T12:00:00")
    head, *rows = csv.reader(io.StringIO(answer.text))
    assert head == ["product_name", "revenue", "orders", "average"]
    assert [row[0] for row in rows] == [f"'{name}" for name in FORMULAS[:-1]] + FORMULAS[-1:]
    assert rows[0][1:] == ["1.50", "1", "1.50"]


@pytest.mark.parametrize("separator", [";", ",", "|", ":", "^", "~"])
@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\uff1d", "\uff20"])
@pytest.mark.parametrize(
    "name", ["{s}{b}1+1", "Tea{s}{b}1+1", 'a{s}"{b}1"{s}b', '"{b}1', "x{s}{s}{b}1"]
)
async def test_csv_holds_no_formula_for_any_separator(
    setup: Setup, separator: str, begin: str, name: str
) -> None:
    """Whatever a spreadsheet parts the lines at, with or without heeding quotes."""
    setup.view.products = [ProductSales(name.format(s=separator, b=begin), Decimal(1), 1)]
    answer = await setup.get("/products?format=csv")
    line = answer.text.splitlines()[1].rsplit(",", 3)[0]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        reader = csv.reader([line], delimiter=separator, quoting=quoting)
        for cell in next(reader):
            assert not cell.lstrip('"').startswith(begin)


@pytest.mark.parametrize(
    "name",
    ["Wi-Fi", "T-Shirt, -5 \u00b0C", "C++", "a=b", "7-Up; @home is b", "me@example", "1+1=2"],
)
async def test_an_ordinary_name_stays_as_it_is(setup: Setup, name: str) -> None:
    """Signs inside a word, and after a space, begin no cell."""
    setup.view.products = [ProductSales(name, Decimal(1), 1)]
    answer = await setup.get("/products?format=csv")
    assert list(csv.reader(io.StringIO(answer.text)))[1][0] == name


@pytest.mark.parametrize("path", ["", "/products"])
async def test_csv_for_excel_begins_with_a_byte_order_mark(setup: Setup, path: str) -> None:
    """Asked for, by either way to CSV; a program gets none."""
    setup.view.products = [ProductSales("M\u00fcsli", Decimal(1), 1)]
    for query, accept in (("?format=csv&bom=true", ""), ("?bom=true", "text/csv")):
        answer = await setup.get(f"{path}{query}", accept=accept)
        assert answer.content.startswith(b"\xef\xbb\xbf")
        assert not answer.content[3:].startswith(b"\xef\xbb\xbf")
    for query in ("?format=csv", "?format=csv&bom=false"):
        assert not (await setup.get(f"{path}{query}")).content.startswith(b"\xef\xbb\xbf")


async def test_numbers_in_csv_stay_numbers(setup: Setup) -> None:
    """A negative growth is a number; what is not known is empty."""
    setup.view.sums = [Sales(Decimal("2.00"), 1), Sales(Decimal("1.00"), 1)]
    answer = await setup.get("?from=2026-01-01&to=2026-01-03&format=csv")
    assert answer.text.splitlines() == [
        "start,revenue,orders,average,growth",
        "2026-01-01T00:00:00+00:00,1.00,1,1.00,-0.5000",
        "2026-01-02T00:00:00+00:00,0.00,0,,-1.0000",
    ]


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("text/csv, application/json;q=0.5", True),
        ("application/json, text/csv;q=0.5", False),
        ("*/*", False),
        ("text/*;q=0.9, application/json;q=0.8", True),
        ("text/csv;q=x", False),
        ("", False),
    ],
)
async def test_the_form_is_negotiated(setup: Setup, accept: str, is_csv: bool) -> None:
    """CSV only for who wants it more than JSON."""
    answer = await setup.get("", accept=accept)
    assert answer.headers["content-type"].startswith("text/csv") == is_csv
    assert answer.headers["vary"] == "accept"


async def test_a_live_dashboard_is_as_of_now(setup: Setup) -> None:
    """The peer's shape, with the moment in a header."""
    answer = await setup.client.get("/api/dashboard/sales?live=true")
    assert answer.text == '[{"date":"2026-01-31","total_revenue":2.50,"orders":2}]'
    assert datetime.fromisoformat(answer.headers["x-as-of"]) == NOW.astimezone(UTC)
