"""What the Elasticsearch adapter makes of several addresses, some of which do not answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.elasticsearch.answers import Done
from polyglot_persistence.adapters.elasticsearch.connection import Credentials
from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.elasticsearch_stub import ALIAS, Answer, Stub, stubbed
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.search_indexes import asked

DEADLINE_SECONDS = 1.0
NOTHING_FOUND = Answer(200, {"hits": {"total": {"value": 0}, "hits": []}})
NO_MASTER = Answer(503, {"error": {"type": "master_not_discovered_exception", "reason": None}})


@pytest_asyncio.fixture
async def stubs() -> AsyncIterator[list[Stub]]:
    """Three nodes that find nothing."""
    async with AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(stubbed()) for _ in range(3)]
        for stub in stubs:
            stub.search = lambda _: NOTHING_FOUND
        yield stubs


@pytest_asyncio.fixture
async def index(stubs: list[Stub]) -> AsyncIterator[ElasticsearchIndex]:
    """The index on all of them."""
    index = ElasticsearchIndex(
        f"http://{','.join(f'127.0.0.1:{stub.port}' for stub in stubs)}",
        alias=ALIAS,
        credentials=Credentials(),
        search_timeout_seconds=DEADLINE_SECONDS,
        index_timeout_seconds=4 * DEADLINE_SECONDS,
    )
    yield index
    await index.close()


def requests(stubs: list[Stub]) -> list[int]:
    return [len(stub.requests) for stub in stubs]


async def test_all_nodes_are_used(stubs: list[Stub], index: ElasticsearchIndex) -> None:
    """One after the other."""
    for _ in range(12):
        await index.search(asked("milk", 10))
    assert min(requests(stubs)) > 0


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_node_that_is_gone_fails_no_call(
    stubs: list[Stub], index: ElasticsearchIndex, lost: int
) -> None:
    """Not the first one either, nor that with a document; the pool stays open."""
    await index.search(asked("milk", 10))
    for stub in stubs[:lost]:
        await stub.stop()
    row = StoredOrder(Order(new_id(), "Milk", Decimal("1.00"), START), START, START)
    for _ in range(20):
        assert (await index.search(asked("milk", 10))).total == 0
        assert await index.index([row]) == []
    for stub in stubs[:lost]:
        await stub.start()  # as the fixture ends it


async def test_a_silent_node_is_left_out_once_it_was_waited_for(
    stubs: list[Stub], index: ElasticsearchIndex
) -> None:
    """No call fails; few are slow."""
    stubs[0].open.clear()
    slow = 0
    for _ in range(30):
        started = time.monotonic()
        await index.search(asked("milk", 10))
        slow += time.monotonic() - started > DEADLINE_SECONDS / 2
    assert slow <= 2
    stubs[0].open.set()
    before = requests(stubs)

    async def used_again() -> None:
        await index.search(asked("milk", 10))
        assert requests(stubs)[0] > before[0] + 1

    await eventually(used_again)


async def test_a_node_without_a_master_is_passed_over(
    stubs: list[Stub], index: ElasticsearchIndex
) -> None:
    """Another one may have it; if none has, the cluster's word is the error."""

    async def read() -> None:
        await index.read(query={"match_all": {}}, size=0)

    stubs[0].search = lambda _: NO_MASTER
    for _ in range(6):
        await read()
    for stub in stubs:
        stub.search = lambda _: NO_MASTER
    for _ in range(3):
        with pytest.raises(UnavailableError, match="503 master_not_discovered_exception"):
            await read()


async def test_a_cluster_without_a_node_is_tried_rarely(
    stubs: list[Stub], index: ElasticsearchIndex
) -> None:
    """As a single node is; its return is noticed."""
    for stub in stubs:
        await stub.stop()
    with pytest.raises(UnavailableError):
        await index.search(asked("milk", 10))
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await index.search(asked("milk", 10))
    for stub in stubs:
        await stub.start()
    await eventually(lambda: index.search(asked("milk", 10)), retried=(UnavailableError,))


async def test_what_must_not_be_done_twice_is_sent_once(
    stubs: list[Stub], index: ElasticsearchIndex
) -> None:
    """A lost answer may be that of a success; and one such node closes the pool to nobody."""
    for stub in stubs:
        stub.open.clear()
    with pytest.raises(UnavailableError):
        await index.connection.call(
            lambda client: client.indices.create(index="new"),
            Done,
            asyncio.get_running_loop().time() + 0.3,
            is_repeatable=False,
        )
    assert sum(requests(stubs)) == 1
    for stub in stubs:
        stub.open.set()
    assert (await index.search(asked("milk", 10))).total == 0
