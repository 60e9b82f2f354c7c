"""The composition root: which adapter stands behind which port, what starts and stops when.

Start: stores connect lazily, so a store that is away delays nothing but its own part; schema and
cache epoch are prepared in the background until that succeeds.

Stop, on SIGTERM or SIGINT:

```
  api      1. take no more requests, answer those under way   2. commit what is in flight
           3. end the background loops                        4. close the stores
  worker   1. finish the batch under way, acknowledge it      2. index what waits in memory
           3. hand back what is not acknowledged              4. close the stores
```

Invariant: drivers are imported only when a deployment needs them.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import uvloop

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.config import Settings
from polyglot_persistence.errors import ConfigurationError, PolyglotError
from polyglot_persistence.flows.accept import AcceptFlow
from polyglot_persistence.flows.breaker import Breaker
from polyglot_persistence.flows.cold_cache import ColdMark, Warming, start_warm_if_fresh
from polyglot_persistence.flows.group_commit import CommitLimits, GroupCommit
from polyglot_persistence.flows.health import Health, HealthFlow, Pingable
from polyglot_persistence.flows.index import IndexFlow
from polyglot_persistence.flows.persist import PersistFlow
from polyglot_persistence.flows.read import ReadFlow, RecentOrders
from polyglot_persistence.flows.sales import SalesFlow
from polyglot_persistence.flows.search import SearchFlow
from polyglot_persistence.flows.sweep import QueueProgress, SweepFlow
from polyglot_persistence.ports import Cache, OrderStore, Queue, SalesView, SearchIndex
from polyglot_persistence.telemetry import logger, set_up_logging
from polyglot_persistence.worker.indexer import Indexer, IndexerLimits
from polyglot_persistence.worker.persister import Persister, PersisterLimits
from polyglot_persistence.worker.refresher import refresh_forever
from polyglot_persistence.worker.repeat import Backoff, repeat
from polyglot_persistence.worker.sweeper import sweep_forever
from polyglot_persistence.worker.warmer import warm_forever

if TYPE_CHECKING:
    from polyglot_persistence.adapters.redis.client import RedisClient

_log = logger("bootstrap")

PROBE_INTERVAL_SECONDS = 0.5
BACKLOG_INTERVAL_SECONDS = 1.0


class Stores(NamedTuple):
    """The adapters of one process; `close` ends them all, in order."""

    cache: Cache
    queue: Queue
    store: OrderStore
    sales: SalesView
    search: SearchIndex
    migrate: Callable[[], Awaitable[Sequence[str]]]
    close: Callable[[], Awaitable[None]]

    def pingable(self) -> Mapping[str, Pingable]:
        """Return the four stores by the role that they play."""
        return {
            "cache": self.cache,
            "queue": self.queue,
            "record": self.store,
            "search": self.search,
        }


def connect(settings: Settings) -> Stores:
    """Return the adapters that the settings name; nothing is connected before its first use."""
    from polyglot_persistence.adapters.postgres.migrate import (  # noqa: PLC0415
        migrate as apply_migrations,
    )
    from polyglot_persistence.adapters.postgres.pool import PostgresPool  # noqa: PLC0415
    from polyglot_persistence.adapters.postgres.sales import PostgresSalesView  # noqa: PLC0415
    from polyglot_persistence.adapters.postgres.store import PostgresOrderStore  # noqa: PLC0415
    from polyglot_persistence.adapters.redis.cache import RedisCache  # noqa: PLC0415

    resources = AsyncExitStack()
    pool = PostgresPool(
        settings.postgres_url,
        size_max=settings.postgres_pool_size,
        connect_timeout_seconds=settings.postgres_connect_timeout_seconds,
        statement_timeout_seconds=settings.postgres_statement_timeout_seconds,
    )
    resources.push_async_callback(pool.close)
    client = _redis_client(settings, settings.redis_addr)
    resources.push_async_callback(client.close)
    return Stores(
        RedisCache(
            client,
            clean_ttl_seconds=settings.clean_ttl_seconds,
            durable=settings.cache_durable,
        ),
        _queue(settings, resources),
        PostgresOrderStore(pool),
        PostgresSalesView(pool),
        _search(settings, resources),
        lambda: apply_migrations(settings.postgres_url),
        resources.aclose,
    )


def _redis_client(settings: Settings, address: str) -> "RedisClient":
    from polyglot_persistence.adapters.redis.client import RedisClient  # noqa: PLC0415

    return RedisClient(
        address,
        connect_timeout_seconds=settings.redis_connect_timeout_seconds,
        command_timeout_seconds=settings.redis_command_timeout_seconds,
    )


def _queue(settings: Settings, resources: AsyncExitStack) -> Queue:
    from polyglot_persistence.adapters.valkey_streams.queue import (  # noqa: PLC0415
        ValkeyStreamsQueue,
    )

    client = _redis_client(settings, settings.rabbitmq_url)
    resources.push_async_callback(client.close)
    return ValkeyStreamsQueue(
        client,
        lambda: _redis_client(settings, settings.rabbitmq_url),
        claim_idle_seconds=settings.delivery_hold_seconds_max,
    )


def _search(settings: Settings, resources: AsyncExitStack) -> SearchIndex:
    from polyglot_persistence.adapters.tantivy.index import TantivyIndex  # noqa: PLC0415

    directory = settings.search_directory
    if directory is None:
        raise ConfigurationError("ELASTICSEARCH_URL: Elasticsearch is not built in yet")
    index = TantivyIndex(
        directory,
        search_timeout_seconds=settings.search_timeout_seconds,
        index_timeout_seconds=settings.index_timeout_seconds,
    )
    resources.push_async_callback(index.close)
    return index


def run_api(settings: Settings) -> int:
    """Run an API process until it is told to stop; return its exit code."""
    return _run(settings, _api)


def run_worker(settings: Settings) -> int:
    """Run a worker process until it is told to stop; return its exit code."""
    return _run(settings, _worker)


def migrate(settings: Settings) -> Sequence[str]:
    """Apply the migrations that are missing and return their names."""
    from polyglot_persistence.adapters.postgres.migrate import migrate as apply  # noqa: PLC0415

    return asyncio.run(apply(settings.postgres_url))


class Finding(NamedTuple):
    """What `polyglot doctor` found out about one store."""

    store: str
    level: Literal["PASS", "WARN", "FAIL"]
    detail: str
    fix: str


def doctor(settings: Settings) -> Sequence[Finding]:
    """Ask every store whether it is there and set so that every promise holds."""

    async def ask() -> Health:
        stores = connect(settings)
        try:
            return await HealthFlow(stores.pingable()).check()
        finally:
            await stores.close()

    findings = []
    for name, health in asyncio.run(ask()).stores.items():
        if health.state is None:
            fix = f"start it, or correct {_SETTING_OF[name]}"
            findings.append(Finding(name, "FAIL", health.error or "no answer", fix))
            continue
        findings.append(Finding(name, "PASS", health.state.version, ""))
        for warning in health.state.warnings:
            detail, _, fix = warning.partition("; ")
            findings.append(Finding(name, "WARN", detail, fix))
    return findings


_SETTING_OF = {
    "cache": "REDIS_ADDR",
    "queue": "RABBITMQ_URL",
    "record": "POSTGRES_DSN",
    "search": "ELASTICSEARCH_URL",
}


def _run(
    settings: Settings, process: Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]]
) -> int:
    set_up_logging(settings.log_level, settings.log_format)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await process(settings, stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signalled())
    return 0


async def _prepare(stores: Stores, stop: asyncio.Event) -> None:
    """Bring schema and cache epoch into being, as soon as the stores let us."""
    backoff = Backoff(stop)
    while not stop.is_set():
        try:
            applied = await stores.migrate()
            await start_warm_if_fresh(stores.store, stores.cache)
        except PolyglotError as error:
            _log.warning("not_prepared", error=str(error))
            await backoff.pause()
        else:
            if applied:
                _log.info("migrated", applied=list(applied))
            return


async def _api(settings: Settings, stop: asyncio.Event) -> None:
    from polyglot_persistence.api.app import ApiLimits, Flows, build_app  # noqa: PLC0415
    from polyglot_persistence.api.hot import HotRoutes  # noqa: PLC0415
    from polyglot_persistence.api.server import listen, serve  # noqa: PLC0415

    listener = listen(settings.api_host, settings.api_port)
    stores = connect(settings)
    clock = SystemClock()
    cache_breaker = Breaker("cache", stores.cache.ping)
    queue_breaker = Breaker("queue", stores.queue.ping)
    reads = ReadFlow(
        stores.cache,
        stores.store,
        stores.search,
        cache_breaker=cache_breaker,
        clock=clock,
        recent=RecentOrders(
            clock,
            orders_max=settings.read_cache_orders,
            seconds=settings.read_cache_seconds,
        ),
    )
    commit = GroupCommit(
        stores.cache,
        stores.queue,
        cache_breaker=cache_breaker,
        queue_breaker=queue_breaker,
        cold_mark=ColdMark(stores.store, clock),
        clock=clock,
        limits=CommitLimits(
            settings.commit_orders_max, settings.waiting_orders_max, settings.dirty_orders_max
        ),
    )
    accept = AcceptFlow(commit, reads, clock)
    app = HotRoutes(
        build_app(
            Flows(
                accept,
                reads,
                SearchFlow(stores.search),
                SalesFlow(stores.sales, clock),
                HealthFlow(stores.pingable()),
            ),
            ApiLimits(
                order_body_bytes_max=settings.order_body_bytes_max,
                body_bytes_max=settings.body_bytes_max,
                import_line_bytes_max=settings.import_line_bytes_max,
                import_chunk_orders=settings.import_chunk_orders,
                import_wait_seconds=settings.import_wait_seconds,
                prefer_wait_seconds_max=settings.prefer_wait_seconds_max,
            ),
            clock=clock,
            stopping=stop,
        ),
        accept,
        reads,
        body_bytes_max=settings.order_body_bytes_max,
    )

    async def probe() -> bool:
        await cache_breaker.probe()
        await queue_breaker.probe()
        return False

    async def look_at_backlog() -> bool:
        if not cache_breaker.is_open:
            commit.backlog_seen((await stores.cache.backlog()).orders)
        return False

    served = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_prepare(stores, served))
            tasks.create_task(
                repeat("probe", probe, served, interval_seconds=PROBE_INTERVAL_SECONDS)
            )
            tasks.create_task(
                repeat(
                    "backlog", look_at_backlog, served, interval_seconds=BACKLOG_INTERVAL_SECONDS
                )
            )
            await serve(
                app,
                listener,
                shutdown=stop,
                graceful_seconds=settings.shutdown_timeout_seconds,
                on_ready=lambda: _log.info(
                    "serving", host=settings.api_host, port=settings.api_port
                ),
            )
            await commit.drain()
            await reads.drain()
            served.set()
    finally:
        await stores.close()
        _log.info("api_stopped")


async def _worker(settings: Settings, stop: asyncio.Event) -> None:
    stores = connect(settings)
    clock = SystemClock()
    persist = PersistFlow(stores.store, stores.cache, clock)
    progress = QueueProgress()
    indexer = Indexer(
        IndexFlow(stores.store, stores.search, clock),
        IndexerLimits(
            settings.index_batch_orders,
            settings.index_waiting_orders_max,
            settings.outbox_age_seconds,
            settings.outbox_interval_seconds,
        ),
    )
    persister = Persister(
        persist,
        queue=stores.queue,
        store=stores.store,
        offer=indexer.offer,
        progress=progress,
        clock=clock,
        limits=PersisterLimits(
            settings.persist_batch_orders,
            settings.consume_orders_max,
            settings.delivery_hold_seconds_max - settings.persist_timeout_seconds,
        ),
    )
    sweep = SweepFlow(
        stores.cache,
        stores.queue,
        persist,
        progress,
        clock,
        age_seconds=settings.sweep_age_seconds,
        batch_orders_max=settings.sweep_batch_orders,
    )
    warming = Warming(
        stores.store,
        stores.cache,
        stores.queue,
        clock,
        quiet_seconds=settings.warm_quiet_seconds,
    )
    persisted = asyncio.Event()
    try:
        await _prepare(stores, stop)
        async with asyncio.TaskGroup() as indexing:
            indexing.create_task(indexer.run(persisted))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(persister.run(stop))
                tasks.create_task(
                    sweep_forever(
                        sweep,
                        stores.store,
                        indexer.offer,
                        stop,
                        interval_seconds=settings.sweep_interval_seconds,
                    )
                )
                tasks.create_task(warm_forever(warming, stores.store, stop))
                tasks.create_task(
                    refresh_forever(
                        SalesFlow(stores.sales, clock),
                        settings.mv_refresh_schedule,
                        stores.store,
                        clock,
                        stop,
                    )
                )
            persisted.set()
    finally:
        await stores.close()
        _log.info("worker_stopped")
