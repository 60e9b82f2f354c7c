"""Metrics: names by the conventions, histograms of batches, measured stores, shared gauges."""

import asyncio
import math
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.flows.watch.shared_state import SharedState
from polyglot_persistence.flows.watch.system_state import SystemStateFlow
from polyglot_persistence.ports.cache import Backlog, CacheRead
from polyglot_persistence.ports.orders import Found
from polyglot_persistence.ports.record import Progress
from polyglot_persistence.ports.state import StoreState
from polyglot_persistence.runtime.repeat import repeat
from polyglot_persistence.telemetry import REGISTRY, QuickHistogram
from tests.support.scripted import FakeClock

BASE_UNITS = (
    "_seconds",
    "_bytes",
    "_total",
    "_orders",
    "_members",
    "_fds",
    "_info",
    "_limit",
    "_messages",
    "_waiting",
)
WITHOUT_UNIT = {
    "polyglot_api_keys_file_faults",
    "polyglot_cache_cold",
    "polyglot_freshness_nines",
    "polyglot_store_up",
}
"""Gauges that are 0 or 1, or a number of nines."""


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def shown() -> dict[str, str]:
    """Return every metric's type by its name as Prometheus shows it."""
    text = generate_latest(REGISTRY).decode()
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))


def test_names_follow_the_conventions() -> None:
    """Base units only, counters end in `_total` and nothing else does."""
    assert len(shown()) > 30
    for name, kind in shown().items():
        assert name.endswith(BASE_UNITS) or name in WITHOUT_UNIT, name
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|millis\w*|minutes|kb|mb|percent)(_|$)", name), name


def test_a_batch_is_observed_as_its_orders_would_be() -> None:
    """What a batch histogram shows is what the library's own shows of the same values."""
    one, other = CollectorRegistry(), CollectorRegistry()
    bounds = (0.1, 1, 10)
    single = Histogram("lag_seconds", "Lag.", buckets=bounds, registry=one)
    batch = QuickHistogram("lag_seconds", "Lag.", buckets=bounds, registry=other)
    values = [0.0, 0.1, 0.10001, 1, 5, 10, 11, 1e9]
    for observed in values:
        single.observe(observed)
    batch.observe_all(values[:3])
    batch.observe_all(values[3:])
    expected = generate_latest(one).decode()
    expected = "".join(
        line for line in expected.splitlines(keepends=True) if "_created" not in line
    )
    assert generate_latest(other).decode() == expected


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("polyglot_dead_letters_total", {"stage": "index"}),
        ("polyglot_orders_refused_total", {"reason": "watermark"}),
        ("polyglot_orders_accepted_one_copy_total", {"missing": "queue"}),
        ("polyglot_store_errors_total", {"store": "search", "outcome": "unknown"}),
    ],
)
def test_counters_begin_at_zero(name: str, labels: dict[str, str]) -> None:
    """A series that is there before its first event lets `increase` see that event."""
    assert value(name, **labels) is not None


async def test_failures_of_a_loop_are_counted_and_its_success_has_its_time() -> None:
    """So that an alert can tell a loop that stands still from one that has nothing to do."""
    stop = asyncio.Event()
    failures = 2

    async def step() -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise UnavailableError("away")
        stop.set()

    before = time.time()
    await repeat("a_loop", step, stop, interval_seconds=60)
    assert value("polyglot_retries_total", of="a_loop") == 2
    succeeded = value("polyglot_loop_last_success_timestamp_seconds", loop="a_loop")
    assert succeeded is not None
    assert before <= succeeded <= time.time()


# --- what all processes share ----------------------------------------------------------------


class Shared:
    """Cache and record at once, that are there or away."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.away = False
        self.epoch = "7"

    def _look(self) -> None:
        if self.away:
            raise UnavailableError("away")

    async def backlog(self) -> Backlog:
        self._look()
        return Backlog(12, self.clock.now() - timedelta(seconds=90))

    async def read(self, ids: Sequence[object]) -> CacheRead:
        self._look()
        return CacheRead([], "7", "reign")

    async def find(self, ids: Sequence[object]) -> Found:
        self._look()
        return Found({}, {}, self.epoch)

    async def progress(self, *, dead_letters_max: int) -> Progress:
        self._look()
        assert dead_letters_max > 3
        return Progress(100, 0, None, 3, 5, datetime(2025, 12, 31, 23, tzinfo=UTC))

    async def ready(self) -> int:
        self._look()
        return 4

    async def ping(self) -> StoreState:
        self._look()
        return StoreState("1")


GAUGES = {
    "polyglot_dirty_orders": 12.0,
    "polyglot_dirty_oldest_age_seconds": 90.0,
    "polyglot_queue_messages": 4.0,
    "polyglot_outbox_orders": 0.0,
    "polyglot_outbox_oldest_age_seconds": 0.0,
    "polyglot_dead_letters_waiting": 3.0,
    "polyglot_cache_cold": 0.0,
    "polyglot_sales_view_age_seconds": 3600.0,
}


async def test_shared_gauges_tell_what_the_stores_say_and_nothing_else() -> None:
    """Each is set from its store, is NaN while that is away, and comes back with it."""
    clock = FakeClock()
    there = Shared(clock)
    stores = cast("Any", there)
    health = HealthFlow({"cache": there})
    state = SharedState(SystemStateFlow(stores, stores, stores, health), clock)
    await state.step()
    assert {name: value(name) for name in GAUGES} == GAUGES
    assert value("polyglot_store_up", store="cache") == 1
    there.away = True
    await state.step()
    assert all(math.isnan(value(name) or 0.0) for name in GAUGES)
    assert value("polyglot_store_up", store="cache") == 0
    there.away = False
    there.epoch = "8"
    await state.step()
    assert {name: value(name) for name in GAUGES} == {**GAUGES, "polyglot_cache_cold": 1.0}
