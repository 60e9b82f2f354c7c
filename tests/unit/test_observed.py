"""Every call of every port is timed or counted, whatever adapter stands behind the port."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple, cast, get_origin, get_type_hints

import pytest

from polyglot_persistence.bootstrap.observed import Observed, measured, observed
from polyglot_persistence.bootstrap.stores import AuditStores, Stores
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.leadership import Lead
from polyglot_persistence.ports.queue import Consumer
from polyglot_persistence.telemetry import REGISTRY

STORE_OF = {
    "cache": "cache",
    "queue": "queue",
    "record": "record",
    "letters": "record",
    "sales": "record",
    "search": "search",
    "audit.record": "record",
    "audit.contents": "search",
    "audit.entries": "cache",
    "rebuild_record": "record",
    "rebuild_target": "search",
    "rebuild_target.building": "search",
    "rebuild_target.contents": "search",
}
"""Where each port of a process is in `Stores`, and the store that its calls are counted for."""

NO_PORTS = {"migrate", "close"}


class Called(NamedTuple):
    """What the registry says of one method of a store."""

    timed: float
    without_effect: float
    unknown: float


def called(store: str, operation: str) -> Called:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"store": store, **labels}) or 0.0

    return Called(
        value("polyglot_store_call_duration_seconds_count", operation=operation),
        value("polyglot_store_errors_total", outcome="no_effect"),
        value("polyglot_store_errors_total", outcome="unknown"),
    )


def contexts_of(port: type) -> list[str]:
    """Return the methods of a port that give a context."""
    return [
        name
        for name, method in inspect.getmembers(port, inspect.isfunction)
        if get_origin(get_type_hints(method).get("return")) is AbstractAsyncContextManager
    ]


def calls_of(port: type) -> list[str]:
    """Return the other methods of a port that ask its store."""
    return [
        name for name, _ in inspect.getmembers(port, inspect.iscoroutinefunction) if name[0] != "_"
    ]


def ports_of(holder: type) -> dict[str, type]:
    """Return the ports of `Stores`, those that others hold among them, by where they are."""
    found: dict[str, type] = {}
    hints = get_type_hints(holder) | {
        name: get_type_hints(attribute.fget)["return"]
        for name, attribute in inspect.getmembers(holder, lambda one: isinstance(one, property))
    }
    for name, kind in hints.items():
        if name in NO_PORTS or kind is float or not isinstance(kind, type):
            continue
        if not issubclass(kind, tuple):
            found[name] = kind
        found |= {f"{name}.{inner}": one for inner, one in ports_of(kind).items()}
    return found


class Adapter:
    """Has the methods of a port; each fails as it is told, or gives what it is to give."""

    def __init__(self, port: type, gives: object = None, **parts: object) -> None:
        self.error: Exception | None = None
        self._gives = gives
        for name in calls_of(port):
            setattr(self, name, self._call)
        for name in contexts_of(port):
            setattr(self, name, self._context)
        vars(self).update(parts)

    async def _call(self, *_: object) -> str:
        if self.error:
            raise self.error
        return "answer"

    @asynccontextmanager
    async def _context(self, *_: object) -> AsyncIterator[object]:
        await self._call()
        yield self._gives
        await self._call()


PORTS = ports_of(Stores)
CALLS = [(place, name) for place, port in PORTS.items() for name in calls_of(port)]
CONTEXTS = [(place, name) for place, port in PORTS.items() for name in contexts_of(port)]


@pytest.fixture
def adapters() -> dict[str, Adapter]:
    """Return an adapter for each port, by where it is."""
    made = {place: Adapter(port) for place, port in PORTS.items() if place != "rebuild_target"}
    building, contents = made["rebuild_target.building"], made["rebuild_target.contents"]
    target = Adapter(PORTS["rebuild_target"], building=building, contents=contents)
    return made | {"rebuild_target": target}


@pytest.fixture
def port(adapters: dict[str, Adapter]) -> Callable[[str], Any]:
    """Return what gives a measured port of a process."""
    plain: dict[str, Any] = {name: one for name, one in adapters.items() if "." not in name}
    audit = [adapters[f"audit.{name}"] for name in AuditStores._fields]
    nothing = cast("Any", None)
    stores = observed(
        Stores(**plain, audit=AuditStores(*cast("Any", audit)), migrate=nothing, close=nothing)
    )

    def at(place: str) -> Any:
        found: object = stores
        for name in place.split("."):
            found = getattr(found, name)
        return found

    return at


def test_every_port_belongs_to_a_store(port: Callable[[str], Any]) -> None:
    """A port that is new in `Stores`, or in a port, is measured as well."""
    assert STORE_OF.keys() == PORTS.keys()
    assert [place for place in PORTS if not isinstance(port(place), Observed)] == []


@pytest.mark.parametrize(("place", "name"), CALLS)
async def test_every_call_is_measured(
    port: Callable[[str], Any], adapters: dict[str, Adapter], place: str, name: str
) -> None:
    """By store and method; what failed is counted by what it may have done, and not timed."""
    store = STORE_OF[place]
    timed, without_effect, unknown = called(store, name)
    call = getattr(port(place), name)
    assert await call() == "answer"
    adapters[place].error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await call()
    adapters[place].error = UnknownOutcomeError("lost")
    with pytest.raises(UnknownOutcomeError):
        await call()
    assert called(store, name) == (timed + 1, without_effect + 1, unknown + 1)


@pytest.mark.parametrize(("place", "name"), CONTEXTS)
async def test_entering_and_leaving_a_context_is_measured(
    port: Callable[[str], Any], adapters: dict[str, Adapter], place: str, name: str
) -> None:
    """An error within is that of another call, which counts it."""
    store, leave = STORE_OF[place], f"leave_{name}"
    before, left_before = called(store, name), called(store, leave).timed
    make = getattr(port(place), name)
    async with make():
        pass
    assert (called(store, name).timed, called(store, leave).timed) == (
        before.timed + 1,
        left_before + 1,
    )
    with pytest.raises(UnknownOutcomeError):
        async with make():
            raise UnknownOutcomeError("of another store")
    assert called(store, name)[1:] == before[1:]
    adapters[place].error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await make().__aenter__()
    adapters[place].error = None
    with pytest.raises(UnknownOutcomeError):
        async with make():
            adapters[place].error = UnknownOutcomeError("the commit's answer was lost")
    assert called(store, name)[1:] == (before[1] + 1, before[2] + 1)
    assert called(store, leave).timed == left_before + 1


@pytest.mark.parametrize(
    ("place", "context", "given", "untimed"),
    [
        ("queue", "consume", Consumer, {"receive"}),
        ("record", "lead", Lead, set()),
        ("letters", "turn", Lead, set()),
    ],
)
async def test_what_a_context_gives_is_measured(
    place: str, context: str, given: type, untimed: set[str]
) -> None:
    """Only the time of `receive` is not kept: it waits for messages."""
    store = STORE_OF[place]
    inner = Adapter(given)
    stand_in: Any = measured(store, Adapter(PORTS[place], inner))
    for name in calls_of(given):
        before = called(store, name)
        inner.error = None
        async with getattr(stand_in, context)() as one:
            assert await getattr(one, name)() == "answer"
            inner.error = UnavailableError("away")
            with pytest.raises(UnavailableError):
                await getattr(one, name)()
        timed = before.timed + (name not in untimed)
        assert called(store, name) == (timed, before[1] + 1, before[2])


async def test_a_role_that_another_has_is_given_as_none() -> None:
    """Nothing stands for what is not there."""
    stand_in: Any = measured("record", Adapter(PORTS["record"]))
    async with stand_in.lead("sweeper") as lead:
        assert lead is None


async def test_methods_that_are_not_called_have_no_series() -> None:
    """A process calls few of all methods, and each would be a histogram."""

    class Quiet:
        async def whisper(self) -> None: ...

    name, labels = "polyglot_store_call_duration_seconds_count", {"operation": "whisper"}
    whisper = measured("record", Quiet()).whisper
    assert REGISTRY.get_sample_value(name, {"store": "record", **labels}) is None
    await whisper()
    assert REGISTRY.get_sample_value(name, {"store": "record", **labels}) == 1


def test_what_asks_no_store_is_the_adapters_own() -> None:
    """A constant, or a computation, is passed on."""

    class Contents:
        shown_after_seconds = 0.25

        def unseen_seconds_max(self, hold_seconds: float) -> float:
            return 2 * hold_seconds

    contents = measured("search", Contents())
    assert (contents.shown_after_seconds, contents.unseen_seconds_max(3)) == (0.25, 6)
