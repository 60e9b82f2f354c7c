"""The one place where chance and time of the real machine are taken from the product.

What the product asks of `random`, `uuid` and `uuid_utils` comes from the run's seed instead; its
long constants are scaled down, as settings are; logs are off. `install` is called once in a process
that does nothing but simulate, `begin` before each run.
"""

import importlib
import logging
import random
from types import SimpleNamespace
from typing import Any

from tests.simulation.loop import SimulatedLoop
from tests.simulation.stores.search import SimulatedContents

_PACKAGE = "polyglot_persistence"

_RANDOM_IN = ("runtime.pauses",)
_UUID_IN = ("flows.reading.cold_cache",)

REPUBLISH_SECONDS = 4.0

SCALED = {
    ("flows.reading.cold_cache", "COMMIT_SECONDS_MAX"): 2.0,
    ("flows.reading.cold_cache", "END_WARMING_SECONDS_MAX"): 1.0,
    ("flows.reading.cold_cache", "TIDY_SECONDS_MAX"): 1.6,
    ("flows.reading.cold_cache", "EPOCH_SECONDS_MAX"): 3.0,
    ("worker.warmer", "LOOK_INTERVAL_SECONDS"): 0.4,
    ("flows.intake.group_commit", "COMMIT_SECONDS_MAX"): 2.0,
    ("flows.intake.group_commit", "REPUBLISH_SECONDS"): REPUBLISH_SECONDS,
    ("flows.behind.sweep", "STUCK_SECONDS"): 3.0,
    ("runtime.repeat", "LEAD_RETRY_SECONDS"): 2.0,
    ("worker.refresher", "LOOK_INTERVAL_SECONDS"): 3.0,
    ("runtime.repeat", "BACKOFF_LAST_SECONDS"): 1.0,
    ("worker.persister", "NEWER_SCHEMA_PAUSE_SECONDS"): 0.5,
    ("worker.auditor", "ADD_UP_SECONDS"): 3.0,
    ("flows.watch.audit_search", "LOOK_SECONDS"): 0.3,
    ("flows.projections.rebuild", "OLD_INDEX_SECONDS"): 0.2,
}
"""Constants of modules: a run is some tens of simulated seconds."""

_SCALED_STORES = {
    ("record", "IDLE_SECONDS_MAX"): 2.0,
    ("orders", "IDLE_SECONDS_MAX"): 2.0,
    ("projections", "IDLE_SECONDS_MAX"): 2.0,
    ("search", "SHOWN_SECONDS"): 0.2,
    ("broker", "_HAND_BACK_SECONDS_MAX"): 0.2,
    ("valkey", "BACKLOG_SECONDS"): 30.0,
    ("cache", "REPLICATED_SECONDS"): 30.0,
    ("cache", "SETTLE_ORDERS_MAX"): 3,
}
"""Of the simulated stores, likewise."""


class _Chance:
    """The seed's random numbers and the simulated time of the run under way."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.loop: SimulatedLoop | None = None

    def uniform(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def uuid4(self) -> Any:
        return SimpleNamespace(hex=f"{self.random.getrandbits(128):032x}")

    def uuid7(self) -> Any:
        assert self.loop is not None
        milliseconds = int(self.loop.now * 1_000) + (1 << 40)
        number = milliseconds << 80 | self.random.getrandbits(80)
        number = number & ~(0xF << 76) | 7 << 76
        number = number & ~(0x3 << 62) | 0x2 << 62
        return SimpleNamespace(bytes=number.to_bytes(16, "big"))


_chance = _Chance()


def install() -> None:
    """Take chance, time and noise from the product, for as long as this process lives."""
    logging.disable(logging.CRITICAL)
    for name in _RANDOM_IN:
        _module(name).random = _chance
    for name in _UUID_IN:
        _module(name).uuid = _chance
    _module("domain.order").uuid7 = _chance.uuid7
    # A process describes its API in 8 ms, and looks for its version in 11.
    app = _module("api.app")
    app.describe = lambda *_: {}
    app.version = lambda _: "0"
    for (name, constant), value in SCALED.items():
        module = _module(name)
        getattr(module, constant)  # one that was renamed would not be scaled
        setattr(module, constant, value)
    for (name, constant), value in _SCALED_STORES.items():
        setattr(importlib.import_module(f"tests.simulation.stores.{name}"), constant, value)
    SimulatedContents.shown_after_seconds = 0.2


def begin(seed: int, loop: SimulatedLoop) -> None:
    """Begin a run."""
    _chance.random = random.Random(f"product {seed}")
    _chance.loop = loop


def _module(name: str) -> Any:
    return importlib.import_module(f"{_PACKAGE}.{name}")
