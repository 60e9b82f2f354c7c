"""Gauges of the shared state: stores, backlog, queue, outbox, cold cache, ...

Every process sets them from the stores themselves, regardless of the loops it leads. So no gauge
shows the past of a process that has lost its role, and any one process exports them all.

Invariant: an unknown value is exported as NaN, never as the last known one.
"""

from dataclasses import dataclass
from math import nan

from prometheus_client import Gauge

from polyglot_persistence.flows.watch.system_state import SystemStateFlow, age_seconds
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.telemetry import (
    BACKLOG_AGE_SECONDS,
    BACKLOG_ORDERS,
    CACHE_COLD,
    DEAD_LETTERS_WAITING,
    OUTBOX_AGE_SECONDS,
    OUTBOX_ORDERS,
    QUEUE_MESSAGES,
    VIEW_AGE_SECONDS,
)

INTERVAL_SECONDS = 5.0
"""Twice in Prometheus's usual scrape interval."""


@dataclass
class SharedState:
    """Sets the gauges; each store's own is set by its ping."""

    state: SystemStateFlow
    clock: Clock

    async def step(self) -> None:
        """Set every gauge once; it never raises. The caller repeats it every `INTERVAL_SECONDS`."""
        state = await self.state.look()
        now = self.clock.now()
        backlog, progress = state.backlog, state.progress
        viewed_at = progress.view_refreshed_at if progress else None
        _set(BACKLOG_ORDERS, backlog and backlog.orders)
        _set(BACKLOG_AGE_SECONDS, backlog and age_seconds(now, backlog.oldest_accepted_at))
        _set(OUTBOX_ORDERS, progress and progress.outbox_orders)
        _set(OUTBOX_AGE_SECONDS, progress and age_seconds(now, progress.outbox_oldest))
        _set(DEAD_LETTERS_WAITING, progress and progress.dead_letters)
        _set(VIEW_AGE_SECONDS, None if viewed_at is None else age_seconds(now, viewed_at))
        _set(QUEUE_MESSAGES, state.queue_messages)
        _set(CACHE_COLD, state.cold)


def _set(gauge: Gauge, value: float | None) -> None:
    gauge.set(nan if value is None else value)
