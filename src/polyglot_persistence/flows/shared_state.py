"""The gauges of what all processes share: stores, backlog, queue, outbox, cold cache, ...

Every process sets them from the stores themselves, whichever of the loops it leads. So none of them
shows what a process saw that has lost its role since, and any one of the processes tells of all.

Invariant: what cannot be asked is shown as NaN, never as the last answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from math import nan

from prometheus_client import Gauge

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.health import HealthFlow
from polyglot_persistence.ports import Cache, Clock, OrderStore, Queue
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

ANSWER_SECONDS_MAX = 4.0
DEAD_LETTERS_COUNTED_MAX = 10_000


class SharedState:
    """Looks at the stores for the gauges."""

    def __init__(
        self, cache: Cache, queue: Queue, store: OrderStore, health: HealthFlow, clock: Clock
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._store = store
        self._health = health
        self._clock = clock

    async def look(self) -> bool:
        """Set every gauge once; it never raises. To be repeated every `INTERVAL_SECONDS`."""
        await asyncio.gather(
            self._health.check(),
            _set(self._backlog, BACKLOG_ORDERS, BACKLOG_AGE_SECONDS),
            _set(
                self._progress,
                *(OUTBOX_ORDERS, OUTBOX_AGE_SECONDS, DEAD_LETTERS_WAITING, VIEW_AGE_SECONDS),
            ),
            _set(self._cold, CACHE_COLD),
            _set(self._waiting, QUEUE_MESSAGES),
        )
        return False

    async def _backlog(self) -> tuple[float, ...]:
        backlog = await self._cache.backlog()
        return backlog.orders, self._age(backlog.oldest_accepted_at)

    async def _progress(self) -> tuple[float, ...]:
        progress = await self._store.progress(dead_letters_max=DEAD_LETTERS_COUNTED_MAX)
        refreshed_at = progress.view_refreshed_at
        return (
            progress.outbox_orders,
            self._age(progress.outbox_oldest),
            progress.dead_letters,
            nan if refreshed_at is None else self._age(refreshed_at),
        )

    async def _waiting(self) -> tuple[float, ...]:
        return (await self._queue.ready(),)

    async def _cold(self) -> tuple[float, ...]:
        # The copy first, as a reader does it: it cannot be newer than the original then.
        copy = (await self._cache.read([])).epoch
        return (float(copy != (await self._store.find([])).epoch),)

    def _age(self, since: datetime | None) -> float:
        return 0.0 if since is None else max((self._clock.now() - since).total_seconds(), 0.0)


async def _set(ask: Callable[[], Awaitable[tuple[float, ...]]], *gauges: Gauge) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            values = await ask()
    except (PolyglotError, TimeoutError):
        values = (nan,) * len(gauges)
    for gauge, value in zip(gauges, values, strict=True):
        gauge.set(value)
