"""Real API and worker processes on servers of which each can fail alone.

Cache and queue are two Valkeys, so that one can lose what the other has. Processes reach them and
the record over links that a test cuts. Times are short: a cache is warm again some 15 s after it
was emptied (`flows.cold_cache.COMMIT_SECONDS_MAX`, and twice as long as a delivery is held).
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from tests.support.api import Answer, Api
from tests.support.eventually import eventually
from tests.support.keys import ENVIRONMENT
from tests.support.own_valkey import OwnValkey
from tests.support.processes import Process, free_port, started
from tests.support.proxy import Proxy
from tests.support.record import Onlooker, onlooker
from tests.support.servers import fresh_database, running, short_directory

READY_SECONDS = 60.0
HEALED_SECONDS = 60.0
"""Above what is stated (15 s) by what a busy machine may need."""
LOOKS_MIN = 10
LOOK_PAUSE_SECONDS = 0.02

QUICK: Mapping[str, str] = {
    "SWEEP_AGE_SECONDS": "0.5",
    "SWEEP_INTERVAL_SECONDS": "0.3",
    "DELIVERY_HOLD_SECONDS_MAX": "2",
    "WARM_QUIET_SECONDS": "3",
    "POSTGRES_STATEMENT_TIMEOUT_SECONDS": "1.5",
    "READ_CACHE_SECONDS": "0",
    "LOG_FORMAT": "json",
}


class Program(Api):
    """An API process, with the port that it answers on."""

    def __init__(self, process: Process, port: int) -> None:
        super().__init__(port)
        self.process = process

    async def read(self, order_id: str) -> int:
        """Return the status that a reader of the order gets."""
        return (await self.request("GET", f"/api/orders/{order_id}")).status

    async def place(self, product_name: str = "Milk", key: str = "") -> Answer:
        """Place an order, with an idempotency key if one is given."""
        order = {"product_name": product_name, "amount": 1}
        headers = {"Idempotency-Key": key} if key else {}
        return await self.request("POST", "/api/orders", order, headers)

    async def place_bulk(self, names: Iterable[str], key: str) -> Answer:
        """Place a bulk with an idempotency key."""
        orders = [{"product_name": name, "amount": 1} for name in names]
        headers = {"Idempotency-Key": key}
        return await self.request("POST", "/api/bulk-orders", {"orders": orders}, headers)

    async def answers(self, order_id: str, *statuses: int, within: float = HEALED_SECONDS) -> None:
        """Wait until a reader of the order gets one of these statuses."""

        async def attempt() -> None:
            status = await self.read(order_id)
            assert status in statuses, (order_id, status)

        await eventually(attempt, within_seconds=within, retried=(AssertionError, OSError))

    async def is_warm(self, within: float = HEALED_SECONDS) -> None:
        """Wait until an order that never was is certain not to be."""
        await self.answers(str(uuid4()), 404, within=within)

    async def reaches(self, within: float = READY_SECONDS, **up: bool) -> None:
        """Wait until it says of each of these stores that it is up, or that it is away."""

        async def attempt() -> None:
            stores = (await self.request("GET", "/health/ready")).json["stores"]
            assert {name: stores[name]["up"] for name in up} == up

        await eventually(attempt, within_seconds=within, retried=(AssertionError, OSError))


class Stand:
    """Cache, queue and record of a deployment, and the processes on them."""

    def __init__(
        self,
        directory: Path,
        *,
        servers: tuple[OwnValkey, OwnValkey],
        links: tuple[Proxy, Proxy, Proxy],
        dsn: str,
        record: Onlooker,
        resources: AsyncExitStack,
    ) -> None:
        self.directory = directory
        self.cache, self.queue = servers
        self.cache_link, self.queue_link, self.record_link = links
        self.record = record
        """As a look past all links sees it."""
        self._resources = resources
        parts = urlsplit(dsn)
        user = parts.netloc.rpartition("@")[0]
        self.environment: dict[str, str] = {
            "POSTGRES_DSN": f"postgresql://{user}@127.0.0.1:{self.record_link.port}{parts.path}",
            "REDIS_ADDR": f"redis://127.0.0.1:{self.cache_link.port}/0",
            "RABBITMQ_URL": f"redis://127.0.0.1:{self.queue_link.port}/0",
            "ELASTICSEARCH_URL": f"tantivy://{quote(str(directory / 'search'))}",
            **ENVIRONMENT,
            **QUICK,
        }

    async def api(self, **settings: str) -> Program:
        """Start an API; return when it serves, with a cache that it has found complete."""
        port = free_port()
        api = Program(
            self._run("api", {"API_HOST": "127.0.0.1", "API_PORT": str(port), **settings}), port
        )
        await api.is_warm(within=READY_SECONDS)
        return api

    def worker(self, **settings: str) -> Process:
        """Start a worker."""
        return self._run("worker", settings)

    async def valkey(self, name: str) -> OwnValkey:
        """Give another server, for as long as the stand is there."""
        return await self._resources.enter_async_context(running(OwnValkey(self.directory / name)))

    async def replica(self) -> tuple[OwnValkey, Proxy]:
        """Give a replica of the cache that is in sync, and the link over which it follows."""
        link = await self._resources.enter_async_context(_linked("127.0.0.1", self.cache.port))
        replica = await self.valkey("replica")
        await replica.follow(link.port)
        return replica, link

    def reach_cache_at(self, server: OwnValkey) -> None:
        """Have the address of the cache lead to another server, for new connections."""
        self.cache = server
        self.cache_link.lead_to("127.0.0.1", server.port)

    async def dirty(self) -> int:
        """Return how many orders the cache holds that nobody has persisted."""
        return int(await self.cache.say("ZCARD", "polyglot:dirty"))

    async def queued(self) -> int:
        """Return how many messages the queue holds."""
        return int(await self.queue.say("XLEN", "order_queue"))

    async def all_persisted(self) -> None:
        """Wait until neither cache nor queue holds anything that is not in the record."""

        async def attempt() -> None:
            assert (await self.dirty(), await self.queued()) == (0, 0)

        await eventually(attempt, within_seconds=HEALED_SECONDS)

    async def kept(self) -> list[str]:
        """Return the product names of all that was persisted or made a dead letter."""
        rows = await self.record.rows(
            "SELECT product_name FROM orders UNION ALL"
            " SELECT convert_from(payload, 'UTF8')::jsonb #>> '{order,product_name}'"
            " FROM dead_letters"
        )
        return sorted(name for (name,) in rows)

    def _run(self, command: str, settings: Mapping[str, str]) -> Process:
        module = "tests.fault.failing" if "FAULT_CLOCK" in settings else "polyglot_persistence"
        return self._resources.enter_context(
            started(
                (sys.executable, "-m", module, command),
                environment={**self.environment, **settings},
            )
        )


@asynccontextmanager
async def stand_on(postgres: EmbeddedPostgres) -> AsyncIterator[Stand]:
    """Give a stand without a process, with a database of its own."""
    async with AsyncExitStack() as resources:
        directory = resources.enter_context(short_directory())
        cache, queue = [
            await resources.enter_async_context(running(OwnValkey(directory / name)))
            for name in ("cache", "queue")
        ]
        dsn = await resources.enter_async_context(fresh_database(postgres.dsn))
        record = await resources.enter_async_context(onlooker(dsn))
        query = parse_qs(urlsplit(dsn).query)
        socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        links = (
            await resources.enter_async_context(_linked("127.0.0.1", cache.port)),
            await resources.enter_async_context(_linked("127.0.0.1", queue.port)),
            await resources.enter_async_context(_linked(socket, 0)),
        )
        yield Stand(
            directory,
            servers=(cache, queue),
            links=links,
            dsn=dsn,
            record=record,
            resources=resources,
        )


@asynccontextmanager
async def never_denied(order_id: str, *apis: Program) -> AsyncIterator[Counter[int]]:
    """Read an acknowledged order all the time, through each API: it is there, or 503; never 404."""
    seen: Counter[int] = Counter()
    ended = asyncio.Event()

    async def read(api: Program) -> None:
        looks = 0
        while looks < LOOKS_MIN or not ended.is_set():
            status = await api.read(order_id)
            seen[status] += 1
            looks += 1
            assert status in (200, 503), f"{status} for an acknowledged order, after {dict(seen)}"
            await asyncio.sleep(LOOK_PAUSE_SECONDS)

    async with asyncio.TaskGroup() as readers:
        for api in apis:
            readers.create_task(read(api))
        yield seen
        ended.set()


@asynccontextmanager
async def _linked(host: str, port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(host, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
