"""The HTTP interface over the real cache, queue and record, with a worker that a test moves."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any, cast

import httpx2
import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.adapters.postgres.sales import PostgresSalesView
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue
from polyglot_persistence.api.app import Flows, build_app
from polyglot_persistence.config.limits import ApiLimits, CommitLimits
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.behind.dead_letters import DeadLetterFlow
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.intake.accept import AcceptFlow
from polyglot_persistence.flows.intake.group_commit import GroupCommit
from polyglot_persistence.flows.intake.reigns import Reigns
from polyglot_persistence.flows.projections.sales import SalesFlow
from polyglot_persistence.flows.projections.search import SearchFlow
from polyglot_persistence.flows.reading.cold_cache import ColdMark, found_epoch
from polyglot_persistence.flows.reading.read import ReadFlow
from polyglot_persistence.flows.reading.recent import RecentOrders
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.flows.watch.live import LiveFlow
from polyglot_persistence.flows.watch.system_state import SystemStateFlow
from polyglot_persistence.runtime.breaker import Breaker
from tests.support.addresses import BUNDLED
from tests.support.servers import flush
from tests.support.stub_flows import OPEN

pytestmark = BUNDLED

LIMITS = ApiLimits(
    order_body_bytes_max=16_384,
    body_bytes_max=2**20,
    import_line_bytes_max=16_384,
    import_rejected_in_a_row_max=1_000,
    import_chunk_orders=500,
    import_wait_seconds=5.0,
    prefer_wait_seconds_max=30.0,
)
TEA = {"product_name": "Grüner Tee, 100 g", "amount": 12.5}
NDJSON = {"content-type": "application/x-ndjson"}


class SearchAway:
    """A search index that is away: the one store that these routes must not need."""

    async def indexed_at(self, _order_id: object) -> None:
        raise UnavailableError("away")

    async def search(self, _query: object) -> None:
        raise UnavailableError("away")

    async def ping(self) -> None:
        raise UnavailableError("away")


class Api:
    """One API process, and a worker's persist flow beside it."""

    def __init__(self, pool: PostgresPool, open_client: Callable[[], RedisClient]) -> None:
        self.store = PostgresRecord(pool)
        self.cache = RedisCache(open_client(), clean_ttl_seconds=60, durable=None)
        self.queue = ValkeyStreamsQueue(open_client(), open_client, claim_idle_seconds=5.0)
        clock = SystemClock()
        self._persist = PersistFlow(self.store, self.cache, clock)
        search = cast("Any", SearchAway())
        breaker = Breaker("cache", self.cache.ping)
        reads = ReadFlow(
            self.cache,
            self.store,
            search,
            cache_breaker=breaker,
            clock=clock,
            recent=RecentOrders(clock, orders_max=0, seconds=0),
            record_timeout_seconds=2.0,
        )
        cold_mark = ColdMark(self.store, clock)
        self.commit = GroupCommit(
            self.cache,
            self.queue,
            cache_breaker=breaker,
            queue_breaker=Breaker("queue", self.queue.ping),
            cold_mark=cold_mark,
            reigns=Reigns(self.cache, cold_mark, clock),
            clock=clock,
            limits=CommitLimits(2_000, 20_000, 200_000, 20_000),
        )
        accept = AcceptFlow(self.commit, reads, clock)
        stores = {
            "cache": self.cache,
            "queue": self.queue,
            "record": self.store,
            "search": search,
        }
        flows = Flows(
            accept,
            reads,
            SearchFlow(search, clock),
            SalesFlow(PostgresSalesView(pool), clock),
            DeadLetterFlow(PostgresDeadLetters(pool), self.store, self.cache, self._persist),
            HealthFlow(stores),
            LiveFlow(
                SystemStateFlow(self.cache, self.queue, self.store, HealthFlow(stores)),
                clock,
                watchers_max=2,
            ),
        )
        app = build_app(flows, LIMITS, clock=clock, stopping=asyncio.Event(), access=OPEN)
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app),
            base_url="http://localhost",
        )

    async def work(self) -> int:
        """Persist everything that is in the queue now; return how many orders came."""
        orders = 0
        async with self.queue.consume(orders_max=10_000) as consumer:
            while deliveries := await consumer.receive(0.05):
                batch = [one for d in deliveries for one in codec.decode_message(d.body).orders]
                await self._persist.persist(batch, "queue")
                await consumer.ack(deliveries)
                orders += len(batch)
        return orders


@pytest_asyncio.fixture
async def api(pool: PostgresPool, redis_url: str) -> AsyncIterator[Api]:
    """An API over empty stores."""
    async with AsyncExitStack() as stack:

        def open_client() -> RedisClient:
            client = RedisClient(
                redis_url, connect_timeout_seconds=2.0, command_timeout_seconds=2.0
            )
            stack.push_async_callback(client.close)
            return client

        api = Api(pool, open_client)
        await found_epoch(api.store, api.cache, api.queue, SystemClock())
        await stack.enter_async_context(api.client)
        yield api
        await api.commit.drain()


async def test_an_order_from_acceptance_to_the_record(api: Api) -> None:
    """Readable at once, persisted later, the same bytes all along."""
    accepted = await api.client.post("/api/orders", json=TEA)
    assert accepted.status_code == 202
    where = accepted.headers["location"]
    dirty = await api.client.get(where)
    assert (dirty.status_code, dirty.headers["x-cache"]) == (200, "HIT")
    assert dirty.json()["product_name"] == TEA["product_name"]
    assert '"amount":12.50' in dirty.text
    status = await api.client.get(f"{where}/status")
    assert (status.json()["status"], status.headers["retry-after"]) == ("processing", "1")
    assert (await api.client.get("/api/orders")).json() == {"orders": []}

    assert await api.work() == 1
    assert (await api.client.get(where)).content == dirty.content
    out = (await api.client.get(f"{where}/status")).json()
    assert (out["status"], out["searchable_at"]) == ("persisted", None)
    assert out["accepted_at"] <= out["persisted_at"]
    assert (await api.client.get("/api/orders")).json()["orders"] == [dirty.json()]


async def test_a_miss_is_read_from_the_record_and_backfilled(
    api: Api, valkey_server: EmbeddedValkey
) -> None:
    """After the cache was wiped: MISS, then HIT, the same bytes; an unknown id is 503, not 404."""
    where = (await api.client.post("/api/orders", json=TEA)).headers["location"]
    before = (await api.client.get(where)).content
    await api.work()
    unknown = f"/api/orders/{new_id()}"
    assert (await api.client.get(unknown)).status_code == 404
    await flush(valkey_server.url)
    answers = [await api.client.get(where) for _ in range(2)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT"]
    assert [answer.content for answer in answers] == [before, before]
    cold = await api.client.get(unknown)
    assert (cold.status_code, "retry-after" in cold.headers) == (503, True)


async def test_a_key_gives_the_same_order_also_after_the_caches_are_gone(
    api: Api, valkey_server: EmbeddedValkey
) -> None:
    """The identity is in the primary key: no table of keys can be lost."""
    headers = {"idempotency-key": '"order 1"'}

    async def post(body: dict[str, object]) -> httpx2.Response:
        return await api.client.post("/api/orders", json=body, headers=headers)

    first = await post(TEA)
    again = await post({**TEA, "amount": "12.50"})
    other = await post({**TEA, "amount": 13})
    await api.work()
    await flush(valkey_server.url)
    later = await post(TEA)
    later_other = await post({**TEA, "amount": 13})
    assert first.json() == again.json() == later.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == later.headers["idempotent-replayed"] == "true"
    assert [other.status_code, later_other.status_code] == [422, 422]
    await api.work()
    assert len((await api.client.get("/api/orders")).json()["orders"]) == 1


async def test_waiting_for_persistence(api: Api) -> None:
    """201 once a worker has persisted it; 202 if none does in time."""
    headers = {"prefer": "wait=20", "idempotency-key": "k"}
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(api.client.post("/api/orders", json=TEA, headers=headers))
        while not await api.work():
            assert not waiting.done()
    assert (waiting.result().status_code, waiting.result().json()["status"]) == (201, "persisted")
    late = await api.client.post("/api/orders", json=TEA, headers={"prefer": "wait=0"})
    assert (late.status_code, late.headers["preference-applied"]) == (202, "wait=0")


async def test_a_bulk_is_one_unit(api: Api) -> None:
    """All of it is readable, all of it is persisted; the ids stand in the order of the request."""
    body = {"orders": [{"product_name": f"p{n}", "amount": n} for n in range(1_000)]}
    accepted = await api.client.post("/api/bulk-orders", json=body)
    ids = accepted.json()["order_ids"]
    assert (accepted.status_code, len(ids)) == (202, 1_000)
    assert (await api.client.get(f"/api/orders/{ids[999]}")).json()["product_name"] == "p999"
    assert await api.work() == 1_000
    pair = await api.client.post("/api/bulk-orders", json={"item_1": "a", "item_2": "ERROR"})
    assert pair.status_code == 422
    assert await api.work() == 0


async def test_pages_walk_the_whole_record(api: Api) -> None:
    """Every order once, newest first."""
    body = {"orders": [{"product_name": f"p{n}", "amount": n} for n in range(450)]}
    await api.client.post("/api/bulk-orders", json=body)
    await api.client.post("/api/orders", json=TEA)
    await api.work()
    path: str | None = "/api/orders?limit=200"
    names: list[str] = []
    while path is not None:
        page = (await api.client.get(path)).json()
        names += [order["product_name"] for order in page["orders"]]
        path = page.get("next")
    assert names[0] == TEA["product_name"]
    assert sorted(names[1:]) == sorted(f"p{n}" for n in range(450))


async def test_an_import_twice_changes_nothing_the_second_time(api: Api) -> None:
    """Past orders with ids of their own; the days' sales are exact to the cent."""
    lines = [
        {
            "id": str(new_id()),
            "product_name": f"p{n % 7}",
            "amount": f"{n % 100}.{n % 10}1",
            "created_at": f"2017-01-{n % 28 + 1:02}T12:00:00+02:00",
        }
        for n in range(1_200)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    first = await api.client.post("/api/orders/import", content=content, headers=NDJSON)
    assert first.json() == {
        "accepted": 1_200,
        "unchanged": 0,
        "rejected": 0,
        "errors": [],
        "errors_omitted": 0,
    }
    await api.work()
    second = await api.client.post("/api/orders/import", content=content, headers=NDJSON)
    assert (second.json()["accepted"], second.json()["unchanged"]) == (0, 1_200)
    changed = {**lines[3], "amount": "0.01"}
    third = await api.client.post("/api/orders/import", content=json.dumps(changed), headers=NDJSON)
    assert third.status_code == 422
    assert third.json()["lines_rejected"][0]["id"] == changed["id"]
    await api.work()

    assert (await api.client.post("/api/admin/refresh")).status_code == 200
    answer = await api.client.get("/api/dashboard/sales?days=36600")
    days = json.loads(answer.text, parse_float=Decimal)
    expected: dict[str, Decimal] = {}
    for line in lines:
        day = line["created_at"][:10]
        expected[day] = expected.get(day, Decimal(0)) + Decimal(line["amount"])
    assert {day["date"]: day["total_revenue"] for day in days} == expected
    assert sum(day["orders"] for day in days) == 1_200


async def test_a_keyed_import_can_be_sent_again(api: Api) -> None:
    """Lines without an id have one that follows from key and number."""
    content = "\n".join(json.dumps({"product_name": f"p{n}", "amount": n}) for n in range(600))
    headers = {**NDJSON, "idempotency-key": "import-1"}
    outs = []
    for _ in range(2):
        answer = await api.client.post(
            "/api/orders/import", content=content.encode(), headers=headers
        )
        outs.append((answer.json()["accepted"], answer.json()["unchanged"]))
        await api.work()
    assert outs == [(600, 0), (0, 600)]


async def test_search_away_is_degraded_and_not_down(api: Api) -> None:
    """Only search itself is 503."""
    assert (await api.client.get("/api/search?q=tea")).status_code == 503
    ready = await api.client.get("/health/ready")
    assert (ready.status_code, ready.json()["mode"]) == (200, "degraded: search away")
    assert ready.json()["stores"]["search"]["up"] is False
    assert ready.json()["stores"]["record"]["version"].startswith("PostgreSQL")


@pytest.mark.parametrize("name", ["a' OR 1=1; --", "{{7*7}}", "<b>", "\\", '"', "🍵" * 200, "=1+1"])
async def test_any_text_survives_every_store(api: Api, name: str) -> None:
    """What was sent is what is read, from the cache and from the record."""
    sent = {"product_name": name, "amount": "9999999999.99"}
    where = (await api.client.post("/api/orders", json=sent)).headers["location"]
    assert (await api.client.get(where)).json()["product_name"] == name
    await api.work()
    page = await api.client.get("/api/orders")
    assert page.json()["orders"][0]["product_name"] == name
    assert '"amount":9999999999.99' in page.text
