"""What the queue port promises of `ready` and of redeliveries, which a certain 404 rests on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support.eventually import WAIT_SECONDS, eventually
from tests.support.queue_adapters import ADAPTERS, serving
from tests.support.queue_messages import hold, is_ready, numbered, numbers, work_off
from tests.support.queues import QueueServer


@pytest_asyncio.fixture(params=ADAPTERS)
async def server(
    request: pytest.FixtureRequest, valkey_server: EmbeddedValkey
) -> AsyncIterator[QueueServer]:
    """An empty queue server, which other tests may use too."""
    async with serving(request.param, valkey_server) as server:
        yield server


async def test_ready_counts_what_no_consumer_holds(server: QueueServer) -> None:
    """Held is not ready, released and handed back is; acknowledged is neither."""
    queue = await server.process()
    assert await queue.ready() == 0
    for number in range(5):
        await queue.publish(numbered(number, orders=10))
    assert await eventually(lambda: is_ready(queue, 5))
    async with queue.consume(orders_max=1000) as consumer:
        deliveries = await hold(consumer, 5)
        await eventually(lambda: is_ready(queue, 0))
        await consumer.ack(deliveries[:2])
        assert await queue.ready() == 0
        await queue.publish(numbered(5))
    await eventually(lambda: is_ready(queue, 4))


@pytest.mark.parametrize("consumers", [0, 1])
async def test_an_idle_queue_is_empty_and_well(server: QueueServer, consumers: int) -> None:
    """Whether or not anybody consumes, many may ask at once."""
    queue = await server.process()
    async with AsyncExitStack() as stack:
        for _ in range(consumers):
            consumer = await stack.enter_async_context(queue.consume(orders_max=10))
            await consumer.receive(0)
        assert await asyncio.gather(*[queue.ready() for _ in range(20)]) == [0] * 20
        await queue.ping()


async def test_counting_while_messages_come_loses_and_keeps_none(server: QueueServer) -> None:
    """Also a caller that gives up leaves everything for the consumers."""
    queue, other = await server.process(), await server.process()
    counted = [asyncio.create_task(other.ready()) for _ in range(20)]
    await asyncio.gather(*[queue.publish(numbered(number)) for number in range(50)])
    for task in counted[::2]:
        task.cancel()
    await asyncio.gather(*counted, return_exceptions=True)
    async with queue.consume(orders_max=100) as consumer:
        assert set(range(50)) == set(numbers(await work_off(consumer, 50)))
        # Not after it: RabbitMQ may apply a channel's end before its last acknowledgments.
        await eventually(lambda: is_ready(other, 0))


async def test_what_stands_still_is_ready_in_time(server: QueueServer) -> None:
    """A process that holds a message and says nothing more loses it within the stated time."""
    queue, other = await server.process(), await server.process()
    await queue.publish(numbered(1))
    async with queue.consume(orders_max=100) as consumer:
        assert numbers(await hold(consumer, 1)) == [1]
        await eventually(lambda: is_ready(other, 0))
        server.stand_still(queue)
        seconds_max = other.unseen_seconds_max(server.hold_seconds)
        await eventually(lambda: is_ready(other, 1), within_seconds=seconds_max + 1)
        async with other.consume(orders_max=100) as heir:
            [delivery] = await heir.receive(WAIT_SECONDS)
            assert delivery.redeliveries >= 1
            await heir.ack([delivery])
        await server.kill(queue)
