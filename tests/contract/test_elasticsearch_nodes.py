"""The search index over an Elasticsearch cluster of three nodes, of which one is lost."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.elasticsearch.documents import SETTINGS
from polyglot_persistence.config import load
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.projections.rebuild import RebuildFlow
from polyglot_persistence.worker.rebuilder import rebuild_forever
from tests.simulation.stores.record import RecordServer
from tests.support.addresses import ELASTICSEARCH, needs
from tests.support.elasticsearch_cluster import GREEN_SECONDS, Cluster, running_cluster
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.records import SimulatedRecord
from tests.support.search_elasticsearch import Elasticsearch
from tests.support.search_indexes import asked, fill, found, made, row

LOST_SECONDS = 3.0
ONE_COPY = {"auto_expand_replicas": "false", "number_of_replicas": 0}

pytestmark = [
    needs(ELASTICSEARCH),
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def engine(cluster: Cluster) -> AsyncIterator[Elasticsearch]:
    """All nodes are well, and there is no index."""
    engine = Elasticsearch(cluster.url, shards=2)
    try:
        yield engine
    finally:
        await engine.close()


async def test_an_index_has_its_shards_and_a_second_copy_of_each(
    cluster: Cluster, engine: Elasticsearch
) -> None:
    """Elasticsearch makes the copies, on other nodes."""
    index = await made(engine)
    await cluster.has_status(engine.alias, "green")
    [name] = await engine.names()
    settings = (await engine.client.indices.get_settings(index=name))[name]["settings"]["index"]
    assert settings["number_of_shards"] == "2"
    assert settings["number_of_replicas"] == "1"
    assert (await index.ping()).warnings == ()


@pytest.mark.parametrize("primary", [True, False], ids=["primary", "other copy"])
async def test_no_search_fails_while_a_copy_lives(
    cluster: Cluster, engine: Elasticsearch, *, primary: bool
) -> None:
    """A node is killed under continuous searches and comes back; documents are taken meanwhile."""
    index = await made(engine)
    rows = await fill(index, "milk", "bread", "butter")
    await cluster.has_status(engine.alias, "green")
    victim = (await cluster.holders(engine.alias, primary=primary))[0]
    searches = 0
    slowest = 0.0
    stop = asyncio.Event()

    async def search() -> None:
        nonlocal searches, slowest
        process = engine.process()
        while not stop.is_set():
            started = time.monotonic()
            assert (await process.search(asked("milk", 10))).total == 1
            slowest = max(slowest, time.monotonic() - started)
            searches += 1

    async def more(count: int) -> None:
        goal = searches + count

        async def attempt() -> None:
            assert searches >= goal or searching.done()

        await eventually(attempt)

    searching = asyncio.gather(*[search() for _ in range(4)])
    try:
        await more(100)
        await cluster.kill(victim)
        await more(500)
        assert (
            await eventually(lambda: index.index([row("cheese", 9)]), retried=(UnavailableError,))
            == []
        )
        await more(100)
        await cluster.up(victim)
        await cluster.has_status(engine.alias, "green")
    finally:
        stop.set()
        await searching
    print(f"killed {victim}: {searches} searches, none failed, slowest {slowest:.2f} s")
    assert len(rows) + 1 == await found(index)


@asynccontextmanager
async def silent_address() -> AsyncIterator[str]:
    """An address that takes connections and answers nothing."""

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_dead_and_silent_addresses_cost_little(
    cluster: Cluster, engine: Elasticsearch
) -> None:
    """Searches and bulks go to the node that answers, within their deadlines."""
    await made(engine)
    async with silent_address() as silent:
        for others in (["127.0.0.1:1"], [silent], ["127.0.0.1:1", silent]):
            url = f"http://{','.join([*others, cluster.place('b')])}"
            index = engine.process_at(url, index_timeout_seconds=4)
            for number in range(6):
                assert await index.index([row("milk", number)]) == []
                assert await found(index) >= 0


async def test_an_index_of_an_earlier_version_gets_its_second_copy(
    cluster: Cluster, engine: Elasticsearch
) -> None:
    """And one whose copies somebody set is left as it is."""
    await made(engine)
    [name] = await engine.names()
    target = engine.target()
    for settings, copies in (
        (ONE_COPY, ("1", "0-1")),
        ({"auto_expand_replicas": "false", "number_of_replicas": 2}, ("2", "false")),
    ):
        await engine.client.indices.put_settings(index=name, settings=settings)
        if settings is ONE_COPY:
            [warning] = (await engine.process().ping()).warnings
            assert "one copy, on 3 nodes" in warning.detail
        await target.adopt_settings()
        index = (await engine.client.indices.get_settings(index=name))[name]["settings"]["index"]
        assert (index["number_of_replicas"], index["auto_expand_replicas"]) == copies
    await engine.wipe()
    await target.adopt_settings()  # nothing to do


async def test_a_lost_part_heals_unasked_and_once(cluster: Cluster, engine: Elasticsearch) -> None:
    """The index is built anew from the record while the old one is red, and the old one is gone."""
    clock = SystemClock()
    record = SimulatedRecord(RecordServer(clock))
    store = record.store()
    index = await made(engine)
    [old] = await engine.names()
    # As somebody set it: a worker that starts gives it no second copy.
    await engine.client.indices.put_settings(index=old, settings={"auto_expand_replicas": "0-0"})
    await cluster.has_status(engine.alias, "green")
    orders = [row("milk", number).order for number in range(50)]
    persisted = await store.persist([AcceptedOrder(one, START, one.id) for one in orders])
    await index.index(list(persisted.stored.values()))
    victim = (await cluster.holders(engine.alias, primary=True))[0]
    limits = replace(load({}).index, search_lost_seconds=LOST_SECONDS)
    flow = RebuildFlow(
        record.rebuild(), record.audit(), engine.target(), store, clock, limits=limits
    )
    assert not await flow.is_needed()
    stop = asyncio.Event()
    working = asyncio.create_task(rebuild_forever(flow, store, stop, interval_seconds=0.2))
    try:
        await cluster.kill(victim)
        killed = time.monotonic()

        async def healed() -> None:
            assert await found(index) == len(orders)
            assert old not in await engine.names()

        await eventually(
            healed, within_seconds=GREEN_SECONDS, retried=(AssertionError, UnavailableError)
        )
        print(f"red healed {time.monotonic() - killed:.1f} s after the kill")
        await cluster.up(victim)
        await cluster.has_status(engine.alias, "green")
        [new] = await engine.names()  # the node that came back brought nothing with it
        looks = asyncio.get_running_loop().time() + 2 * LOST_SECONDS

        async def looked_often() -> None:
            assert asyncio.get_running_loop().time() > looks

        await eventually(looked_often)
        assert await engine.names() == [new]
    finally:
        stop.set()
        await working
    assert SETTINGS["auto_expand_replicas"] == "0-1"


async def test_a_new_index_that_is_lost_while_it_is_built_is_begun_again(
    cluster: Cluster, engine: Elasticsearch
) -> None:
    """A rebuild never waits for a node that does not come back."""
    clock = SystemClock()
    record = SimulatedRecord(RecordServer(clock))
    await made(engine)
    target = engine.target()
    rebuild = await record.rebuild().begin(await target.begin())
    await engine.client.indices.put_settings(index=rebuild.index_name, settings=ONE_COPY)
    await cluster.has_status(f"{engine.alias}-building", "green")
    victim = (await cluster.holders(f"{engine.alias}-building", primary=True))[0]
    limits = replace(load({}).index, search_lost_seconds=LOST_SECONDS)
    flow = RebuildFlow(
        record.rebuild(), record.audit(), target, record.store(), clock, limits=limits
    )
    await cluster.kill(victim)
    try:
        await cluster.has_status(f"{engine.alias}-building", "red")

        async def begun_again() -> None:
            assert await flow.is_needed()
            assert rebuild.index_name in await flow._lost()

        await eventually(begun_again, retried=(AssertionError, UnavailableError))
        built = await eventually(flow.run, retried=(UnavailableError,))
        assert built.index_name != rebuild.index_name
        assert not built.resumed
    finally:
        await cluster.up(victim)
