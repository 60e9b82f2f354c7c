"""An API process: its flows, its servers, and the loops in its background."""

import asyncio
import socket
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

from starlette.types import ASGIApp

from polyglot_persistence import tracing
from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.api.app import Flows, build_app
from polyglot_persistence.api.protocol.connection import Connection
from polyglot_persistence.api.protocol.fast_lane import fast_lane
from polyglot_persistence.api.protocol.hot import HotRoutes
from polyglot_persistence.api.protocol.server import listen, listen_together, serve
from polyglot_persistence.api.web.replies import Headers
from polyglot_persistence.bootstrap.access import access_of, keep_keys_current
from polyglot_persistence.bootstrap.boundary import front_of, http_limits
from polyglot_persistence.bootstrap.observed import observed
from polyglot_persistence.bootstrap.operating import Operating
from polyglot_persistence.bootstrap.process import (
    leave,
    prepare,
    run,
    serve_itself,
    serving,
    watch_stores,
)
from polyglot_persistence.bootstrap.stores import Stores, connect
from polyglot_persistence.config import Settings
from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.intake.accept import AcceptFlow
from polyglot_persistence.flows.intake.group_commit import GroupCommit
from polyglot_persistence.flows.intake.reigns import Reigns
from polyglot_persistence.flows.projections.sales import SalesFlow
from polyglot_persistence.flows.projections.search import SearchFlow
from polyglot_persistence.flows.reading.cold_cache import ColdMark
from polyglot_persistence.flows.reading.read import ReadFlow
from polyglot_persistence.flows.reading.recent import RecentOrders
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.flows.watch.live import INTERVAL_SECONDS as LIVE_INTERVAL_SECONDS
from polyglot_persistence.flows.watch.live import LiveFlow
from polyglot_persistence.flows.watch.system_state import SystemStateFlow
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.processes.heartbeat import Parent
from polyglot_persistence.runtime.breaker import Breaker
from polyglot_persistence.runtime.repeat import repeat
from polyglot_persistence.telemetry import logger

_log = logger("api")

PROBE_INTERVAL_SECONDS = 0.5
BACKLOG_INTERVAL_SECONDS = 1.0
WATCH_INTERVAL_SECONDS = 2.0

GRACEFUL_SHARE = 0.6
"""Of the time to stop, for requests under way; the rest is for what they submitted."""


class ApiProcess(NamedTuple):
    """One API process and the sockets that it listens on."""

    settings: Settings
    number: int
    """Which of the processes it is, from 1 on."""
    shared: socket.socket
    own: socket.socket | None
    """For its own metrics and health: any of the processes answers on the shared port."""

    def run(self, parent: Parent) -> int:
        """Run it until it is stopped; return the exit code."""
        return run(
            self.settings,
            "polyglot-api",
            partial(serve_orders, self),
            parent,
            stop_seconds=self.settings.api_stop_seconds,
        )

    def close(self) -> None:
        """Close its sockets."""
        self.shared.close()
        if self.own is not None:
            self.own.close()


def api_processes(settings: Settings) -> Sequence[ApiProcess]:
    """Return every API process, with open sockets.

    Raises:
        ConfigurationError: a port is taken, or the address is none of this machine.
    """
    host, first = settings.api_host, settings.api_process_port
    return [
        ApiProcess(settings, n + 1, shared, listen(host, first + n) if first else None)
        for n, shared in enumerate(listen_together(host, settings.api_port, settings.api_processes))
    ]


async def serve_orders(process: ApiProcess, settings: Settings, stop: asyncio.Event) -> None:
    """Serve until stopped; then answer and commit everything that was submitted.

    `shutdown_delay_seconds` pass between: the process is not ready, and serves as before.
    """
    stores = observed(connect(settings))
    clock = SystemClock()
    api = Api(settings, stores, clock)
    closing, served = asyncio.Event(), asyncio.Event()

    async def close_late() -> None:
        await leave(api.health, stop)
        await asyncio.sleep(settings.shutdown_delay_seconds)
        closing.set()

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_keys_current(settings, api.access, served))
            tasks.create_task(watch_stores(stores, clock, served))
            tasks.create_task(close_late())
            for loop in api.loops(served):
                tasks.create_task(loop)
            if process.own is not None:
                tasks.create_task(
                    serve_itself(settings, api.health, api.access, process.own, served)
                )
            await serve(
                api.app(closing),
                process.shared,
                limits=http_limits(settings),
                protocol=api.protocol(),
                front=api.front,
                shutdown=closing,
                graceful_seconds=settings.shutdown_timeout_seconds * GRACEFUL_SHARE,
                notices=api.notices,
                on_ready=lambda: serving(
                    _log,
                    host=settings.api_host,
                    port=settings.api_port,
                    process=process.number,
                ),
            )
            await api.drain()
            served.set()
    finally:
        await stores.close()
        _log.info("stopped")


class Api:
    """The flows of an API process, wired: over any stores and any clock."""

    def __init__(self, settings: Settings, stores: Stores, clock: Clock) -> None:
        self._settings = settings
        self._stores = stores
        self._clock = clock
        self.access = access_of(settings, self._clock)
        self.front = front_of(settings)
        self._breakers = {
            name: Breaker(name, store.ping) for name, store in stores.pingable().items()
        }
        self._cache_breaker, self._queue_breaker = self._breakers["cache"], self._breakers["queue"]
        self._reads = ReadFlow(
            stores.cache,
            stores.record,
            stores.search,
            cache_breaker=self._cache_breaker,
            clock=self._clock,
            recent=RecentOrders(
                self._clock,
                orders_max=settings.read_cache_orders,
                seconds=settings.read_cache_seconds,
            ),
            record_timeout_seconds=settings.read_timeout_seconds,
        )
        cold_mark = ColdMark(stores.record, self._clock)
        self._reigns = Reigns(stores.cache, cold_mark, self._clock)
        self._commit = GroupCommit(
            stores.cache,
            stores.queue,
            cache_breaker=self._cache_breaker,
            queue_breaker=self._queue_breaker,
            cold_mark=cold_mark,
            reigns=self._reigns,
            clock=self._clock,
            limits=settings.commit,
        )
        self._accept = AcceptFlow(self._commit, self._reads, self._clock)
        self.health = HealthFlow(stores.pingable())
        self.live = LiveFlow(
            SystemStateFlow(stores.cache, stores.queue, stores.record, self.health),
            self._clock,
            watchers_max=settings.live_streams_max,
        )

    def loops(self, ended: asyncio.Event) -> Sequence[Coroutine[Any, Any, None]]:
        """Return the background loops, which run until the process has ended."""
        return (
            prepare(self._stores, self._clock, ended),
            repeat("probe", self.probe, ended, interval_seconds=PROBE_INTERVAL_SECONDS),
            repeat(
                "backlog",
                self.look_at_backlog,
                ended,
                interval_seconds=BACKLOG_INTERVAL_SECONDS,
            ),
            repeat("live", self.live.step, ended, interval_seconds=LIVE_INTERVAL_SECONDS),
            repeat("watch", self.watch, ended, interval_seconds=WATCH_INTERVAL_SECONDS),
        )

    def app(self, stop: asyncio.Event) -> ASGIApp:
        """Return the application."""
        stores = self._stores
        flows = Flows(
            self._accept,
            self._reads,
            SearchFlow(stores.search, self._clock),
            SalesFlow(stores.sales, self._clock),
            Operating(self._settings, stores, self._clock).dead_letters,
            self.health,
            self.live,
        )
        return build_app(
            flows,
            self._settings.api,
            clock=self._clock,
            stopping=stop,
            access=self.access,
            front=self.front,
        )

    def hot_routes(self) -> HotRoutes:
        """Return the handlers of plain requests for the two hot routes."""
        return HotRoutes(
            self._accept,
            self._reads,
            body_bytes_max=self._settings.api.order_body_bytes_max,
            access=self.access,
        )

    def protocol(self) -> type[Connection]:
        """Return the HTTP protocol, with the fast lane for the hot routes if it is on."""
        if tracing.is_on() or not self._settings.api_fast_lane:
            return Connection
        return fast_lane(self.hot_routes())

    async def probe(self) -> None:
        """Ping the stores that failed."""
        await self._cache_breaker.probe()
        await self._queue_breaker.probe()

    async def look_at_backlog(self) -> None:
        """Measure the backlog, and the queue's depth where the bound depends on it.

        A new reign of the cache begins here, too.
        """
        is_cached = not self._cache_breaker.is_open
        try:
            dirty = (await self._stores.cache.backlog()).orders if is_cached else None
            if is_cached:
                await self._reigns.look()
        except PolyglotError as error:  # above its bound no commit would notice
            self._cache_breaker.failed(error)
            return
        self._commit.backlog_seen(dirty)
        if is_cached and not self._commit.relies_on_queue:
            self._commit.queue_depth_seen(None)
        elif not self._queue_breaker.is_open:
            try:
                self._commit.queue_depth_seen(await self._stores.queue.ready())
            except PolyglotError as error:  # the bound stays as it was last seen
                self._queue_breaker.failed(error)

    async def watch(self) -> None:
        """Ping the stores whose absence no order would show."""
        await asyncio.gather(self._breakers["record"].look(), self._breakers["search"].look())

    def notices(self) -> Headers:
        """Return the header that every answer carries while a store is away."""
        away = [breaker.store for breaker in self._breakers.values() if breaker.is_open]
        return ((b"x-degraded", ", ".join(away).encode()),) if away else ()

    async def drain(self) -> None:
        """Return once every commit and look-up has its answer."""
        await self._commit.drain()
        await self._reads.drain()
