"""What is particular to the queue over RabbitMQ; the contract is in test_queue.py."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from pamqp import commands

from polyglot_persistence.adapters.rabbitmq.channel import AmqpChannel, ChannelListener, Content
from polyglot_persistence.adapters.rabbitmq.connection import AmqpConnection, open_connection
from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue
from polyglot_persistence.config.addresses.rabbitmq import read_rabbitmq
from polyglot_persistence.domain import codec
from polyglot_persistence.errors import (
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.ports.queue import Consumer, Delivery, Message, Queue
from tests.support.addresses import RABBITMQ, RABBITMQ4, address_of, needs
from tests.support.eventually import eventually, eventually_true
from tests.support.orders import START
from tests.support.queues import Deaf, RabbitMQ, closing

AWAY = (UnavailableError, UnknownOutcomeError)
MESSAGE = Message(b"[]", 1, START, codec.SCHEMA_VERSION)


@pytest_asyncio.fixture(
    params=[
        pytest.param(RABBITMQ, marks=needs(RABBITMQ), id="rabbitmq"),
        pytest.param(RABBITMQ4, marks=needs(RABBITMQ4), id="rabbitmq4"),
    ]
)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[RabbitMQ]:
    async with closing(RabbitMQ(address_of(request.param))) as broker:
        assert isinstance(broker, RabbitMQ)
        yield broker


class Listener(Deaf):
    """Keeps the messages that come."""

    def __init__(self) -> None:
        self.contents: asyncio.Queue[Content] = asyncio.Queue()

    def on_content(self, content: Content) -> None:
        self.contents.put_nowait(content)


@asynccontextmanager
async def channel_to(
    broker: RabbitMQ, listener: ChannelListener | None = None
) -> AsyncIterator[AmqpChannel]:
    """A channel of the test's own."""
    connection = await open_connection(
        read_rabbitmq(broker.url), connect_timeout_seconds=5, timeout_seconds=5
    )
    try:
        yield await connection.channel(listener or Deaf())
    finally:
        await connection.close()


# --- against a broker ------------------------------------------------------------------------


async def test_messages_are_persistent_and_the_queue_is_a_quorum_queue(broker: RabbitMQ) -> None:
    """The broker has it as the design wants it: another declaration of the queue is refused."""
    queue = await broker.process()
    await queue.publish(MESSAGE)
    listener = Listener()
    async with channel_to(broker, listener) as channel:
        await channel.call(
            commands.Basic.Consume(queue=broker.queue_name), commands.Basic.ConsumeOk
        )
        content = await asyncio.wait_for(listener.contents.get(), 2)
        assert content.properties.delivery_mode == 2
        assert content.properties.content_type == "application/json"
        wrongs: list[dict[str, Any]] = [{}, {"x-queue-type": "quorum"}]
        for wrong in wrongs:
            async with channel_to(broker) as other:
                with pytest.raises(UnavailableError, match="PRECONDITION_FAILED"):
                    await other.call(
                        commands.Queue.Declare(
                            queue=broker.queue_name, durable=True, arguments=wrong
                        ),
                        commands.Queue.DeclareOk,
                    )


async def test_a_queue_of_another_kind_is_refused_with_its_reason(broker: RabbitMQ) -> None:
    """What somebody declared as a classic queue is not used; the message says why."""
    async with channel_to(broker) as channel:
        await channel.call(
            commands.Queue.Declare(queue=broker.queue_name, durable=True), commands.Queue.DeclareOk
        )
    queue = await broker.process()
    with pytest.raises(UnavailableError, match="PRECONDITION_FAILED"):
        await queue.publish(MESSAGE)
    with pytest.raises(UnavailableError, match="PRECONDITION_FAILED"):
        async with queue.consume(orders_max=10):
            pass


async def test_a_publish_to_a_deleted_queue_is_refused_and_the_next_is_not(
    broker: RabbitMQ,
) -> None:
    """An unroutable message is confirmed by the broker; `mandatory` makes it tell first."""
    queue = await broker.process()
    await queue.publish(MESSAGE)
    await broker.wipe()
    outcomes = await asyncio.gather(
        *[queue.publish(MESSAGE) for _ in range(3)], return_exceptions=True
    )
    assert [UnavailableError] * 3 == [type(o).__mro__[1] for o in outcomes if o is not None]
    await queue.publish(MESSAGE)
    assert await queue.ready() == 1


async def test_a_wrong_password_is_unavailable_with_the_brokers_reason(broker: RabbitMQ) -> None:
    """The error says that the login was refused."""
    queue = RabbitMQQueue(
        f"amqp://nobody:hush@{read_rabbitmq(broker.url)}/",
        connect_timeout_seconds=2,
        publish_timeout_seconds=2,
    )
    with pytest.raises(UnavailableError, match="ACCESS_REFUSED") as caught:
        await queue.ping()
    assert "hush" not in str(caught.value)
    await queue.close()


async def test_small_messages_are_prefetched_more_and_large_ones_less(broker: RabbitMQ) -> None:
    """A consumer of 2,000 orders takes many small messages at a time, and few of 1,000 orders."""
    queue = await broker.process()
    small, large = Message(b"", 1, START, 1), Message(b"", 1000, START, 1)

    async def most_at_once(consumer: Consumer, messages: int) -> int:
        most = 0
        while messages:
            deliveries = await consumer.receive(2)
            assert deliveries
            await consumer.ack(deliveries)
            most = max(most, len(deliveries))
            messages -= len(deliveries)
        return most

    async with queue.consume(orders_max=2000) as consumer:
        await asyncio.gather(*[queue.publish(small) for _ in range(200)])
        assert await most_at_once(consumer, 200) > 16
        await queue.publish(large)
        await most_at_once(consumer, 1)
        await consumer.receive(0)  # it knows better now
        await asyncio.gather(*[queue.publish(large) for _ in range(20)])
        assert await most_at_once(consumer, 20) <= 3


async def test_a_message_put_there_by_hand_is_delivered_for_what_it_is(broker: RabbitMQ) -> None:
    """The management page publishes without headers, or with ones of other types."""
    queue = await broker.process()
    await queue.ready()
    async with channel_to(broker) as channel:
        by_hand: list[Any] = [
            None,
            {"orders": "many", "accepted_at": -1, "schema": True},
            {"accepted_at": 2**62},  # there is no such year
        ]
        for headers in by_hand:
            channel.send_content(
                commands.Basic.Publish(routing_key=broker.queue_name),
                commands.Basic.Properties(headers=headers),
                b"what?",
            )
        async with queue.consume(orders_max=10) as consumer:
            received = 0
            while received < len(by_hand):
                deliveries = await consumer.receive(2)
                assert deliveries
                assert all(one[1:5] == (b"what?", 0, None, 1) for one in deliveries)
                await consumer.ack(deliveries)
                received += len(deliveries)


def field(name: bytes, value: bytes) -> bytes:
    """Return a field of a table; its value begins with its type."""
    return bytes([len(name)]) + name + value


def long(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def nested(levels: int) -> bytes:
    """Return a table in a table in a table ..."""
    table = b""
    for _ in range(levels):
        table = field(b"n", b"F" + long(table))
    return table


COUNT = field(b"orders", b"l" + struct.pack(">q", 7))
HEADERS = 1 << 13
CORRELATION_ID = 1 << 10
TIMESTAMP = 1 << 6


@pytest.mark.parametrize(
    ("flags", "properties"),
    [
        pytest.param(HEADERS | TIMESTAMP, long(COUNT) + b"\x7f" + b"\xff" * 7, id="no such year"),
        pytest.param(HEADERS | CORRELATION_ID, long(COUNT) + b"\x02\xff\xfe", id="not UTF-8"),
        pytest.param(HEADERS, long(COUNT + field(b"\xff", b"t\1")), id="name not UTF-8"),
        pytest.param(HEADERS, long(field(b"t", b"S" + long(b"\xff")) + COUNT), id="text not UTF-8"),
        pytest.param(
            HEADERS, long(field(b"t", b"T" + b"\x7f" * 8) + COUNT), id="header of no year"
        ),
        pytest.param(HEADERS, long(COUNT + nested(1_500)), id="tables in tables"),
        pytest.param(
            HEADERS,
            long(
                field(b"a", b"A" + long(b"V" * 9))
                + field(b"x", b"x" + long(b"\0\xff"))
                + field(b"d", b"d" + struct.pack(">d", 0.5))
                + field(b"f", b"f" + struct.pack(">f", 0.5))
                + field(b"D", b"D\xff\xff\xff\xff\xff")
                + field(b"s", b"s\xff\xff")
                + field(b"b", b"b\xff")
                + field(b"I", b"I\xff\xff\xff\xff")
                + field(b"", b"V")
                + COUNT
            ),
            id="every type",
        ),
    ],
)
async def test_properties_that_nobody_can_read_harm_no_neighbor(
    broker: RabbitMQ, flags: int, properties: bytes
) -> None:
    """A message comes with what can be read of its properties, and so does the next one."""
    queue = await broker.process()
    await queue.ready()
    body = b"what?"
    async with channel_to(broker) as channel:
        channel.send(commands.Basic.Publish(routing_key=broker.queue_name))
        for kind, payload in (
            (2, struct.pack(">HHQH", 60, 0, len(body), flags) + properties),
            (3, body),
        ):
            channel._connection.write(  # pamqp refuses to send it
                struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"
            )
        await channel.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        await _is_received_with_its_neighbor(queue, orders=7)


async def test_a_routing_key_that_nobody_can_read_harms_no_neighbor(broker: RabbitMQ) -> None:
    """A binding may bring messages under any key."""
    queue = await broker.process()
    await queue.ready()
    async with channel_to(broker) as channel:
        await channel.call(
            commands.Queue.Bind(queue=broker.queue_name, exchange="amq.fanout"),
            commands.Queue.BindOk,
        )
        publish = struct.pack(">HHH", 60, 40, 0) + b"\x0aamq.fanout" + b"\x02\xff\xfe" + b"\0"
        header = struct.pack(">HHQH", 60, 0, 0, HEADERS) + long(COUNT)
        for kind, payload in ((1, publish), (2, header)):
            channel._connection.write(  # pamqp refuses to send it
                struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"
            )
        await channel.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        await _is_received_with_its_neighbor(queue, orders=7)


async def _is_received_with_its_neighbor(queue: Queue, *, orders: int) -> None:
    await eventually(lambda: _is_ready(queue))
    await queue.publish(MESSAGE)
    received: list[Delivery] = []
    async with queue.consume(orders_max=100) as consumer:
        while len(received) < 2:
            deliveries = await consumer.receive(2)
            assert deliveries
            received += deliveries
        await consumer.ack(received)
    assert [orders, 1] == [delivery.orders for delivery in received]
    assert await queue.ready() == 0


async def _is_ready(queue: Queue) -> None:
    assert await queue.ready() == 1


async def test_a_count_that_is_none_holds_up_no_neighbor(broker: RabbitMQ) -> None:
    """A number of orders that nobody can have does not shrink what is taken at a time."""
    queue = await broker.process()
    await asyncio.gather(*[queue.publish(MESSAGE) for _ in range(20)])
    await queue.publish(MESSAGE._replace(orders=2**62))
    async with queue.consume(orders_max=2000) as consumer:
        for _ in range(21):
            await consumer.ack(await consumer.receive(0))
        await eventually(lambda: _is_passed(queue, consumer))
        await asyncio.gather(*[queue.publish(MESSAGE) for _ in range(40)])
        await consumer.receive(0)
        await eventually(lambda: _are_all_taken(queue))


async def _is_passed(queue: Queue, consumer: Consumer) -> None:
    await consumer.ack(await consumer.receive(0))
    assert await queue.ready() == 0


async def _are_all_taken(queue: Queue) -> None:
    assert await queue.ready() == 0


async def test_a_link_that_is_silent_is_given_up(
    broker: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that waits hears by missing heartbeats that its broker is gone."""
    monkeypatch.setattr("polyglot_persistence.adapters.rabbitmq.connection.HEARTBEAT_SECONDS", 1)
    queue = await broker.process()
    async with queue.consume(orders_max=10) as consumer:
        await consumer.receive(0)
        broker.stall()
        with pytest.raises(UnavailableError):
            await _receive_for_ever(consumer)
        broker.resume()
    await eventually(lambda: queue.publish(MESSAGE), retried=AWAY)


async def _receive_for_ever(consumer: Consumer) -> None:
    while True:
        await consumer.receive(1)


async def test_a_connection_that_is_only_idle_is_kept(
    broker: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats keep both sides content."""
    monkeypatch.setattr("polyglot_persistence.adapters.rabbitmq.connection.HEARTBEAT_SECONDS", 1)
    connection = await open_connection(
        read_rabbitmq(broker.url), connect_timeout_seconds=5, timeout_seconds=5
    )
    channel = await connection.channel(Deaf())
    heard: list[bytes] = []
    hear = AmqpConnection.data_received

    def noted(one: AmqpConnection, data: bytes) -> None:
        heard.append(data)
        hear(one, data)

    monkeypatch.setattr(AmqpConnection, "data_received", noted)
    # The broker sends two a second: it is longer than either side would bear silence.
    await eventually_true(lambda: len(heard) > 6, what="heartbeats")
    assert connection.closed_because == ""
    await channel.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    await connection.close()
