"""API and worker processes of the real code: what `bootstrap` wires, over simulated stores.

A process is killed, stopped in order, paused and started again, as an operating system would.
"""

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp

from polyglot_persistence.api.protocol.hot import HotRoutes
from polyglot_persistence.bootstrap.api import Api
from polyglot_persistence.bootstrap.process import watch_stores
from polyglot_persistence.bootstrap.stores import Stores
from polyglot_persistence.bootstrap.worker import work_on
from polyglot_persistence.config import Settings, load
from polyglot_persistence.config.limits import CommitLimits
from tests.simulation.loop import Execution, SimulatedLoop
from tests.support import keys

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""What a clock that is right says when a run begins."""
_START_SECONDS = START.timestamp()

STOP_SECONDS_MAX = 3.0
"""After so long a process that was told to stop is killed."""

HOLD_SECONDS_MAX = 1.0

_ENVIRONMENT = {
    **keys.ENVIRONMENT,
    "REDIS_ADDR": "unix:///run/simulated",
    "RABBITMQ_URL": "unix:///run/simulated",
    "ELASTICSEARCH_URL": "tantivy:///run/simulated",
    "API_HOST": "127.0.0.1",
    "READ_TIMEOUT_SECONDS": "0.6",
    "IMPORT_CHUNK_ORDERS": "3",
    "IMPORT_WAIT_SECONDS": "1.5",
    "PREFER_WAIT_SECONDS_MAX": "1",
    "READ_CACHE_ORDERS": "20",
    "READ_CACHE_SECONDS": "3",
    "PERSIST_BATCH_ORDERS": "8",
    "CONSUME_ORDERS_MAX": "20",
    "PERSIST_TIMEOUT_SECONDS": "0.8",
    "DELIVERY_HOLD_SECONDS_MAX": str(HOLD_SECONDS_MAX),
    "WARM_QUIET_SECONDS": "3",
    "SWEEP_AGE_SECONDS": "1",
    "SWEEP_INTERVAL_SECONDS": "0.5",
    "SWEEP_BATCH_ORDERS": "5",
    "INDEX_BATCH_ORDERS": "10",
    "INDEX_WAITING_ORDERS_MAX": "20",
    "OUTBOX_AGE_SECONDS": "1",
    "OUTBOX_INTERVAL_SECONDS": "1.5",
    "AUDIT_INTERVAL_SECONDS": "4",
}

COMMIT_ORDERS_MAX = 6
WAITING_ORDERS_MAX = 60
QUEUE_MESSAGES_MAX = 40


@functools.cache
def settings(dirty_orders_max: int, *, audits: bool) -> Settings:
    """Return the settings of every process: scaled down, some below what `load` permits."""
    return dataclasses.replace(
        load(_ENVIRONMENT | ({} if audits else {"AUDIT_INTERVAL_SECONDS": "0"})),
        commit=CommitLimits(
            COMMIT_ORDERS_MAX, WAITING_ORDERS_MAX, dirty_orders_max, QUEUE_MESSAGES_MAX
        ),
    )


class ProcessClock:
    """`ports.Clock` of one machine: its wall clock may be wrong, and jump, and stand still."""

    def __init__(self, loop: SimulatedLoop, offset_seconds: float) -> None:
        self._loop = loop
        self.offset_seconds = offset_seconds
        self.stands_at: float | None = None

    def now(self) -> datetime:
        """Return what the wall clock says."""
        seconds = self._loop.now if self.stands_at is None else self.stands_at
        return datetime.fromtimestamp(_START_SECONDS + seconds + self.offset_seconds, UTC)

    def monotonic(self) -> float:
        """Return seconds that go on whatever happens to the machine."""
        return self._loop.now + 1_000.0

    async def sleep(self, seconds: float) -> None:
        """Sleep as the process's timers do."""
        await asyncio.sleep(seconds)


class Process:
    """One process: its life from start to death, and its successors under the same name."""

    def __init__(
        self,
        name: str,
        loop: SimulatedLoop,
        clock: ProcessClock,
        limits: Settings,
        connect: Callable[["Process"], Stores],
    ) -> None:
        self.name = name
        self.loop = loop
        self.clock = clock
        self.limits = limits
        self.execution = Execution(name)
        self.execution.alive = False
        self.deaths: list[str] = []
        """What the product ended a process with, unasked: each is a bug."""
        self.starts = 0
        self.on_end: list[Callable[[], None]] = []
        """Called when its connections are cut, by its end or its death."""
        self._connect = connect
        self._ended: list[Execution] = []
        self._stop: asyncio.Event | None = None
        self.stopping = False

    def start(self) -> None:
        """Start it, if it does not run."""
        if self.execution.alive:
            return
        self.starts += 1
        self.execution = Execution(self.name)
        self.stopping = False
        stores = self._connect(self)
        self._stop = asyncio.Event()
        task = self.loop.start(self.execution, self.work(stores, self._stop))
        task.add_done_callback(functools.partial(self._over, self.execution))

    async def work(self, stores: Stores, stop: asyncio.Event) -> None:
        """Do the process's work until it is told to stop."""
        raise NotImplementedError

    def stop(self) -> None:
        """Tell it to stop, as SIGTERM does; after a while it is killed."""
        if self.execution.alive and self._stop is not None:
            self.stopping = True
            self._stop.set()
            self.loop.world_later(STOP_SECONDS_MAX, self._cut_off, self.execution)

    def kill(self) -> None:
        """End it at once."""
        if not self.execution.alive:
            return
        self.loop.kill(self.execution)
        self._ended.append(self.execution)
        self._cut()

    def _cut_off(self, execution: Execution) -> None:
        if execution is self.execution:
            self.kill()

    def _over(self, execution: Execution, task: "asyncio.Task[Any]") -> None:
        """Note that the work has come to its end."""
        if task.cancelled():
            self.deaths.append(f"{self.name} was cancelled")
        elif (error := task.exception()) is not None:
            self.deaths.append(f"{self.name} died of {_told(error)}")
        if execution is self.execution and execution.alive:
            self.loop.kill(execution)
            self._ended.append(execution)
            self._cut()

    def _cut(self) -> None:
        callbacks, self.on_end = self.on_end, []
        for callback in callbacks:
            callback()


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_told(one) for one in error.exceptions)
    return repr(error)


class ApiProcess(Process):
    """What `bootstrap.api` starts, but for its sockets."""

    app: ASGIApp
    hot: HotRoutes
    api: Api

    async def work(self, stores: Stores, stop: asyncio.Event) -> None:
        """Serve; then commit everything that was taken."""
        self.api = Api(self.limits, stores, self.clock)
        self.app, self.hot = self.api.app(stop), self.api.hot_routes()
        self.idle = asyncio.Event()
        self.idle.set()
        self._open = 0
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for background in self.api.loops(ended):
                tasks.create_task(background)
            tasks.create_task(watch_stores(stores, self.clock, ended))
            await stop.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS_MAX * 0.6):
                    await self.idle.wait()
            await self.api.drain()
            ended.set()

    def opened(self, requests: int) -> None:
        """Count requests that begin, or end (-1)."""
        self._open += requests
        (self.idle.clear if self._open else self.idle.set)()

    @property
    def takes_requests(self) -> bool:
        """Whether a client that connects now is served."""
        return self.execution.alive and not self.stopping and hasattr(self, "app")


class WorkerProcess(Process):
    """What `bootstrap.worker` starts, but for its socket."""

    async def work(self, stores: Stores, stop: asyncio.Event) -> None:
        """Work until told to stop."""
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch_stores(stores, self.clock, ended))
            await work_on(self.limits, stores, self.clock, stop)
            ended.set()
