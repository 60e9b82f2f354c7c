"""The live stream over real sockets and stores, and the record's progress that it tells of."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue
from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.protocol import server
from polyglot_persistence.api.service import live
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.flows.watch.live import LiveFlow
from polyglot_persistence.flows.watch.system_state import SystemStateFlow
from polyglot_persistence.ports.record import Record
from polyglot_persistence.runtime.repeat import repeat
from tests.support.addresses import BUNDLED
from tests.support.eventually import eventually
from tests.support.http_limits import HTTP_LIMITS
from tests.support.orders import accepted, single
from tests.support.stub_flows import LIMITS, OPEN, StubFlows

DEADLINE_SECONDS = 10.0
LOOK_SECONDS = 0.1


class Listener:
    """A client of the stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    @classmethod
    async def on(cls, port: int, method: str = "GET", last_id: str = "") -> Self:
        """Ask for the stream and read the head of the answer."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        extra = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        client._writer.write(
            f"{method} /api/live HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode()
        )
        async with asyncio.timeout(DEADLINE_SECONDS):
            client.status = int((await client._reader.readline()).split()[1])
            while line := (await client._reader.readline()).decode().strip():
                name, _, value = line.partition(": ")
                client.headers[name.lower()] = value
        return client

    async def block(self) -> dict[str, str] | None:
        """Return the fields of the next block, or None at the end of the stream."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            size = int((await self._reader.readline()).strip() or b"0", 16)
            text = (await self._reader.readexactly(size + 2)).decode()
        if not size:
            return None
        pairs = (line.partition(":") for line in text.strip().splitlines())
        return {field: value.strip() for field, _, value in pairs}

    async def event(self, name: str) -> tuple[str, Any]:
        """Return id and data of the next event of this name."""
        while block := await self.block():
            if block.get("event") == name:
                return block.get("id", ""), json.loads(block["data"])
        pytest.fail("the stream ended")

    async def hang_up(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Serving:
    """An API whose live stream is over real stores; a test looks by itself."""

    def __init__(self, flow: LiveFlow, cache: RedisCache) -> None:
        self.flow = flow
        self.cache = cache
        self.stopping = asyncio.Event()
        self._listener = server.listen("127.0.0.1", 0)
        self._port: int = self._listener.getsockname()[1]
        self._pages = contextlib.AsyncExitStack()

    async def page(self, method: str = "GET", last_id: str = "") -> Listener:
        """Return one more client, which hangs up at the end of the test."""
        listener = await Listener.on(self._port, method, last_id)
        self._pages.push_async_callback(listener.hang_up)
        return listener

    async def run(self) -> None:
        """Serve and look until `stopping`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                repeat("live", self.flow.step, self.stopping, interval_seconds=LOOK_SECONDS)
            )
            tasks.create_task(self._serve())

    async def stop(self) -> None:
        """End every page, then the server."""
        await self._pages.aclose()
        self.stopping.set()

    async def _serve(self) -> None:
        flows = StubFlows().as_flows()._replace(live=self.flow)
        await server.serve(
            build_app(flows, LIMITS, clock=SystemClock(), stopping=self.stopping, access=OPEN),
            self._listener,
            limits=HTTP_LIMITS,
            shutdown=self.stopping,
            graceful_seconds=5,
            on_ready=lambda: None,
        )


@pytest_asyncio.fixture
async def serving(store: Record, redis_url: str) -> AsyncIterator[Serving]:
    """A server that two pages may watch."""

    def open_client() -> RedisClient:
        client = RedisClient(redis_url, connect_timeout_seconds=2.0, command_timeout_seconds=2.0)
        stack.push_async_callback(client.close)
        return client

    async with contextlib.AsyncExitStack() as stack:
        cache = RedisCache(open_client(), clean_ttl_seconds=60, durable=None)
        queue = ValkeyStreamsQueue(open_client(), open_client, claim_idle_seconds=5.0)
        health = HealthFlow({"cache": cache, "record": store})
        state = SystemStateFlow(cache, queue, store, health)
        flow = LiveFlow(state, SystemClock(), watchers_max=2)
        serving = Serving(flow, cache)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serving.run())
            yield serving
            await serving.stop()


@BUNDLED
async def test_a_page_hears_of_the_stores(serving: Serving, store: Record) -> None:
    """First health and figures, then figures whenever there are new ones."""
    await store.persist([accepted(), accepted()])
    await serving.cache.accept([single(accepted())])
    listener = await serving.page()
    assert listener.status == 200
    assert listener.headers["content-type"] == "text/event-stream"
    assert listener.headers["cache-control"] == "no-store"
    assert await listener.block() == {"retry": str(live.RETRY_MILLISECONDS)}
    _, health = await listener.event("health")
    assert health["mode"] == "normal"
    assert health["stores"]["record"]["version"].startswith("PostgreSQL")
    _, (first,) = await listener.event("figures")
    assert (first["accepted"], first["persisted"], first["indexed"]) == (3, 2, 0)
    assert (first["dirty"], first["outbox"], first["queue_messages"]) == (1, 2, 0)
    assert first["dirty_age_seconds"] > 0
    await store.persist([accepted()])
    figures = [first]
    while figures[-1]["persisted"] != 3:
        _, figures = await listener.event("figures")
    assert figures[-1]["persisted_per_second"] > 0


@BUNDLED
async def test_a_page_that_comes_again_gets_what_it_missed(serving: Serving) -> None:
    """After the id that it heard last; one that nobody gave out is refused."""
    first = await serving.page()
    last_id, heard = await first.event("figures")
    await first.event("figures")
    again = await serving.page(last_id=last_id)
    _, missed = await again.event("figures")
    assert missed
    assert missed[0]["at"] > heard[-1]["at"]
    wrong = await serving.page(last_id="yesterday")
    assert wrong.status == 400


@BUNDLED
async def test_pages_are_bounded_and_make_room_when_they_go(serving: Serving) -> None:
    """503 with the time to come again; a page that hung up counts no more."""
    pages = [await serving.page() for _ in range(2)]
    refused = await serving.page()
    assert (refused.status, int(refused.headers["retry-after"]) > 0) == (503, True)
    await pages[0].hang_up()

    async def let_in() -> None:
        assert (await serving.page()).status == 200

    await eventually(let_in)


@BUNDLED
async def test_a_head_is_no_page(serving: Serving) -> None:
    """HEAD gets the head and takes no place."""
    for _ in range(3):
        assert (await serving.page("HEAD")).status == 200


@BUNDLED
async def test_streams_end_when_the_server_stops(serving: Serving) -> None:
    """At once and in good order, so that stopping waits for no page."""
    listener = await serving.page()
    await listener.event("figures")
    serving.stopping.set()
    while await listener.block() is not None:
        pass


@BUNDLED
async def test_silence_is_filled_with_comments(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no proxy takes the connection for dead."""
    monkeypatch.setattr(live, "PING_SECONDS", 0.01)
    listener = await serving.page()
    await listener.event("figures")
    assert await listener.block() == {"": "still here"}


async def test_progress_counts_each_order_once(store: Record) -> None:
    """An order that comes again adds nothing, and the outbox has what is not yet searchable."""
    batch = [accepted() for _ in range(3)]
    persisted = await store.persist(batch)
    await store.persist([*batch, accepted()])
    progress = await store.progress(dead_letters_max=10)
    assert (progress.persisted, progress.outbox_orders) == (4, 4)
    assert progress.outbox_oldest is not None
    assert persisted.outbox_id is not None
    await store.outbox_done([persisted.outbox_id])
    progress = await store.progress(dead_letters_max=10)
    assert (progress.persisted, progress.outbox_orders) == (4, 1)


async def test_progress_of_an_empty_record(store: Record) -> None:
    """Zeros, and nothing that is the oldest or the latest."""
    assert await store.progress(dead_letters_max=10) == (0, 0, None, 0, None, None)


async def test_progress_counts_dead_letters_up_to_a_bound(store: Record) -> None:
    """The latest one's id changes with each that comes."""
    seen = []
    for _ in range(3):
        order_id = new_id()
        await store.bury([DeadLetter(order_id, order_id, b"{}", "because", Stage.PERSIST, 1)])
        seen.append(await store.progress(dead_letters_max=2))
    assert [progress.dead_letters for progress in seen] == [1, 2, 2]
    assert len({progress.latest_dead_letter for progress in seen}) == 3
