"""A simulated RabbitMQ with one quorum queue, and the queue port over it.

It pushes messages to consumers as long as they have credit, so a worker may have some that it has
not seen. What a consumer has comes back when its connection ends: at once if its process dies, and
after two missed heartbeats if the process stands still.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from polyglot_persistence.domain.codec import SCHEMA_VERSION, UNIT_SIZE_MAX
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.queue import Delivery, Message
from polyglot_persistence.ports.state import StoreState
from tests.simulation.stores.journal import Journal, Table

SILENCE_SECONDS: Final = 15.0
"""Three heartbeats of five seconds: the longest that a broker waits (`rabbit_heartbeat`)."""

_HAND_BACK_SECONDS_MAX: Final = 1.0
_PREFETCH_MAX: Final = 64
_NEWER_MAX: Final = 1_000
"""Of what was released, since this version cannot read it, and comes first again."""


class Broker:
    """The broker. Messages and how often they came back are on its disk; who has them is not."""

    def __init__(self, clock: Clock, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self.clock = clock
        self.silence_seconds = silence_seconds
        self.is_up = True
        self.has_quorum = True
        """Without one nothing is confirmed, delivered or counted."""
        self.takes_messages = True
        """Not while an alarm lasts."""
        self.connections = 0
        self.journal = Journal()
        self.messages: Table[int, Message] = Table(self.journal)
        self.deliveries: Table[int, int] = Table(self.journal)
        self.consumers: list[BrokerConsumer] = []
        self._is_declared = True
        self._ids = itertools.count(1)
        self._returned: list[int] = []
        self._undecided: list[Message] = []
        """Sent while there was no quorum."""

    # --- what its clients do -----------------------------------------------------------------

    def publish(self, message: Message) -> None:
        """Confirm a message, refuse it, or leave the sender without an answer."""
        self._check()
        if not self.takes_messages:
            raise UnavailableError("RabbitMQ takes no messages: an alarm lasts")
        if not self.has_quorum:
            self._undecided.append(message)
            raise UnknownOutcomeError("not confirmed in time")
        if not self._is_declared:
            self._is_declared = True
            raise UnavailableError("RabbitMQ has no such queue")
        self._append(message)
        self.deliver()

    def ready(self) -> int:
        """Count what no consumer has."""
        self._check()
        if not self.takes_messages:
            raise UnavailableError("RabbitMQ takes no messages: an alarm lasts")
        if not self.has_quorum:
            raise UnavailableError("the queue has no quorum: it cannot be counted")
        self._is_declared = True
        self.close_silent()
        return len(self._ready())

    def open(self, consumer: "BrokerConsumer") -> None:
        """Let a consumer begin; the queue is declared."""
        self._check()
        self._is_declared = True
        self.consumers.append(consumer)

    def ack(self, ids: Sequence[int]) -> None:
        """Forget messages. Without a quorum nothing is decided: they come again."""
        if not self.has_quorum:
            self.requeue(ids)
            return
        with self.journal.effect():
            for message_id in ids:
                self.messages.remove(message_id)
                self.deliveries.remove(message_id)

    def requeue(self, ids: Sequence[int]) -> None:
        """Make messages ready again, before all others."""
        there = [message_id for message_id in ids if message_id in self.messages]
        with self.journal.effect():
            for message_id in there:
                self.deliveries.put(message_id, self.deliveries.get(message_id, 0) + 1)
        self._returned += there
        self.deliver()

    def deliver(self) -> None:
        """Push what is ready to whoever has credit, in turn."""
        if not self.is_up or not self.has_quorum:
            return
        for message_id in self._ready():
            consumer = next((one for one in self.consumers if one.credit > 0), None)
            if consumer is None:
                return
            self.consumers.remove(consumer)  # in turn
            self.consumers.append(consumer)
            if message_id in self._returned:
                self._returned.remove(message_id)
            consumer.take(message_id, self.messages[message_id], self.deliveries.get(message_id, 0))

    def close_silent(self) -> None:
        """End the connections of processes that stood still for too long."""
        now = self.clock.monotonic()
        for consumer in list(self.consumers):
            since = consumer.queue.still_since
            if since is not None and now - since >= self.silence_seconds:
                self.close(consumer, "missed heartbeats")

    def seconds_to_silence(self) -> float:
        """Return when the first of those may be closed."""
        since = min(
            (at for one in self.consumers if (at := one.queue.still_since) is not None),
            default=float("inf"),
        )
        return max(since + self.silence_seconds - self.clock.monotonic(), 0.001)

    def close(self, consumer: "BrokerConsumer", reason: str) -> None:
        """End a consumer's connection; what it had is ready again."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
        had = consumer.die(reason)
        self.requeue(had)

    # --- what happens to it ------------------------------------------------------------------

    def stop(self) -> None:
        """Take it away."""
        self.is_up = False
        self.cut_connections()

    def start(self) -> None:
        """Give it back with everything that it confirmed."""
        self.is_up = True

    def cut_connections(self) -> None:
        """End every connection."""
        self.connections += 1
        for consumer in list(self.consumers):
            self.close(consumer, "its connection was cut")

    def delete_queue(self) -> None:
        """Delete the queue with all that is in it; whoever needs it declares it again."""
        self._is_declared = False
        with self.journal.effect():
            self.messages.clear()
            self.deliveries.clear()
        self._returned = []
        for consumer in list(self.consumers):
            self.close(consumer, "the queue was deleted")

    def lose_quorum(self) -> None:
        """Take the majority of its nodes away."""
        self.has_quorum = False

    def regain_quorum(self, *, keeps_undecided: bool) -> None:
        """Give it back; what was sent meanwhile is in the queue, or never was."""
        self.has_quorum = True
        undecided, self._undecided = self._undecided, []
        for message in undecided if keeps_undecided else ():
            self._append(message)
        self.deliver()

    def _append(self, message: Message) -> None:
        with self.journal.effect():
            self.messages.put(next(self._ids), message)

    def _ready(self) -> list[int]:
        has = {message_id for one in self.consumers for message_id in one.has}
        first = [i for i in self._returned if i in self.messages]
        rest = sorted(i for i in self.messages if i not in has and i not in first)
        return [*first, *rest]

    def _check(self) -> None:
        if not self.is_up:
            raise UnavailableError("RabbitMQ is away")


class SimulatedRabbitMQ:
    """`ports.Queue` of one process."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.still_since: float | None = None
        self._consumers: list[BrokerConsumer] = []

    async def publish(self, message: Message) -> None:
        """Return when the broker has confirmed the message."""
        self.broker.publish(message)

    def unseen_seconds_max(self, hold_seconds: float) -> float:
        """Return the time of two workers: one holds the message, the next one has it prefetched."""
        return 2 * hold_seconds + self.broker.silence_seconds + _HAND_BACK_SECONDS_MAX

    @asynccontextmanager
    async def consume(self, *, orders_max: int) -> AsyncIterator["BrokerConsumer"]:
        """Consume over a connection of its own."""
        consumer = BrokerConsumer(self, orders_max=orders_max)
        self.broker.open(consumer)
        self._consumers.append(consumer)
        try:
            yield consumer
        finally:
            self._consumers.remove(consumer)
            self.broker.close(consumer, "it left")

    async def ready(self) -> int:
        """Count what no consumer has."""
        return self.broker.ready()

    async def ping(self) -> StoreState:
        """See that the broker takes messages."""
        self.broker.ready()
        return StoreState("Simulated RabbitMQ 1")

    def kill(self) -> None:
        """Let the process die, and its connections with it."""
        for consumer in self._consumers:
            self.broker.close(consumer, "its process died")

    def stand_still(self) -> None:
        """Pause the process: it answers no heartbeat from now on."""
        self.still_since = self.broker.clock.monotonic()

    def go_on(self) -> None:
        """Let it answer again, if it is not too late."""
        self.broker.close_silent()
        self.still_since = None


class BrokerConsumer:
    """`ports.Consumer`."""

    def __init__(self, queue: SimulatedRabbitMQ, *, orders_max: int) -> None:
        self.queue = queue
        self.has: dict[int, int] = {}
        """Orders of each message that the broker counts as delivered here."""
        self._orders_max = orders_max
        self._consumes = False
        self._size = 0.0
        self._newer = 0
        self._arrived: list[Delivery] = []
        self._dead_because = ""
        self._wake = asyncio.Event()

    @property
    def credit(self) -> int:
        """How many messages more may be pushed here."""
        if not self._consumes:
            return 0
        fitting = int(self._orders_max / (self._size or UNIT_SIZE_MAX))
        return max(1, min(fitting, _PREFETCH_MAX)) + self._newer - len(self.has)

    async def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        """Return what was pushed."""
        broker = self.queue.broker
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while True:
            broker.close_silent()
            if self._dead_because:
                raise UnavailableError(f"the queue's channel is gone: {self._dead_because}")
            self._wake.clear()
            self._consumes = True
            broker.deliver()
            if self._arrived:
                arrived, self._arrived = self._arrived, []
                if not _count_newer(arrived):
                    self._newer = 0
                return arrived
            left_seconds = deadline - loop.time()
            if left_seconds <= 0:
                return []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_seconds, broker.seconds_to_silence())):
                    await self._wake.wait()

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge what was delivered on this channel."""
        ids = self._forget(deliveries)
        self.queue.broker.ack(ids)
        self.queue.broker.deliver()

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Stop consuming, and hand back these and what was not received yet."""
        self._consumes = False
        released, self._arrived = [*deliveries, *self._arrived], []
        self._newer = min(_count_newer(released), _NEWER_MAX)
        self.queue.broker.requeue(self._forget(released))

    def take(self, message_id: int, message: Message, deliveries: int) -> None:
        """Take what the broker pushes."""
        self.has[message_id] = message.orders
        self._size = max(message.orders, 1, 0.9 * self._size)
        delivery = Delivery(
            message_id,
            message.body,
            message.orders,
            message.accepted_at,
            message.schema,
            deliveries,
            message.trace,
        )
        self._arrived.append(delivery)
        self._wake.set()

    def die(self, reason: str) -> list[int]:
        """End the connection; return what the broker had delivered here."""
        self._dead_because = self._dead_because or reason
        self._consumes = False
        self._arrived = []
        had, self.has = list(self.has), {}
        self._wake.set()
        return had

    def _forget(self, deliveries: Sequence[Delivery]) -> list[int]:
        ids = [one.tag for one in deliveries if one.tag in self.has and isinstance(one.tag, int)]
        for message_id in ids:
            del self.has[message_id]
        return ids


def _count_newer(deliveries: Sequence[Delivery]) -> int:
    return sum(delivery.schema > SCHEMA_VERSION for delivery in deliveries)
