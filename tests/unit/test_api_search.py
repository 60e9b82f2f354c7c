"""The routes of search: what parameters ask for, and how answers are told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal

import httpx2
import pytest
import pytest_asyncio

from polyglot_persistence.api.app import build_app
from polyglot_persistence.domain.order import Order
from polyglot_persistence.domain.search.query import (
    Bounds,
    DayOrders,
    Facets,
    NameOrders,
    PriceRange,
    SearchQuery,
    Sort,
    position,
)
from polyglot_persistence.domain.search.ranking import Ranking, Tier
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.search import Hit, SearchResult
from tests.support.scripted import FakeClock
from tests.support.stub_flows import ID, LIMITS, NOW, OPEN, StubFlows


class Setup:
    """The application over stub flows, and a client of it."""

    def __init__(self) -> None:
        self.flows = StubFlows()
        app = build_app(
            self.flows.as_flows(), LIMITS, clock=FakeClock(), stopping=asyncio.Event(), access=OPEN
        )
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://localhost"
        )


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fresh application."""
    setup = Setup()
    async with setup.client:
        yield setup


async def test_search_answers_typed_hits(setup: Setup) -> None:
    """Total, hits with their score, and amounts as exact numbers."""
    order = Order(ID, "Tea", Decimal("0.10"), NOW)
    setup.flows.hits = SearchResult(41, [Hit(order, Ranking(1).weights[Tier.BEGINNING])] * 41)
    answer = await setup.client.get("/api/search?q=tea")
    out = answer.json()
    assert (out["total"], len(out["hits"])) == (41, 20)
    assert out["took_ms"] >= 0
    assert out["hits"][0] == {
        "id": str(ID),
        "product_name": "Tea",
        "highlighted": "<mark>Tea</mark>",
        "amount": 0.1,
        "created_at": "2026-01-31T12:00:00Z",
        "score": 0.875,
    }
    assert '"amount":0.10' in answer.text


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("sort=best&q=tea", "sort must be relevance, newest or amount"),
        ("sort=relevance", "only if q is given"),
        ("q=tea&min=x", "min must be a plain decimal number"),
        ("q=tea&max=-1", "max must not be negative"),
        ("q=tea&min=2&max=1", "min must not be above max"),
        ("q=tea&from=yesterday", "from must be a date, or a moment"),
        ("q=tea&to=2026-01-31T12:00:00", "to must be a date, or a moment"),
        ("q=tea&to=0001-01-01T00:00:00%2B01:00", "to must be a date, or a moment"),
        ("q=tea&from=2026-01-31T00:00:00Z&to=2026-01-31T00:00:00Z", "from must be before to"),
        ("q=tea&facets=1", "facets must be true or false"),
        ("q=tea&cursor=x", "cursor must be the `next_cursor`"),
        ("q=tea&cursor=%C3%A9", "cursor must be the `next_cursor`"),
        ("limit=3", "q is missing"),
    ],
)
async def test_a_search_that_breaks_a_rule_is_told_which(
    setup: Setup, query: str, word: str
) -> None:
    """Parameter and rule are named."""
    answer = await setup.client.get(f"/api/search?{query}")
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems#malformed")
    assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "rules"),
    [
        ("q=tea&limit=0&min=x&facets=1", ["min must be", "facets must be", "limit must be"]),
        ("q=tea&sort=best&from=x&to=y", ["from must be", "to must be", "sort must be"]),
        ("sort=relevance&min=2&max=1", ["sort can be relevance", "min must not be above max"]),
        ("from=2026-02-01&to=2026-01-01&min=2&max=1", ["from must be before", "min must not be"]),
    ],
)
async def test_every_broken_rule_is_named_at_once(
    setup: Setup, query: str, rules: list[str]
) -> None:
    """Those of single parameters first; those between parameters once each has a value."""
    answer = await setup.client.get(f"/api/search?{query}")
    found = answer.json()["detail"].split("; the query parameter ")
    assert answer.status_code == 400
    assert len(found) == len(rules)
    for detail, rule in zip(found, rules, strict=True):
        assert rule in detail


async def test_a_search_asks_for_what_its_parameters_say(setup: Setup) -> None:
    """Bounds to the microsecond and the cent; `to` is without its own moment."""
    path = (
        "/api/search?from=2026-01-31T00:00:00Z&to=2026-02-01T01:00:00%2B01:00&min=0.1&max=2"
        "&sort=amount&limit=3&facets=true"
    )
    assert (await setup.client.get(path)).status_code == 200
    day = 86_400_000_000
    start = 20_484 * day
    bounds = Bounds(start, start + day - 1, 10, 200)
    assert setup.flows.searched == SearchQuery(None, 4, Sort.AMOUNT, bounds, facets=True)


async def test_a_next_page_is_offered_while_there_is_one(setup: Setup) -> None:
    """By path, cursor and Link; it keeps the question, and belongs to no other."""
    order = Order(ID, "Tea", Decimal("0.10"), NOW)
    setup.flows.hits = SearchResult(3, [Hit(order, 3)] * 3)
    answer = await setup.client.get("/api/search?q=tea&limit=2&min=0")
    out = answer.json()
    assert len(out["hits"]) == 2
    assert answer.headers["link"] == f'<{out["next"]}>; rel="next"'
    setup.flows.hits = SearchResult(3, [Hit(order, 3)])
    last = await setup.client.get(out["next"])
    assert last.json().keys() == {"total", "total_is", "hits", "did_you_mean", "took_ms"}
    assert setup.flows.searched is not None
    assert setup.flows.searched.after == position(order, 3, Sort.RELEVANCE)
    assert setup.flows.searched.bounds == Bounds(cents_min=0)
    other = await setup.client.get(f"/api/search?q=teas&cursor={out['next_cursor']}&sort=newest")
    assert (other.status_code, "another search" in other.text) == (400, True)


@pytest.mark.parametrize("sort", [sort.value for sort in Sort])
async def test_pages_go_on_before_1970(setup: Setup, sort: str) -> None:
    """Moments before it are numbers below zero."""
    order = Order(ID, "Tea", Decimal("0.10"), datetime(1969, 12, 31, tzinfo=UTC))
    setup.flows.hits = SearchResult(3, [Hit(order, 3)] * 3)
    first = (await setup.client.get(f"/api/search?q=tea&limit=2&sort={sort}")).json()
    assert (await setup.client.get(first["next"])).status_code == 200
    assert setup.flows.searched is not None
    assert setup.flows.searched.after == position(order, 3, Sort(sort))


async def test_facets_are_told_as_amounts_and_days(setup: Setup) -> None:
    """Open ends are null."""
    facets = Facets(
        [PriceRange(0, 100, 2), PriceRange(100_000, None, 1)],
        [DayOrders(date(2026, 1, 31), 3)],
        [NameOrders("Tea", 3)],
    )
    setup.flows.hits = SearchResult(3, [], facets)
    answer = await setup.client.get("/api/search?q=tea&facets=true")
    assert answer.json()["facets"] == {
        "prices": [{"from": 0, "to": 1, "orders": 2}, {"from": 1000, "to": None, "orders": 1}],
        "days": [{"day": "2026-01-31", "orders": 3}],
        "products": [{"product_name": "Tea", "orders": 3}],
    }
    assert '"from":1000.00' in answer.text


async def test_suggestions_are_names_with_their_html(setup: Setup) -> None:
    """What is typed so far is marked; without a text there is nothing to complete.

    Without an index there is no answer, but for what was asked a moment ago.
    """
    setup.flows.named = [NameOrders("Tea <green>", 3), NameOrders("Milk", 9)]
    answer = await setup.client.get("/api/search/suggest?q=te")
    assert answer.json()["suggestions"] == [
        {"product_name": "Tea <green>", "highlighted": "<mark>Te</mark>a &lt;green&gt;"}
    ]
    assert (await setup.client.get("/api/search/suggest?q=%20")).status_code == 400
    setup.flows.error = UnavailableError("the index is missing")
    assert (await setup.client.get("/api/search/suggest?q=te")).status_code == 200
    assert (await setup.client.get("/api/search/suggest?q=m")).status_code == 503
