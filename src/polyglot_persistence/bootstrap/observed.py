"""Measures the calls of a process to its stores, between the flows and the adapters.

Every call of every port in `Stores` is timed, or counted if it fails: each method, entering and
leaving each context, and the methods of what `consume`, `lead` and `turn` give. A context that an
error leaves is not measured: the error is that of a call within. `receive` is not timed: it waits
for messages.

Adapters know nothing of it. A call costs some 3 µs more, and it carries a batch on the paths that
are hot. Within a trace each call of a port is a span, and a message takes the trace along.
"""

import inspect
import time
from collections.abc import Awaitable, Callable, Sized
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, cast

from prometheus_client import Histogram

from polyglot_persistence import tracing
from polyglot_persistence.bootstrap.stores import AuditStores, Stores
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import QUEUE_NAME, Message
from polyglot_persistence.telemetry import STORE_CALL_SECONDS, STORE_ERRORS

Port = TypeVar("Port")
Call: TypeAlias = Callable[..., Awaitable[Any]]

_GIVING_A_PORT = {"consume", "lead", "turn"}
_UNTIMED = {"receive"}


def observed(stores: Stores) -> Stores:
    """Return the stores with every port measured."""
    target = stores.rebuild_target
    return stores._replace(
        cache=measured("cache", stores.cache),
        queue=measured("queue", stores.queue),
        record=measured("record", stores.record),
        letters=measured("record", stores.letters),
        sales=measured("record", stores.sales),
        search=measured("search", stores.search),
        audit=AuditStores(
            measured("record", stores.audit.record),
            measured("search", stores.audit.contents),
            measured("cache", stores.audit.entries),
        ),
        rebuild_record=measured("record", stores.rebuild_record),
        rebuild_target=measured(
            "search",
            target,
            building=measured("search", target.building),
            contents=measured("search", target.contents),
        ),
    )


def measured(store: str, port: Port, **parts: object) -> Port:
    """Return a port of a store, measured; `parts` stand for the ports among its attributes."""
    return cast("Port", Observed(store, port, is_traced=tracing.is_on(), **parts))


class Observed:
    """Stands for an adapter, or for what one of its contexts gives."""

    def __init__(
        self, store: str, adapter: object, *, is_traced: bool = False, **parts: object
    ) -> None:
        self._store = store
        self._adapter = adapter
        self._is_traced = is_traced
        vars(self).update(parts)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the adapter; a call is measured, and kept for the next use."""
        found = getattr(self._adapter, name)
        if inspect.iscoroutinefunction(found):
            if self._is_traced:
                found = _traced(_system(self._adapter), name, found)
            found = vars(self)[name] = _measured(self._store, name, found)
        elif inspect.isasyncgenfunction(inspect.unwrap(found)):
            found = vars(self)[name] = self._contexts(name, found)
        return found

    def _contexts(
        self, name: str, make: Callable[..., AbstractAsyncContextManager[Any]]
    ) -> Callable[..., "_ObservedContext"]:
        async def enter(context: AbstractAsyncContextManager[Any]) -> Any:
            given = await context.__aenter__()
            if name in _GIVING_A_PORT and given is not None:
                return Observed(self._store, given)
            return given

        async def leave(context: AbstractAsyncContextManager[Any]) -> None:
            await context.__aexit__(None, None, None)

        entering = _measured(self._store, name, enter)
        leaving = _measured(self._store, f"leave_{name}", leave)
        return lambda *arguments, **options: _ObservedContext(
            make(*arguments, **options), entering, leaving
        )


class _ObservedContext(AbstractAsyncContextManager[Any]):
    def __init__(self, context: AbstractAsyncContextManager[Any], enter: Call, leave: Call) -> None:
        self._context = context
        self._enter = enter
        self._leave = leave

    async def __aenter__(self) -> Any:
        return await self._enter(self._context)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if error is not None:
            return await self._context.__aexit__(kind, error, traceback)
        await self._leave(self._context)
        return None


def _measured(store: str, operation: str, method: Call) -> Call:
    seconds: Histogram | None = None  # a process calls few of all methods: no series for the others
    no_effect = STORE_ERRORS.labels(store, "no_effect")
    unknown = STORE_ERRORS.labels(store, "unknown")
    is_timed = operation not in _UNTIMED

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
            if not is_timed:
                return result
            seconds = STORE_CALL_SECONDS.labels(store, operation)
        seconds.observe(time.perf_counter() - started)
        return result

    return call


_SYSTEMS = {"postgres": "postgresql", "valkey_streams": "valkey"}
"""Packages of adapters that have other names than what they speak to."""


def _system(adapter: object) -> str:
    package = type(adapter).__module__.split(".")[-2]
    return _SYSTEMS.get(package, package)


def _traced(system: str, operation: str, method: Call) -> Call:
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


def _traced_publish(system: str, method: Call) -> Callable[[Message], Awaitable[None]]:
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
