"""Ports that time what they are asked and count what fails, before the adapters of a process.

So every call of every store is measured, and in one place, and an adapter knows nothing of it. What
is measured is a call, which carries a batch on the paths that are hot: some 3 µs a batch. Within a
trace each call is a span, and a message takes the trace along.
"""

import inspect
import time
from collections.abc import Awaitable, Callable, Sized
from typing import Any

from prometheus_client import Histogram

from polyglot_persistence import tracing
from polyglot_persistence.bootstrap.stores import Stores
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import QUEUE_NAME, Message
from polyglot_persistence.telemetry import STORE_CALL_SECONDS, STORE_ERRORS


class Observed:
    """Stands for an adapter; contexts (consuming, leading) are passed on as they are."""

    def __init__(self, store: str, adapter: object) -> None:
        self._adapter = adapter
        for name, method in inspect.getmembers(adapter, inspect.iscoroutinefunction):
            if not name.startswith("_"):
                traced = _traced(_system(adapter), name, method) if tracing.is_on() else method
                setattr(self, name, _observed(store, name, traced))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


def observed(stores: Stores) -> Stores:
    """Return the stores with an `Observed` before each."""
    ports: dict[str, Any] = {
        "cache": Observed("cache", stores.cache),
        "queue": Observed("queue", stores.queue),
        "record": Observed("record", stores.record),
        "letters": Observed("record", stores.letters),
        "sales": Observed("record", stores.sales),
        "search": Observed("search", stores.search),
    }
    return stores._replace(**ports)


def _observed(
    store: str, operation: str, method: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    seconds: Histogram | None = None  # a process calls few of all methods: no series for the others
    no_effect = STORE_ERRORS.labels(store, "no_effect")
    unknown = STORE_ERRORS.labels(store, "unknown")

    async def call(*arguments: Any, **options: Any) -> Any:
        nonlocal seconds
        started = time.perf_counter()
        try:
            result = await method(*arguments, **options)
        except UnavailableError:
            no_effect.inc()
            raise
        except UnknownOutcomeError:
            unknown.inc()
            raise
        if seconds is None:
            seconds = STORE_CALL_SECONDS.labels(store, operation)
        seconds.observe(time.perf_counter() - started)
        return result

    return call


_SYSTEMS = {"postgres": "postgresql", "valkey_streams": "valkey"}
"""Packages of adapters that have other names than what they speak to."""


def _system(adapter: object) -> str:
    package = type(adapter).__module__.split(".")[-2]
    return _SYSTEMS.get(package, package)


def _traced(
    system: str, operation: str, method: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    if operation == "publish":
        return _traced_publish(system, method)
    name = f"{operation} {system}"

    async def call(*arguments: Any, **options: Any) -> Any:
        attributes: dict[str, tracing.Value] = {
            "db.system.name": system,
            "db.operation.name": operation,
        }
        if arguments and isinstance(arguments[0], Sized) and not isinstance(arguments[0], str):
            attributes["db.operation.batch.size"] = len(arguments[0])
        with tracing.child_span(name, "CLIENT", attributes):
            return await method(*arguments, **options)

    return call


def _traced_publish(
    system: str, method: Callable[..., Awaitable[Any]]
) -> Callable[[Message], Awaitable[None]]:
    async def publish(message: Message) -> None:
        attributes: dict[str, tracing.Value] = {
            "messaging.system": system,
            "messaging.destination.name": QUEUE_NAME,
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.message.body.size": len(message.body),
            "polyglot.orders": message.orders,
        }
        with tracing.child_span(f"publish {QUEUE_NAME}", "PRODUCER", attributes):
            await method(message._replace(trace=tracing.carrier()))

    return publish
