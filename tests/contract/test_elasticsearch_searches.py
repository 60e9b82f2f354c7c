"""Searches: which are repeated, what stops others, and what is no answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.adapters.elasticsearch.searches import _Asked
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.domain.search.query import Bounds, SearchQuery, Sort
from polyglot_persistence.domain.search.terms import parse_query
from polyglot_persistence.errors import UnavailableError
from tests.support.elasticsearch_stub import (
    NOTHING_FOUND,
    Answer,
    Answerer,
    Request,
    Stub,
    index_at,
    stubbed,
)

NEWEST = SearchQuery(None, 10, Sort.NEWEST, Bounds(cents_min=1))  # it takes one search
LOST = {"error": {"type": "search_phase_execution_exception", "reason": "lost"}}
ELASTICSEARCH = {
    "X-Elastic-Product": "Elasticsearch",
    "Content-Type": "application/vnd.elasticsearch+json;compatible-with=8",
}


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[Stub]:
    """A server that does as it is told."""
    async with stubbed() as stub:
        yield stub


@pytest_asyncio.fixture
async def index(stub: Stub) -> AsyncIterator[ElasticsearchIndex]:
    """The index on it, with short deadlines."""
    index = index_at(f"http://127.0.0.1:{stub.port}")
    yield index
    await index.close()


def each_failed(status: int) -> Answerer:
    """Answer each search of a request with this status."""

    def answer(request: Request) -> Answer:
        searches = len(request.body.splitlines()) // 2
        return Answer(
            200, json.dumps({"responses": [LOST | {"status": status}] * searches}), ELASTICSEARCH
        )

    return answer


@pytest.mark.parametrize(
    "changed", [{"created_micros": [2**70]}, {"created_micros": []}, {"amount_cents": ["much"]}]
)
async def test_a_document_of_another_form_is_unavailable(
    stub: Stub, index: ElasticsearchIndex, changed: dict[str, Any]
) -> None:
    """Somebody has edited it by hand."""
    columns = {
        "id": [str(new_id())],
        "product_name": ["Milk"],
        "amount_cents": [100],
        "created_micros": [1],
    }
    hit = {"_id": "1", "fields": columns | changed}
    stub.search = lambda _: Answer(200, {"hits": {"total": {"value": 1}, "hits": [hit]}})
    with pytest.raises(UnavailableError, match="not its answer"):
        await index.search(NEWEST)


async def test_facets_that_are_missing_are_unavailable(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """So are names."""
    stub.search = lambda _: NOTHING_FOUND
    with pytest.raises(UnavailableError, match="not its answer"):
        await index.search(NEWEST._replace(facets=True))
    with pytest.raises(UnavailableError, match="not its answer"):
        await index.names(parse_query("milk"), 10)


async def test_a_search_that_a_lost_node_failed_is_repeated_once(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """Another node has a copy; if that fails as well, its caller hears of it."""
    stub.search = lambda one: each_failed(503)(one) if len(stub.searches) == 1 else NOTHING_FOUND
    assert (await index.search(NEWEST)).total == 0
    assert len(stub.searches) == 2
    stub.search = each_failed(503)
    with pytest.raises(UnavailableError, match=r"503 .* lost"):
        await index.search(NEWEST)
    assert len(stub.searches) == 4


@pytest.mark.parametrize("status", [400, 404, 429, 504])
async def test_a_search_that_would_fail_again_is_not_repeated(
    stub: Stub, index: ElasticsearchIndex, status: int
) -> None:
    """A bad one, a missing index, an overload: a repetition makes the last one worse."""
    stub.search = each_failed(status)
    with pytest.raises(UnavailableError, match=rf"{status} .* lost"):
        await index.search(NEWEST)
    assert len(stub.searches) == 1


async def test_a_search_is_repeated_if_there_is_as_much_time_left_as_it_took() -> None:
    """A repetition that runs out of time would hide the error, and count as no answer."""
    asked = _Asked([], deadline=10.0, told=asyncio.get_running_loop().create_future(), asked_at=8.0)
    assert asked.may_be_repeated(8.9)
    assert not asked.may_be_repeated(9.1)
    assert not asked._replace(is_repeated=True).may_be_repeated(8.9)


async def test_each_of_several_callers_gets_its_own_answer(
    stub: Stub, index: ElasticsearchIndex
) -> None:
    """Also if some of the searches in a request are repeated, and no other ones."""
    failed: set[int] = set()
    sent = 0

    def least(search: bytes) -> int:
        (bound,) = json.loads(search)["query"]["bool"]["filter"]
        number: int = bound["range"]["amount_cents"]["gte"]
        return number

    def each(request: Request) -> Answer:
        nonlocal sent
        items: list[dict[str, Any]] = []
        for number in map(least, request.body.splitlines()[1::2]):
            sent += 1
            if number % 3 == 0 and number not in failed:
                failed.add(number)
                items.append(LOST | {"status": 503})
            else:
                items.append({"hits": {"total": {"value": number}, "hits": []}, "status": 200})
        return Answer(200, json.dumps({"responses": items}), ELASTICSEARCH)

    stub.search = each
    numbers = range(1, 31)
    found = await asyncio.gather(
        *[index.search(NEWEST._replace(bounds=Bounds(cents_min=n))) for n in numbers]
    )
    assert [one.total for one in found] == list(numbers)
    assert sent == 40


async def test_a_slow_search_stops_no_other(stub: Stub, index: ElasticsearchIndex) -> None:
    """The cluster has answered others meanwhile, so it can be reached."""
    answered = asyncio.Event()

    async def ask_on() -> None:
        while not answered.is_set():
            assert (await index.search(NEWEST)).total == 0

    stub.search = lambda _: NOTHING_FOUND
    stub.hangs = lambda request: b"prices" in request.body
    asking = asyncio.create_task(ask_on())
    with pytest.raises(UnavailableError, match="no answer in time"):
        await index.search(NEWEST._replace(facets=True))
    assert (await index.search(NEWEST)).total == 0
    answered.set()
    await asking
