"""Query strings: moments as people write them, and parameters that no route has."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import httpx2
import pytest
from starlette.requests import Request

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.routes import ROUTES, Route
from polyglot_persistence.api.sales.schemas import SalesParameters
from polyglot_persistence.api.web.queries import QueryParameter, QueryParameters, count, moment
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.domain.order import to_micros
from polyglot_persistence.errors import InvalidError, MalformedError
from scripts import document_api
from tests.support.scripted import FakeClock
from tests.support.stub_flows import ID, LIMITS, OPEN, StubFlows

FLOWS = StubFlows()
APP = build_app(FLOWS.as_flows(), LIMITS, clock=FakeClock(), stopping=asyncio.Event(), access=OPEN)


def client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(APP), base_url="http://localhost")


def asked(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


class Moments(QueryParameters):
    """Two parameters, of which one has a name of its own."""

    since = moment("Then or later.", "from")
    limit = count("Most.", 5, cap=10)


NOON = datetime(2026, 1, 31, 10, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "zone", "moment"),
    [
        ("2026-01-31T12:00:00%2B02:00", None, NOON),
        ("2026-01-31T12:00:00+02:00", None, NOON),  # which is a space in a query
        ("2026-01-31T12:00:00.5+02:00", None, NOON.replace(microsecond=500_000)),
        ("2026-01-31t12:00:00+0200", None, NOON),
        ("2026-01-31+12:00:00+02:00", None, NOON),
        ("2026-01-31T12:00+02:00", None, NOON),
        ("2026-01-31T08:00:00-02:00", None, NOON),
        ("2026-01-31T10:00:00z", None, NOON),
        ("2026-01-31T11:00:00+01:00", BERLIN, NOON),
        ("2026-01-31T11:00:00", BERLIN, NOON),
        ("2026-01-31+11:00", BERLIN, NOON),
        ("2026-01-31", None, datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31", BERLIN, datetime(2026, 1, 30, 23, tzinfo=UTC)),
    ],
)
def test_a_moment_is_understood(text: str, zone: ZoneInfo | None, moment: datetime) -> None:
    """Also with a plus as it is, and a date alone."""
    query = SalesParameters(asked(f"from={text}&tz=Europe/Berlin" if zone else f"from={text}"))
    assert query.since is not None
    assert query.in_zone(query.since) == moment
    if zone is None:
        assert Moments(asked(f"from={text}")).since == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00++02:00",
        "2026-02-30",
        "2026-01-31T25:00:00Z",
        "2026-W05-6T12:00:00Z",
        "20260131T120000Z",
        "2026-01-31x12:00:00Z",
        "0001-01-01T00:00:00%2B01:00",
        "1769860800",
        "\uff12026-01-31",
    ],
)
def test_another_moment_is_refused_with_what_to_write(text: str) -> None:
    """The plus included."""
    with pytest.raises(MalformedError, match="%2B"):
        Moments(asked(f"from={text}"))


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00+02:00", "2026-01-31"])
async def test_search_and_sales_take_the_same_moments(text: str) -> None:
    """Whoever has tried one knows the other."""
    async with client() as one:
        for path in ("/api/search?q=tea", "/api/sales?to=2026-02-01", "/api/admin/dead-letters?"):
            name = "since" if "admin" in path else "from"
            answer = await one.get(f"{path}&{name}={text}")
            assert "from" not in answer.text or answer.status_code != 400, answer.text
        await one.get(f"/api/search?q=tea&from={text}")
    assert FLOWS.searched is not None
    expected = NOON if "T" in text else datetime(2026, 1, 31, tzinfo=UTC)
    assert FLOWS.searched.bounds.micros_min == to_micros(expected)


QUERY = [
    pytest.param(one, id=f"{route.about.name} {one.name}")
    for route in ROUTES
    for one in route.about.parameters
    if isinstance(one, QueryParameter)
]


@pytest.mark.parametrize("parameter", QUERY)
def test_a_parameter_is_parsed_as_it_is_described(parameter: QueryParameter[Any]) -> None:
    """Each word, bound, default and example of its schema is taken, and what is beside is not."""
    schema = parameter.schema
    taken = [*schema.get("enum", ()), *schema.get("examples", ())]
    refused = ["-1", "no such word"] if "enum" in schema or schema["type"] == "integer" else []
    if schema["type"] == "boolean":
        taken, refused = ["true", "false"], ["True", "1", ""]
    if schema["type"] == "integer":
        taken += [str(schema["minimum"])]
        refused += [str(schema["minimum"] - 1), str(schema.get("maximum", 2**63 - 1) + 1), "1.0"]
    if "format" in schema and schema["type"] == "string":
        refused += ["", "x"]
        taken += [{"uuid": str(ID), "date": "2026-01-31"}.get(schema["format"], "2026-01-31")]
    if "maxLength" in schema:
        taken += ["x" * schema["maxLength"]]
        refused += ["x" * (schema["maxLength"] + 1)]
    if "default" in schema:
        text = str(schema["default"])
        default = text.lower() if schema["type"] == "boolean" else text
        assert parameter.read(default) == parameter.otherwise
    for text in taken:
        assert parameter.read(text) is not None
    for text in refused:
        with pytest.raises(InvalidError) as error:
            parameter.read(text)
        assert error.value.violations[0].detail.startswith("must ")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.about.name)
def test_the_reference_asks_with_parameters_that_there_are(route: Route) -> None:
    """Each value of its example is one that the parameter takes; required ones are given."""
    declared = {one.name: one for one in route.about.parameters if isinstance(one, QueryParameter)}
    asked_for = dict(parse_qsl(document_api.QUERIES.get(route.about.name, "")))
    assert {name for name, one in declared.items() if one.required} <= asked_for.keys()
    for name, text in asked_for.items():
        declared[name].read(text)


GUARDED = [route for route in ROUTES if route.scope is not Scope.PUBLIC]


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("query", ["nope=1", "=1", "Limit=5", "a%5B%5D=1&b", "limit%00=1", "%FF=1"])
async def test_an_unknown_parameter_is_named_with_those_there_are(route: Route, query: str) -> None:
    """Nothing that was meant is left out in silence."""
    known = [one.name for one in route.about.parameters if one.place == "query"]
    async with client() as one:
        path = re.sub(r"\{\w+\}", "1", route.path)
        answer = await one.request(route.method, f"{path}?{query}")
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems#malformed")
    assert "no query parameter" in answer.json()["detail"]
    for name in known:
        assert name in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/search?q=tea&q=rug",
        "/api/search?q=tea&limit=5&limit=",
        "/api/orders?limit=1&%6Cimit=2",
        "/api/sales?by=day&by=day",
        "/api/orders/import?first_line=1&first_line=2",
    ],
)
async def test_a_parameter_is_given_once(path: str) -> None:
    """Of two values no reader could know which counts."""
    async with client() as one:
        answer = await one.request("POST" if "import" in path else "GET", path)
    assert answer.status_code == 400
    assert "given twice" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/?order=1&utm_source=x", {}),
        ("/health/live?t=1", {}),
        ("/docs/docs.js?v=2", {}),
        ("/api/orders?", {}),
    ],
)
async def test_where_a_query_makes_no_difference_any_is_taken(
    path: str, headers: Mapping[str, str]
) -> None:
    """Pages and probes: their addresses are written by others."""
    async with client() as one:
        assert (await one.get(path, headers=headers)).status_code == 200
