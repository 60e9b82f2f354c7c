"""What an API process and a worker process have in common: logs, signals, preparation."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import uvloop

from polyglot_persistence import __version__, tracing
from polyglot_persistence.api.app import build_process_app
from polyglot_persistence.api.protocol.server import serve
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.bootstrap.boundary import front_of
from polyglot_persistence.bootstrap.stores import Stores
from polyglot_persistence.config import Settings
from polyglot_persistence.errors import ConfigurationError, PolyglotError
from polyglot_persistence.flows.reading.cold_cache import found_epoch
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.flows.watch.shared_state import INTERVAL_SECONDS, SharedState
from polyglot_persistence.flows.watch.system_state import SystemStateFlow
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.processes.heartbeat import Parent
from polyglot_persistence.runtime.repeat import Backoff, repeat
from polyglot_persistence.telemetry import ComponentLogger, logger, set_up_logging

_log = logger("bootstrap")

OBJECTS_BETWEEN_COLLECTIONS = 20_000
"""Orders under way are many objects and no cycles: looking for these took 15 to 20 % of the time of
a worker, and of an API that takes bulks, at Python's own threshold of 700. This is above what two
batches of 2,000 hold; 50,000 gain nothing more, and keep longer what is in cycles."""

HANG_UP_SECONDS = 1.0
"""For a request to the process's own port that is under way when everything else has ended."""

OWN_CONNECTIONS_MAX = 32
"""To that port, for Prometheus and probes."""

CUT_SECONDS = 2.0
"""Maximum time for a process that is cut off to close its connections."""


def run(
    settings: Settings,
    service: str,
    process: Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]],
    parent: Parent,
    *,
    stop_seconds: float,
) -> int:
    """Run a process until SIGTERM or SIGINT sets its event and it has ended; return 0.

    It beats to its parent meanwhile. `service` is its name in traces. `stop_seconds` after the
    signal it is cut off.
    """
    set_up_logging(settings.log_level, settings.log_format)
    if settings.otel_traces_exporter == "otlp":
        try:
            tracing.start(service, __version__)
        except ConfigurationError as error:  # the variable may be set for the whole machine
            _log.warning("no_traces", error=str(error))

    async def until_signalled() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        beating = asyncio.create_task(parent.beat())
        await _in_time(process(settings, stop), stop, stop_seconds)
        beating.cancel()

    gc.freeze()  # what is there by now is code, and stays
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_signalled())
    finally:
        tracing.stop()
    return 0


def serving(log: ComponentLogger, **where: Any) -> None:
    """Log that an application is served from now on, and spare the collector what it consists of.

    That is 40,000 objects that stay; looking at them took up to 13 ms of the event loop each time.
    """
    log.info("serving", **where)
    gc.collect()
    gc.freeze()


async def serve_itself(
    settings: Settings,
    health: HealthFlow,
    access: Access,
    listener: socket.socket,
    stop: asyncio.Event,
) -> None:
    """Serve this process's own metrics and health, also while no store is there, until stopped."""
    front = front_of(settings)
    await serve(
        build_process_app(health, access, front),
        listener,
        limits=replace(settings.http, connections_max=OWN_CONNECTIONS_MAX),
        shutdown=stop,
        graceful_seconds=HANG_UP_SECONDS,
        front=front,
        on_ready=lambda: serving(_log, port=listener.getsockname()[1]),
    )


async def leave(health: HealthFlow, stop: asyncio.Event) -> None:
    """Report that the process is not ready once it is told to stop."""
    await stop.wait()
    health.is_leaving = True


async def watch_stores(stores: Stores, clock: Clock, stop: asyncio.Event) -> None:
    """Keep the gauges of what all processes share up to date until stopped."""
    health = HealthFlow(stores.pingable())
    state = SystemStateFlow(stores.cache, stores.queue, stores.record, health)
    gauges = SharedState(state, clock)
    await repeat("shared_state", gauges.step, stop, interval_seconds=INTERVAL_SECONDS)


async def _in_time(
    process: Coroutine[Any, Any, None], stop: asyncio.Event, timeout_seconds: float
) -> None:
    """Await a process; cut it off if it has not ended within the timeout after `stop`.

    Everything that was acknowledged is in a store that outlives the process, so a cut loses
    nothing, and the process ends before its supervisor kills it.
    """
    running = asyncio.create_task(process)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not running.done():
        await asyncio.wait((running,), timeout=timeout_seconds)
    if not running.done():
        _log.warning("stop_cut_short", seconds=timeout_seconds)
        running.cancel()
        await asyncio.wait((running,), timeout=CUT_SECONDS)
        if not running.done():  # it waits for something that cannot be cancelled
            os._exit(1)
    if not running.cancelled():
        running.result()


async def prepare(stores: Stores, clock: Clock, stop: asyncio.Event) -> None:
    """Create schema and cache epoch as soon as the stores answer.

    A worker takes no message before: the epoch's proof of a fresh installation rests on that.
    """
    backoff = Backoff(stop, "prepare")
    while not stop.is_set():
        try:
            await stores.migrate()
            await found_epoch(stores.record, stores.cache, stores.queue, clock)
        except PolyglotError as error:
            if backoff.is_news(error):
                _log.warning("not_prepared", error=str(error))
            await backoff.pause()
        else:
            return
