"""Messages that are told from one another, and how tests receive them."""

import time
from collections.abc import Sequence

from polyglot_persistence.domain import codec
from polyglot_persistence.ports.queue import Consumer, Delivery, Message, Queue
from tests.support.orders import START


def numbered(number: int, *, orders: int = 1) -> Message:
    """Return a message that is told from others by its body."""
    return Message(b"message %d" % number, orders, START, codec.SCHEMA_VERSION)


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.body.split()[1]) for delivery in deliveries]


async def work_off(consumer: Consumer, messages: int) -> list[Delivery]:
    """Receive and acknowledge so many messages, and see that no more are there."""
    deliveries: list[Delivery] = []
    deadline = time.monotonic() + 5
    while len(deliveries) < messages and time.monotonic() < deadline:
        received = await consumer.receive(0.2)
        await consumer.ack(received)
        deliveries += received
    deliveries += await consumer.receive(0)
    assert len(deliveries) == messages
    return deliveries


async def hold(consumer: Consumer, messages: int) -> list[Delivery]:
    """Receive so many messages and acknowledge none."""
    deliveries: list[Delivery] = []
    deadline = time.monotonic() + 5
    while len(deliveries) < messages and time.monotonic() < deadline:
        deliveries += await consumer.receive(0.2)
    assert len(deliveries) == messages
    return deliveries


async def look_into(queue: Queue) -> None:
    """Consume once, so that the server knows of everything after it who had it."""
    async with queue.consume(orders_max=1) as consumer:
        assert list(await consumer.receive(0)) == []


async def is_ready(queue: Queue, messages: int) -> bool:
    ready = await queue.ready()
    assert ready == messages, ready
    return True
