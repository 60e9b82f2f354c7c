"""What the queue port promises, held against every adapter on its real server."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from polyglot_persistence.domain import codec
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import Consumer, Delivery, Queue
from tests.support.eventually import WAIT_SECONDS, eventually
from tests.support.orders import accepted, message
from tests.support.queue_adapters import ADAPTERS, serving, serving_alone, stalling
from tests.support.queue_messages import (
    hold,
    is_ready,
    look_into,
    numbered,
    numbers,
    work_off,
)
from tests.support.queues import REAL, QueueServer, StallingServer

AWAY = (UnavailableError, UnknownOutcomeError)
HOUR_SECONDS = 3_600.0
RECOVERY_SECONDS = WAIT_SECONDS
"""Within so long after a server's return everything works again."""


@pytest_asyncio.fixture(params=ADAPTERS)
async def server(
    request: pytest.FixtureRequest, valkey_server: EmbeddedValkey
) -> AsyncIterator[QueueServer]:
    """An empty queue server, which other tests may use too."""
    async with serving(request.param, valkey_server) as server:
        yield server


@pytest_asyncio.fixture(params=ADAPTERS)
async def own_server(request: pytest.FixtureRequest) -> AsyncIterator[QueueServer]:
    """A queue server that the test may take away."""
    async with serving_alone(request.param) as server:
        yield server


@pytest_asyncio.fixture(params=REAL)
async def stalling_server(request: pytest.FixtureRequest) -> AsyncIterator[StallingServer]:
    """A queue server that the test may stall."""
    async with stalling(request.param) as server:
        yield server


@pytest_asyncio.fixture
async def queue(server: QueueServer) -> Queue:
    return await server.process()


# --- publishing and receiving ----------------------------------------------------------------


async def test_a_message_arrives_as_it_was_published(queue: Queue) -> None:
    """Body, count, time, schema and trace come through; nothing was delivered before."""
    await look_into(queue)
    trace = {"traceparent": f"00-{7:032x}-{7:016x}-01", "tracestate": "congo=t61rcWkgMzE"}
    sent = message([accepted(1), accepted(2.000001)])._replace(trace=trace)
    await queue.publish(sent)
    async with queue.consume(orders_max=100) as consumer:
        [delivery] = await consumer.receive(WAIT_SECONDS)
    assert tuple(sent) == (*delivery[1:5], delivery.trace)
    assert delivery.redeliveries == 0


async def test_messages_arrive_first_in_first_out(queue: Queue) -> None:
    """One consumer sees messages in the order of their publishing."""
    for number in range(20):
        await queue.publish(numbered(number))
    async with queue.consume(orders_max=100) as consumer:
        assert list(range(20)) == numbers(await hold(consumer, 20))


async def test_a_large_message_passes(queue: Queue) -> None:
    """A unit of 1,000 orders with the longest names is one message."""
    sent = message([accepted(name="é" * 200) for _ in range(1000)])
    await queue.publish(sent)
    async with queue.consume(orders_max=1) as consumer:
        [delivery] = await consumer.receive(WAIT_SECONDS)
        assert sent.body == delivery.body


async def test_concurrent_publishers_are_all_confirmed(queue: Queue) -> None:
    """Many publishes at once are each confirmed and each delivered once."""
    await asyncio.gather(*[queue.publish(numbered(number)) for number in range(200)])
    async with queue.consume(orders_max=1000) as consumer:
        assert set(range(200)) == set(numbers(await work_off(consumer, 200)))


async def test_a_cancelled_publisher_disturbs_no_other(queue: Queue) -> None:
    """The others' confirms still find their callers."""
    await queue.publish(numbered(0))
    calls = [asyncio.create_task(queue.publish(numbered(number))) for number in range(1, 4)]
    await asyncio.sleep(0)
    calls[1].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [outcomes[0], outcomes[2]] == [None, None]
    async with queue.consume(orders_max=100) as consumer:
        received: set[int] = set()
        while not {0, 1, 3} <= received:
            received |= set(numbers(await consumer.receive(WAIT_SECONDS)))


async def test_receive_waits_no_longer_than_asked(queue: Queue) -> None:
    """An empty queue gives nothing, and does not keep the caller."""
    async with queue.consume(orders_max=100) as consumer:
        for wait_seconds in (0.0, 0.3):
            assert list(await consumer.receive(wait_seconds)) == []


async def test_a_waiting_consumer_is_woken(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message does not wait for a poll, of which there is none for an hour."""
    monkeypatch.setattr(
        "polyglot_persistence.adapters.valkey_streams.consumer.BLOCK_SECONDS_MAX", HOUR_SECONDS
    )
    queue, other = await server.process(), await server.process()
    async with queue.consume(orders_max=100) as consumer:
        await consumer.receive(0)
        waiting = asyncio.create_task(consumer.receive(HOUR_SECONDS))
        await server.is_waited_on()
        await other.publish(numbered(1))
        assert numbers(await waiting) == [1]


async def test_a_cancelled_receive_loses_nothing(server: QueueServer) -> None:
    """What arrives while nobody receives is for the next receive."""
    queue = await server.process()
    async with queue.consume(orders_max=100) as consumer:
        waiting = asyncio.create_task(consumer.receive(HOUR_SECONDS))
        await server.is_waited_on()
        waiting.cancel()
        await asyncio.wait({waiting})
        await queue.publish(numbered(1))
        assert numbers(await consumer.receive(WAIT_SECONDS)) == [1]


# --- acknowledging, releasing, leaving -------------------------------------------------------


async def test_an_acknowledged_message_never_comes_again(server: QueueServer) -> None:
    """Ack removes for good; again is harmless; the neighbours stay."""
    queue = await server.process()
    for number in range(4):
        await queue.publish(numbered(number))
    async with queue.consume(orders_max=100) as consumer:
        deliveries = await hold(consumer, 4)
        await consumer.ack(deliveries[:1])
        await consumer.ack([deliveries[2]])
        await consumer.ack([])
    async with (await server.process()).consume(orders_max=100) as consumer:
        assert {1, 3} == set(numbers(await work_off(consumer, 2)))


async def test_leaving_hands_back_what_is_not_acknowledged(server: QueueServer) -> None:
    """Another consumer takes it at once, and is told that it was delivered before."""
    queue = await server.process()
    await look_into(queue)
    await queue.publish(numbered(1))
    for deliveries_before in range(3):
        async with queue.consume(orders_max=100) as consumer:
            [delivery] = await consumer.receive(WAIT_SECONDS)
            assert min(deliveries_before, 1) <= delivery.redeliveries <= deliveries_before
    async with (await server.process()).consume(orders_max=100) as consumer:
        assert numbers(await consumer.receive(WAIT_SECONDS)) == [1]


async def test_an_error_in_the_context_hands_back_too(queue: Queue) -> None:
    """A worker that fails loses nothing."""
    await queue.publish(numbered(1))

    async def work() -> None:
        async with queue.consume(orders_max=100) as consumer:
            await consumer.receive(2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    await eventually(lambda: is_ready(queue, 1))


async def test_a_released_message_goes_to_whoever_waits(server: QueueServer) -> None:
    """Release gives it to another consumer, which waits already."""
    queue, other = await server.process(), await server.process()
    await queue.publish(numbered(1))
    await queue.publish(numbered(2))
    async with queue.consume(orders_max=100) as first, other.consume(orders_max=100) as second:
        deliveries = await hold(first, 2)
        waiting = asyncio.create_task(second.receive(HOUR_SECONDS))
        await server.is_waited_on()
        await first.release(deliveries[:1])
        [released] = await waiting
        assert numbers(deliveries[:1]) == numbers([released])
        assert released.redeliveries >= 1
        await second.ack([released])
        await first.ack(deliveries[1:])
    assert await queue.ready() == 0


async def test_messages_of_a_newer_schema_hold_up_no_other(queue: Queue) -> None:
    """However often they are released, what this version can read comes, and they stay."""
    newer = numbered(0)._replace(schema=codec.SCHEMA_VERSION + 1)
    for _ in range(12):
        await asyncio.gather(*[queue.publish(newer) for _ in range(50)])
    for number in range(1, 4):
        await queue.publish(numbered(number))
    read: set[int] = set()
    async with queue.consume(orders_max=100) as consumer:
        deadline = time.monotonic() + 10
        while read != {1, 2, 3}:
            assert time.monotonic() < deadline
            deliveries = await consumer.receive(1)
            await consumer.release([d for d in deliveries if d.schema > codec.SCHEMA_VERSION])
            ours = [d for d in deliveries if d.schema <= codec.SCHEMA_VERSION]
            await consumer.ack(ours)
            read |= set(numbers(ours))
        await eventually(lambda: is_ready(queue, 600), within_seconds=2)


async def test_consumers_compete(server: QueueServer) -> None:
    """Each message goes to one of them."""
    queue, other = await server.process(), await server.process()
    async with queue.consume(orders_max=100) as first, other.consume(orders_max=100) as second:
        for number in range(40):
            await queue.publish(numbered(number))
        taken: list[int] = []
        while len(taken) < 40:
            for consumer in (first, second):
                deliveries = await consumer.receive(0.2)
                await consumer.ack(deliveries)
                taken += numbers(deliveries)
        assert list(range(40)) == sorted(taken)
    assert await queue.ready() == 0


async def test_what_a_consumer_holds_is_bounded_in_orders(queue: Queue) -> None:
    """It gets no more than it can hold and one message; acknowledging makes room."""
    for number in range(30):
        await queue.publish(numbered(number, orders=100))
    async with queue.consume(orders_max=500) as consumer:
        held: list[Delivery] = []
        while deliveries := await consumer.receive(0.3):
            held += deliveries
        assert 500 <= sum(delivery.orders for delivery in held) <= 700
        await consumer.ack(held)
        seen = numbers(held)
        while len(seen) < 30:
            held = list(await consumer.receive(WAIT_SECONDS))
            assert 1 <= len(held) <= 7
            await consumer.ack(held)
            seen += numbers(held)
    assert list(range(30)) == seen
    assert await queue.ready() == 0


async def test_a_message_above_the_bound_still_comes(queue: Queue) -> None:
    """A unit of 1,000 orders is delivered to a consumer of fewer, alone."""
    for number in range(2):
        await queue.publish(numbered(number, orders=1000))
    async with queue.consume(orders_max=10) as consumer:
        held = await consumer.receive(WAIT_SECONDS)
        assert numbers(held) == [0]
        await consumer.ack(held)
        assert numbers(await consumer.receive(WAIT_SECONDS)) == [1]


# --- failures --------------------------------------------------------------------------------


async def test_the_messages_of_a_dead_process_go_to_another(server: QueueServer) -> None:
    """A process that dies without a word holds nothing for ever."""
    queue, other = await server.process(), await server.process()
    await queue.publish(numbered(1))
    context = queue.consume(orders_max=100)
    consumer = await context.__aenter__()
    held = await consumer.receive(WAIT_SECONDS)
    assert numbers(held) == [1]
    await server.kill(queue)
    async with other.consume(orders_max=100) as heir:
        [delivery] = await heir.receive(server.death_seconds)
        assert delivery.redeliveries >= 1
        await heir.ack([delivery])
    await consumer.ack(held)  # does nothing, and says nothing
    with pytest.raises(UnavailableError):
        await consumer.receive(1)
    await context.__aexit__(None, None, None)
    assert await other.ready() == 0


async def test_a_wiped_server_heals_by_itself(server: QueueServer) -> None:
    """After everything is gone, publishers and consumers go on without an operator."""
    queue = await server.process()
    async with queue.consume(orders_max=100) as consumer:
        await queue.publish(numbered(0))
        held = await consumer.receive(WAIT_SECONDS)
        await server.wipe()
        await eventually(
            lambda: queue.publish(numbered(1)), within_seconds=RECOVERY_SECONDS, retried=AWAY
        )
        await consumer.ack(held)
        await received_somehow(queue, consumer, 1)
    assert await queue.ready() == 0


async def received_somehow(queue: Queue, consumer: Consumer | None, number: int) -> None:
    """Receive and acknowledge a message; if this consumer is dead, by others, as a worker does."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    try:
        while consumer is not None and time.monotonic() < deadline:
            deliveries = await consumer.receive(0.5)
            await consumer.ack(deliveries)
            if number in numbers(deliveries):
                return
    except UnavailableError:
        pass

    async def by_another() -> None:
        async with queue.consume(orders_max=100) as another:
            deliveries = await another.receive(0.5)
            await another.ack(deliveries)
            assert number in numbers(deliveries)

    await eventually(
        by_another,
        within_seconds=deadline - time.monotonic(),
        retried=(AssertionError, UnavailableError),
    )


async def test_a_server_that_is_away_refuses_and_comes_back_with_everything(
    own_server: QueueServer,
) -> None:
    """Nothing is accepted or believed while it is away; confirmed messages survive."""
    queue = await own_server.process()
    await queue.publish(numbered(1))
    async with queue.consume(orders_max=100) as consumer:
        held = await consumer.receive(WAIT_SECONDS)
        await own_server.stop()
        with pytest.raises(UnavailableError):
            await eventually(lambda: queue.publish(numbered(2)), retried=(UnknownOutcomeError,))
        with pytest.raises(UnavailableError):
            await queue.ready()
        with pytest.raises(UnavailableError):
            await queue.ping()
        with pytest.raises(UnavailableError):
            await consumer.receive(5)
        await consumer.ack(held)  # a dead channel: it comes again
    with pytest.raises(UnavailableError):
        async with queue.consume(orders_max=100):
            pass
    await own_server.start()
    await eventually(
        lambda: queue.publish(numbered(3)), within_seconds=RECOVERY_SECONDS, retried=AWAY
    )
    async with queue.consume(orders_max=100) as consumer:
        assert {1, 3} == set(numbers(await work_off(consumer, 2)))


async def test_what_was_delivered_before_a_restart_is_known_to_have_been(
    own_server: QueueServer,
) -> None:
    """What a worker held, or had received and not looked at, is no first delivery after it."""
    queue = await own_server.process()
    await look_into(queue)
    for number in range(3):
        await queue.publish(numbered(number))
    async with queue.consume(orders_max=100) as consumer:
        await hold(consumer, 3)
        await own_server.stop()
    await own_server.start()

    async def received() -> list[Delivery]:
        async with queue.consume(orders_max=100) as consumer:
            return await work_off(consumer, 3)

    deliveries = await eventually(
        received, within_seconds=RECOVERY_SECONDS, retried=(AssertionError, *AWAY)
    )
    assert all(delivery.redeliveries >= 1 for delivery in deliveries)
    await queue.publish(numbered(3))
    async with queue.consume(orders_max=100) as consumer:
        [new] = await work_off(consumer, 1)
    assert new.redeliveries == 0


async def test_a_stalled_server_leaves_a_publish_unknown(stalling_server: StallingServer) -> None:
    """A publish that is not confirmed in time says so within its deadline, and all recovers."""
    queue = await stalling_server.process()
    await queue.publish(numbered(0))
    stalling_server.stall()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            with pytest.raises(UnknownOutcomeError):
                await queue.publish(numbered(1))
    finally:
        stalling_server.resume()
    await eventually(
        lambda: queue.publish(numbered(2)), within_seconds=RECOVERY_SECONDS, retried=AWAY
    )
    seen: set[int] = set()
    async with queue.consume(orders_max=100) as consumer:
        while not {0, 2} <= seen:
            deliveries = await consumer.receive(2)
            assert deliveries
            seen |= set(numbers(deliveries))
            await consumer.ack(deliveries)


async def test_ping_tells_the_version(queue: Queue) -> None:
    """A healthy server has a version and no warnings."""

    async def is_well() -> None:
        state: Any = await queue.ping()
        assert any(character.isdigit() for character in state.version)
        assert state.warnings == ()  # the members of a new queue are known some seconds later

    await eventually(is_well)
