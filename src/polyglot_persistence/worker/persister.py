"""Queue consumer: passes micro-batches of whole messages to the persist flow, then acknowledges.

```
  consuming --record away--> holding (retries, at most `hold_seconds`) --> waiting (channel closed,
      ^                                                                    nothing held) --+
      +----------------------------- the record answers a ping ----------------------------+
```

Invariant: a message is acknowledged only when each of its orders is in the record or in the dead
letters.
Invariant: no delivery is held for longer than `hold_seconds` without being acknowledged or handed
back by closing the channel. `flows.cold_cache` relies on this and on the next invariant.
Invariant: before a redelivered message is processed, and before anything is handed back, every
quiet time of a cold cache restarts; where that is not possible, nothing is consumed.
Invariant: a message of a newer schema is handed back untouched, for a newer worker.
"""

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from polyglot_persistence import tracing
from polyglot_persistence.config.limits import PersisterLimits
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.errors import PolyglotError, UnavailableError, UnknownOutcomeError
from polyglot_persistence.flows.behind.persist import PersistFlow, ToIndex
from polyglot_persistence.flows.behind.sweep import QueueProgress
from polyglot_persistence.flows.reading.cold_cache import END_WARMING_SECONDS_MAX
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.queue import QUEUE_NAME, Consumer, Delivery, Queue
from polyglot_persistence.ports.record import RecordState
from polyglot_persistence.runtime.repeat import Backoff, pause
from polyglot_persistence.telemetry import LOOP_SUCCESS, QUEUE_WAIT_SECONDS, logger

_log = logger("persister")

Result = TypeVar("Result")

RECEIVE_SECONDS = 1.0

IN_FLIGHT = 2
"""Batches at once: while PostgreSQL inserts one, another is decoded, or marked clean."""

SUSPECT_REDELIVERIES = 2
"""From this many redeliveries on, one of a message's orders may crash workers. The record may as
well have been away this often, so it goes unit by unit only after a crash."""
NEWER_SCHEMA_PAUSE_SECONDS = 5.0


class _TimeUpError(Exception):
    """The remaining messages have reached their maximum hold time and wait for redelivery."""


class _Deadline(NamedTuple):
    """End of the retries of an effect: a time, or the worker's stop."""

    hold_until: float
    stop: asyncio.Event


class _RecordAwayError(Exception):
    """The record stayed away for the maximum hold time of deliveries."""


class _StillWarmingError(Exception):
    """Neither cache nor PostgreSQL could record that a message was redelivered."""


def _is_suspect(delivery: Delivery) -> bool:
    return delivery.redeliveries >= SUSPECT_REDELIVERIES


@dataclass
class Persister:
    """The sole owner of a consumer."""

    flow: PersistFlow
    _: KW_ONLY
    queue: Queue
    record: RecordState
    end_warming: Callable[[], Awaitable[None]]
    offer: Callable[[Sequence[ToIndex]], None]
    progress: QueueProgress
    clock: Clock
    limits: PersisterLimits
    consuming: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set while messages are taken."""
    _must_end_warming: bool = field(default=False, init=False)
    _asked_at: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin to hold nothing."""
        self._asked_at = self.clock.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until stopped; the batch under way is finished first."""
        backoff = Backoff(stop, "consume")
        succeeded = LOOP_SUCCESS.labels("persister")
        while not stop.is_set():
            try:
                if self._must_end_warming:
                    await self._begin_quiet_time_anew()
                async with self.queue.consume(
                    orders_max=self.limits.consume_orders_max
                ) as consumer:
                    _log.info("consuming")
                    self.consuming.set()
                    self._asked_at = self.clock.monotonic()
                    async with self._handing_back():
                        while not stop.is_set():
                            await self._receive(consumer, stop)
                            # Not earlier: a broker with a broken queue still lets a consumer begin.
                            backoff.succeeded()
                            succeeded.set_to_current_time()
            except _RecordAwayError as away:
                self.consuming.clear()
                _log.warning("record_away", error=str(away.__cause__))
                await self._wait_for_record(stop)
            except _TimeUpError:
                _log.warning("handed_back", hold_seconds=self.limits.delivery_hold_seconds_max)
            except _StillWarmingError as error:
                self.consuming.clear()
                if backoff.is_news(error):
                    _log.warning("not_consuming", error=str(error))
                await backoff.pause()
            except PolyglotError as error:
                self.consuming.clear()
                if backoff.is_news(error):
                    _log.warning("queue_away", error=str(error))
                await backoff.pause()

    @asynccontextmanager
    async def _handing_back(self) -> AsyncIterator[None]:
        """On exit, restart quiet times before the channel hands back its messages.

        This includes messages never received: the next worker may be busy and not look at them.
        """
        try:
            yield
        finally:
            with contextlib.suppress(_StillWarmingError):  # then before anything is consumed again
                await self._begin_quiet_time_anew()

    async def _receive(self, consumer: Consumer, stop: asyncio.Event) -> None:
        # A message received now may have arrived, and so be held, since the last receive ended.
        held_since = self._asked_at
        deliveries = await consumer.receive(RECEIVE_SECONDS)
        self._asked_at, now = self.clock.monotonic(), self.clock.now()
        newer = [d for d in deliveries if d.schema > codec.SCHEMA_VERSION]
        if newer or any(delivery.redeliveries for delivery in deliveries):
            await self._begin_quiet_time_anew()
        for delivery in deliveries:
            if delivery.accepted_at is not None:
                wait = (now - delivery.accepted_at).total_seconds()
                QUEUE_WAIT_SECONDS.observe(max(wait, 0.0))
        if newer:
            _log.error("newer_schema", messages=len(newer), schema=newer[0].schema)
            await consumer.release(newer)
        ours = [d for d in deliveries if d.schema <= codec.SCHEMA_VERSION]
        if newer and not ours:
            await pause(stop, NEWER_SCHEMA_PAUSE_SECONDS)
        deadline = _Deadline(held_since + self.limits.delivery_hold_seconds_max, stop)
        await self._persist_batches(consumer, deque(self._micro_batches(ours)), deadline)

    async def _begin_quiet_time_anew(self) -> None:
        self._must_end_warming = True
        try:
            async with asyncio.timeout(END_WARMING_SECONDS_MAX):
                await self.end_warming()
        except (PolyglotError, TimeoutError) as error:
            raise _StillWarmingError(str(error)) from error
        self._must_end_warming = False

    async def _persist_batches(
        self, consumer: Consumer, batches: deque[Sequence[Delivery]], deadline: _Deadline
    ) -> None:
        """Persist batches concurrently, in any order; begin no more after a failure."""

        async def some() -> None:
            try:
                while batches:
                    await self._process(consumer, batches.popleft(), deadline)
            except BaseException:
                batches.clear()
                raise

        lanes = min(IN_FLIGHT, len(batches))
        results = await asyncio.gather(*(some() for _ in range(lanes)), return_exceptions=True)
        for result in results:  # all have ended: nothing outlives the consumer
            if isinstance(result, BaseException):
                raise result

    async def _process(
        self, consumer: Consumer, batch: Sequence[Delivery], deadline: _Deadline
    ) -> None:
        origins = [tracing.origin(delivery.trace) for delivery in batch]
        attributes: dict[str, tracing.Value] = {
            "messaging.destination.name": QUEUE_NAME,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.batch.message_count": len(batch),
        }
        with tracing.batch_span(f"process {QUEUE_NAME}", origins, attributes, "CONSUMER"):
            await self._persist_batch(consumer, batch, deadline)

    def _micro_batches(self, deliveries: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
        """Yield messages together up to the batch size, suspects separately from others."""
        batch: list[Delivery] = []
        orders = 0
        for delivery in deliveries:
            if batch and (
                _is_suspect(delivery) != _is_suspect(batch[0])
                or orders + delivery.orders > self.limits.persist_batch_orders
            ):
                yield batch
                batch, orders = [], 0
            batch.append(delivery)
            orders += delivery.orders
        if batch:
            yield batch

    async def _persist_batch(
        self, consumer: Consumer, batch: Sequence[Delivery], deadline: _Deadline
    ) -> None:
        decoded = [codec.decode_message(delivery.body) for delivery in batch]
        rejects = [reject for one in decoded for reject in one.rejects]
        if rejects:
            await self._insist(partial(self.flow.bury_unreadable, rejects), deadline)
        if _is_suspect(batch[0]):
            names = [f"message {hashlib.sha256(delivery.body).hexdigest()}" for delivery in batch]
            messages = {name: one.orders for name, one in zip(names, decoded, strict=True)}
            to_index = await self._persist_suspects(messages, deadline)
        else:
            orders = [order for one in decoded for order in one.orders]
            to_index = await self._insist(partial(self.flow.persist, orders, "queue"), deadline)
        await consumer.ack(batch)
        for delivery in batch:
            self.progress.acknowledged(delivery.accepted_at)
        self.offer(to_index)

    async def _persist_suspects(
        self, messages: Mapping[str, Sequence[AcceptedOrder]], deadline: _Deadline
    ) -> Sequence[ToIndex]:
        """Persist messages together; unit by unit those that workers crashed on."""
        redelivered = partial(self.flow.persist_redelivered, messages, "queue")
        done = await self._insist(redelivered, deadline)
        to_index = list(done.to_index)
        for name, orders in messages.items():
            if name in done.deadly:
                to_index += await self._persist_one_by_one(orders, deadline)
        if done.deadly:
            await self._insist(partial(self.flow.forget_deadly, done.deadly), deadline)
        return to_index

    async def _persist_one_by_one(
        self, orders: Sequence[AcceptedOrder], deadline: _Deadline
    ) -> Sequence[ToIndex]:
        """Persist suspects unit by unit; resume after the unit of the last crash."""
        units = whole_units(orders)
        left = await self._insist(partial(self.flow.pass_over, units), deadline)
        _log.warning("suspect_message", units=len(units), units_left=len(left))
        to_index: list[ToIndex] = []
        for unit in left:
            attempt = partial(self.flow.persist_suspect, unit, "queue")
            to_index += await self._insist(attempt, deadline)
        return to_index

    async def _insist(self, effect: Callable[[], Awaitable[Result]], deadline: _Deadline) -> Result:
        """Repeat an idempotent effect on the record until it succeeds or time is up.

        A running effect is then canceled, with an unknown outcome.
        """
        backoff = Backoff(deadline.stop, "persist")
        while True:
            try:
                async with asyncio.timeout(self._left(deadline)):
                    return await effect()
            except TimeoutError as error:
                raise _TimeUpError from error
            except (UnavailableError, UnknownOutcomeError) as error:
                _log.warning("persist_failed", error=str(error))
                await backoff.pause(max(0.0, deadline.hold_until - self.clock.monotonic()))
                if deadline.stop.is_set() or self.clock.monotonic() >= deadline.hold_until:
                    raise _RecordAwayError from error

    def _left(self, deadline: _Deadline) -> float:
        """Return the remaining hold time in seconds."""
        seconds = deadline.hold_until - self.clock.monotonic()
        if seconds <= 0:
            raise _TimeUpError
        return seconds

    async def _wait_for_record(self, stop: asyncio.Event) -> None:
        backoff = Backoff(stop, "record")
        while not stop.is_set():
            try:
                await self.record.ping()
            except PolyglotError:
                await backoff.pause()
            else:
                return
