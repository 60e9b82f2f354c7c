"""Audits all stores periodically and at a bounded rate, in one process at a time."""

import asyncio
import contextlib

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.behind.freshness import FreshnessCount, observe
from polyglot_persistence.flows.watch.audit import UNATTENDED, AuditFlow
from polyglot_persistence.ports.audit import AuditedRecord
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.leadership import Leadership
from polyglot_persistence.runtime.repeat import pause, repeat, repeat_as_leader

FIRST_AFTER_SECONDS = 60.0
"""Delays the first audit past the start of a process."""

ADD_UP_SECONDS = 5.0


class Throttle:
    """Lets this many orders a second pass, and none after `stop`."""

    def __init__(self, clock: Clock, stop: asyncio.Event, *, orders_per_second: float) -> None:
        self._clock = clock
        self._stop = stop
        self._orders_per_second = orders_per_second
        self._due = 0.0

    async def __call__(self, orders: int) -> bool:
        """Wait for these orders' share of the rate; return whether to continue."""
        now = self._clock.monotonic()
        self._due = max(self._due, now) + orders / self._orders_per_second
        await pause(self._stop, self._due - now)
        return not self._stop.is_set()


async def audit_forever(
    flow: AuditFlow,
    record: Leadership,
    throttle: Throttle,
    stop: asyncio.Event,
    *,
    interval_seconds: float,
) -> None:
    """Compare all stores and repair drift that needs no operator, until stopped.

    `interval_seconds` pass between the end of one audit and the beginning of the next.
    """

    async def step() -> None:
        await flow.run(throttle, repaired=UNATTENDED)

    await pause(stop, min(interval_seconds, FIRST_AFTER_SECONDS))
    await repeat_as_leader(record, "auditor", step, stop, interval_seconds=interval_seconds)


async def add_up_forever(count: FreshnessCount, record: AuditedRecord, stop: asyncio.Event) -> None:
    """Add this process's counts to those of all processes, until stopped."""

    async def step() -> None:
        await count.add_up(record)
        observe(await record.freshness())

    await repeat("freshness", step, stop, interval_seconds=ADD_UP_SECONDS)
    with contextlib.suppress(PolyglotError):
        await count.add_up(record)
