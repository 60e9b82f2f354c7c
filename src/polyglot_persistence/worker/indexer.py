"""Indexes orders just persisted, from memory; the outbox covers any that memory loses.

Invariant: memory is bounded. A batch that does not fit is dropped here and indexed from its outbox
row later.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from polyglot_persistence.config.limits import IndexerLimits
from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.behind.index import IndexFlow
from polyglot_persistence.flows.behind.persist import ToIndex
from polyglot_persistence.runtime.repeat import Backoff, More, repeat
from polyglot_persistence.telemetry import logger

_log = logger("indexer")

IN_FLIGHT = 2
"""Batches indexed at once: the second one measured +36 % with Elasticsearch."""

GATHER_ORDERS = 2_000
GATHER_SECONDS = 0.05
"""A small batch waits this long for more orders: a batch of any size costs requests, an fsync and a
transaction. An engine shows indexed orders only every second."""


class Indexer:
    """Takes offers from the persister and the sweeper."""

    def __init__(self, flow: IndexFlow, limits: IndexerLimits) -> None:
        self._flow = flow
        self._limits = limits
        self._waiting: deque[ToIndex] = deque()
        self._waiting_orders = 0
        self._outbox_orders = limits.index_batch_orders
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._stopping = False

    def offer(self, batches: Sequence[ToIndex]) -> None:
        """Queue batches for indexing, or leave them to the outbox if memory is full."""
        for batch in batches:
            orders = len(batch.orders)
            if self._waiting_orders + orders > self._limits.index_waiting_orders_max:
                continue
            self._waiting.append(batch)
            self._waiting_orders += orders
        self._tell()

    async def run(self, stop: asyncio.Event) -> None:
        """Index until stopped, then index the waiting batches while the index accepts them."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(IN_FLIGHT):
                tasks.create_task(self._index_offers(stop))
            tasks.create_task(
                repeat(
                    "outbox",
                    self._work_off,
                    stop,
                    interval_seconds=self._limits.outbox_interval_seconds,
                )
            )
            await stop.wait()
            self._stopping = True
            self._tell()

    async def _index_offers(self, stop: asyncio.Event) -> None:
        backoff = Backoff(stop, "index")
        while True:
            await self._arrived.wait()
            await self._gather()
            batches = self._take()
            if not batches:
                if self._stopping:
                    return
                continue  # another task took them
            try:
                await self._flow.index(batches)
            except PolyglotError as error:
                if backoff.is_news(error):
                    _log.warning("index_failed", error=str(error))
                self._forget()
                await backoff.pause()
            else:
                backoff.succeeded()

    def _tell(self) -> None:
        """Update the events from the backlog and the stop flag."""
        for event, orders in ((self._arrived, 1), (self._enough, GATHER_ORDERS)):
            if self._stopping or self._waiting_orders >= orders:
                event.set()
            else:
                event.clear()

    async def _gather(self) -> None:
        """Wait for enough orders, for at most `GATHER_SECONDS`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._enough.wait()

    def _take(self) -> Sequence[ToIndex]:
        batches: list[ToIndex] = []
        orders = 0
        while self._waiting and (
            not batches or orders + len(self._waiting[0].orders) <= self._limits.index_batch_orders
        ):
            batches.append(self._waiting.popleft())
            orders += len(batches[-1].orders)
        self._waiting_orders -= orders
        self._tell()
        return batches

    def _forget(self) -> None:
        """Leave everything to the outbox: it survives an outage and memory does not."""
        self._waiting.clear()
        self._waiting_orders = 0
        self._tell()

    async def _work_off(self) -> More:
        try:
            indexed = await self._flow.work_off_outbox(
                self._limits.outbox_age_seconds, self._outbox_orders
            )
        except PolyglotError:
            # Halve the batch after a timeout: a slow index may manage half, while retrying the
            # whole would keep it busy with requests that have timed out.
            self._outbox_orders = max(self._outbox_orders // 2, 1)
            raise
        self._outbox_orders = min(self._outbox_orders * 2, self._limits.index_batch_orders)
        return More(indexed > 0)
