"""One worker's end of the queue: a connection and a channel of its own.

A quorum queue limits a consumer by messages, while the port limits it by orders, and a message has
1 to some 1,000 of them. So the consumer begins with few messages and measures their size. It is
then replaced on its channel by one with a fitting prefetch (RabbitMQ applies `basic.qos` to
consumers that begin after it).

A quorum queue that is deleted and declared again at once may keep such a consumer as a ghost (seen
on 3.10): it takes messages that never reach its channel. So a consumer that holds and receives
nothing for a while opens a new channel, which returns the messages that a ghost took.

Invariant: a delivery of another channel is never acknowledged here; the broker sends it again.
Invariant: after a release a consumer takes nothing until its worker calls again, so that the
released messages go to others.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from pamqp import commands

from polyglot_persistence.adapters.rabbitmq import messages
from polyglot_persistence.adapters.rabbitmq.channel import AmqpChannel, Content
from polyglot_persistence.adapters.rabbitmq.connection import AmqpConnection
from polyglot_persistence.domain.codec import SCHEMA_VERSION, UNIT_SIZE_MAX
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.queue import Delivery

PREFETCH_MESSAGES_MAX: Final = 64
"""Enough for a worker that persists small messages in batches; bounds the excess when large
messages follow small ones."""

NEWER_MESSAGES_MAX: Final = 1_000
"""Released messages that this version cannot read are delivered first again, as long as no newer
worker runs; this many may be prefetched in addition, so that others follow them."""

_PREFETCH_GROWTH_MAX: Final = 4
_SIZE_DECAY: Final = 0.9
"""Per delivery: some 20 small messages after a large one before the prefetch grows again."""


_QUIET_SECONDS_MAX: Final = 2.0
"""Time without a delivery before the channel is renewed: four round trips, made while idle."""


class _Tag(NamedTuple):
    channel: AmqpChannel
    number: int


class RabbitMQConsumer:
    """`ports.Consumer`; see `RabbitMQQueue.consume`."""

    def __init__(self, connection: AmqpConnection, queue: str, *, orders_max: int) -> None:
        self._connection = connection
        self._queue = queue
        self._orders_max = orders_max
        self._channel: AmqpChannel | None = None
        self._consumers = 0
        self._prefetch = 0
        self._orders_per_message = 0.0
        self._newer = 0
        self._arrived: list[Delivery] = []
        self._held: set[int] = set()
        self._heard_at = 0.0
        self._wake = asyncio.Event()
        self._dead_because = ""

    async def open(self) -> None:
        """Open the channel and check that the queue exists."""
        self._channel = await self._connection.channel(self)
        self._prefetch = 0
        self._heard_at = asyncio.get_running_loop().time()
        await messages.declare(self._channel, self._queue)

    async def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        """Return the messages that have arrived; one caller at a time."""
        self._wake.clear()
        if not self._dead_because:
            await self._renew_if_quiet()
            await self._consume(self._fitting_prefetch())
        if not self._arrived and not self._dead_because:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
        if self._dead_because:
            raise UnavailableError(f"the queue's channel is gone: {self._dead_because}")
        arrived, self._arrived = self._arrived, []
        self._held.update(self._numbers(arrived))
        if arrived and not _count_newer(arrived):
            self._newer = 0  # a newer worker has them
        return arrived

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge each; the broker confirms no ack, and redelivers if one is lost."""
        numbers = self._numbers(deliveries)
        self._held.difference_update(numbers)
        self._send(*[commands.Basic.Ack(number) for number in numbers])

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Stop consuming, then hand them back, with all that arrived and were not received."""
        with contextlib.suppress(UnavailableError):
            await self._stop()
            arrived, self._arrived = self._arrived, []
            released = [*deliveries, *arrived]
            self._newer = min(_count_newer(released), NEWER_MESSAGES_MAX)
            numbers = self._numbers(released)
            self._held.difference_update(numbers)
            self._send(*[commands.Basic.Nack(number, requeue=True) for number in numbers])

    def on_content(self, content: Content) -> None:
        """Take a delivery."""
        method = content.method
        if not isinstance(method, commands.Basic.Deliver) or self._channel is None:
            return
        self._heard_at = asyncio.get_running_loop().time()
        tag = _Tag(self._channel, method.delivery_tag or 0)
        delivery = messages.delivery_of(content, tag, redelivered=method.redelivered)
        self._orders_per_message = max(delivery.orders, 1, _SIZE_DECAY * self._orders_per_message)
        self._arrived.append(delivery)
        self._wake.set()

    def on_confirm(self, delivery_tag: int, *, multiple: bool, positive: bool) -> None:
        """Unused: nothing is published here."""

    def on_closed(self, reason: str) -> None:
        """Forget the messages that arrived: they come again, here or elsewhere."""
        self._dead_because = reason
        self._arrived = []
        self._wake.set()

    async def _renew_if_quiet(self) -> None:
        quiet_seconds = asyncio.get_running_loop().time() - self._heard_at
        if self._channel is not None and (
            self._held or self._arrived or quiet_seconds < _QUIET_SECONDS_MAX
        ):
            return
        if self._channel is not None:
            channel, self._channel = self._channel, None  # its later deliveries come again
            await channel.close()
        await self.open()

    def _fitting_prefetch(self) -> int:
        """Return the messages that hold about `orders_max`; assumes large ones until measured."""
        size = self._orders_per_message or UNIT_SIZE_MAX
        fitting = max(1, min(int(self._orders_max / size), PREFETCH_MESSAGES_MAX))
        if self._prefetch:
            fitting = min(fitting, _PREFETCH_GROWTH_MAX * self._prefetch)
        return fitting + self._newer

    async def _consume(self, prefetch: int) -> None:
        """Consume with this prefetch, unless the current one fits well enough."""
        if self._channel is None:
            raise UnavailableError("no channel to RabbitMQ")
        if self._prefetch and self._prefetch / 2 < prefetch < 2 * self._prefetch:
            return
        await self._stop()
        await self._channel.call(commands.Basic.Qos(prefetch_count=prefetch), commands.Basic.QosOk)
        # Set when it is sent: a caller canceled during the wait still leaves a consumer behind, and
        # after an earlier canceled call another attempt must follow.
        self._consumers += 1
        self._prefetch = prefetch
        await self._channel.call(
            commands.Basic.Consume(queue=self._queue, consumer_tag=str(self._consumers)),
            commands.Basic.ConsumeOk,
        )

    async def _stop(self) -> None:
        if self._channel is not None and self._prefetch:
            self._prefetch = 0
            await self._channel.call(
                commands.Basic.Cancel(str(self._consumers)), commands.Basic.CancelOk
            )

    def _numbers(self, deliveries: Sequence[Delivery]) -> list[int]:
        return [
            delivery.tag.number
            for delivery in deliveries
            if isinstance(delivery.tag, _Tag) and delivery.tag.channel is self._channel
        ]

    def _send(self, *methods: commands.Basic.Ack | commands.Basic.Nack) -> None:
        with contextlib.suppress(UnavailableError):
            if self._channel is not None:
                self._channel.send(*methods)


def _count_newer(deliveries: Sequence[Delivery]) -> int:
    return sum(delivery.schema > SCHEMA_VERSION for delivery in deliveries)
