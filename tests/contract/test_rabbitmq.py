"""What is particular to the queue over RabbitMQ; the contract is in test_queue.py."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from pamqp import commands, frame
from pamqp.header import ContentHeader, ProtocolHeader

from polyglot_persistence.adapters.rabbitmq.address import parse_address
from polyglot_persistence.adapters.rabbitmq.channel import AmqpChannel, ChannelListener, Content
from polyglot_persistence.adapters.rabbitmq.connection import AmqpConnection, open_connection
from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue
from polyglot_persistence.domain import codec
from polyglot_persistence.errors import (
    ConfigurationError,
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.ports import Consumer, Message
from tests.support.certificates import certificate_for_loopback
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.queues import Deaf, RabbitMQ, broker_url, closing

AWAY = (UnavailableError, UnknownOutcomeError)
MESSAGE = Message(b"[]", 1, START, codec.SCHEMA_VERSION)


@pytest_asyncio.fixture(
    params=[
        pytest.param("TEST_RABBITMQ_URL", marks=pytest.mark.servers, id="rabbitmq"),
        pytest.param("TEST_RABBITMQ4_URL", marks=pytest.mark.servers, id="rabbitmq4"),
    ]
)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[RabbitMQ]:
    async with closing(RabbitMQ(broker_url(request.param))) as broker:
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
        parse_address(broker.url), connect_timeout_seconds=5, timeout_seconds=5
    )
    try:
        yield await connection.channel(listener or Deaf())
    finally:
        await connection.close()


# --- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://broker", ("broker", 5672, "guest", "guest", "/", False)),
        ("amqp://u:p%40ss@broker:1/", ("broker", 1, "u", "p@ss", "/", False)),
        ("amqps://u:p@broker/orders", ("broker", 5671, "u", "p", "orders", True)),
        ("amqp://u:@broker/%2Fa", ("broker", 5672, "u", "", "/a", False)),
    ],
)
def test_an_address_is_read(text: str, expected: tuple[object, ...]) -> None:
    """A URL says host, port, user, password, virtual host and TLS, with the protocol's defaults."""
    assert tuple(parse_address(text)) == expected


@pytest.mark.parametrize(
    "text", ["http://u:hush@b", "u:hush@b", "amqp://u:hush@b:x", "amqp://u:hush@b/?heartbeat=9"]
)
def test_a_bad_address_is_refused_without_its_password(text: str) -> None:
    """What cannot be read, or would be ignored, is a configuration error that tells no secret."""
    with pytest.raises(ConfigurationError) as caught:
        parse_address(text)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(parse_address("amqp://u:hush@broker"))


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
    address = parse_address(broker.url)
    queue = RabbitMQQueue(
        f"amqp://nobody:hush@{address.host}:{address.port}/",
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
        for headers in (None, {"orders": "many", "accepted_at": -1, "schema": True}):
            channel.send_content(
                commands.Basic.Publish(routing_key=broker.queue_name),
                commands.Basic.Properties(headers=headers),  # type: ignore[arg-type]
                b"what?",
            )
        async with queue.consume(orders_max=10) as consumer:
            for _ in range(2):
                [delivery] = await consumer.receive(2)
                assert delivery[1:5] == (b"what?", 0, None, 1)
                await consumer.ack([delivery])


async def test_a_link_that_is_silent_is_given_up(
    broker: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that waits hears by missing heartbeats that its broker is gone."""
    monkeypatch.setattr("polyglot_persistence.adapters.rabbitmq.connection.HEARTBEAT_SECONDS", 1)
    queue = await broker.process()
    async with queue.consume(orders_max=10) as consumer:
        await consumer.receive(0)
        broker.stall()
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            await _receive_for_ever(consumer)
        assert time.monotonic() - started < 4
        broker.resume()
    await eventually(lambda: queue.publish(MESSAGE), within_seconds=2, retried=AWAY)


async def _receive_for_ever(consumer: Consumer) -> None:
    while True:
        await consumer.receive(1)


async def test_a_connection_that_is_only_idle_is_kept(
    broker: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats keep both sides content."""
    monkeypatch.setattr("polyglot_persistence.adapters.rabbitmq.connection.HEARTBEAT_SECONDS", 1)
    connection = await open_connection(
        parse_address(broker.url), connect_timeout_seconds=5, timeout_seconds=5
    )
    channel = await connection.channel(Deaf())
    await asyncio.sleep(3.5)  # longer than either side would bear silence
    assert connection.closed_because == ""
    await channel.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    await connection.close()


# --- against a broker that says what no real one can be brought to say at will ---------------

Answer = Callable[[commands.Connection | Any], list[Any]]


class ScriptedBroker:
    """Speaks the handshake; to each method on a channel it answers as it is told."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[str, Callable[[Any], list[Any]]] = {
            "Channel.Open": lambda _: [commands.Channel.OpenOk()],
            "Confirm.Select": lambda _: [commands.Confirm.SelectOk()],
            "Queue.Declare": lambda _: [commands.Queue.DeclareOk("order_queue", 0, 0)],
        }
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, method: Any, channel: int = 0) -> None:
        """Say something unasked, on every connection."""
        for writer in self._writers:
            writer.write(frame.marshal(method, channel))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await reader.readexactly(len(ProtocolHeader().marshal()))
        start = commands.Connection.Start(server_properties={"product": "script", "version": "0"})
        writer.write(frame.marshal(start, 0))
        buffer = b""
        published = 0
        while data := await reader.read(65_536):
            buffer += data
            while len(buffer) >= 8:
                size = 8 + int.from_bytes(buffer[3:7])
                if len(buffer) < size:
                    break
                _, number, method = frame.unmarshal(buffer[:size])
                buffer = buffer[size:]
                published += method.name == "Basic.Publish"
                for answer in self._answer(method, published):
                    writer.write(frame.marshal(answer, number))
        writer.close()

    def _answer(self, method: Any, published: int) -> list[Any]:
        match method:
            case commands.Connection.StartOk():
                return [commands.Connection.Tune(10, 131_072, 60)]
            case commands.Connection.Open():
                return [commands.Connection.OpenOk()]
            case commands.Connection.Close():
                return [commands.Connection.CloseOk()]
        answer = self.answers.get(method.name)
        return answer(published) if answer else []


@asynccontextmanager
async def scripted_queue(
    *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[ScriptedBroker, RabbitMQQueue]]:
    broker = ScriptedBroker()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(broker.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    scheme = "amqps" if tls else "amqp"
    queue = RabbitMQQueue(
        f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        connect_timeout_seconds=2,
        publish_timeout_seconds=0.3,
    )
    try:
        yield broker, queue
    finally:
        await queue.close()
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_runs_on_either_event_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The processes run on uvloop, whose transports are of another kind than asyncio's."""

    async def publish() -> None:
        async with scripted_queue() as (broker, queue):
            broker.answers["Basic.Publish"] = lambda tag: [commands.Basic.Ack(tag)]
            await queue.publish(MESSAGE)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(publish())


async def test_a_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS a broker of an unknown authority is no broker; a known one is."""
    certificate, tls = certificate_for_loopback(tmp_path)
    async with scripted_queue(tls=tls) as (_, queue):
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await queue.ping()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with scripted_queue(tls=tls) as (_, queue):
        assert (await queue.ping()).version == "script 0"


async def test_a_blocked_broker_refuses_before_anything_is_sent() -> None:
    """While an alarm lasts nothing is sent and nobody waits; when it is over all is well."""
    async with scripted_queue() as (broker, queue):
        broker.answers["Basic.Publish"] = lambda tag: [commands.Basic.Ack(tag)]
        await queue.publish(MESSAGE)
        broker.say(commands.Connection.Blocked("low on memory"))
        await eventually(lambda: _is_refused(queue, "low on memory"), within_seconds=2)
        for asking in (queue.ping(), queue.ready()):
            with pytest.raises(UnavailableError, match="low on memory"):
                await asking
        broker.say(commands.Connection.Unblocked())
        await eventually(lambda: queue.publish(MESSAGE), within_seconds=2, retried=AWAY)


async def _is_refused(queue: RabbitMQQueue, reason: str) -> None:
    try:
        await queue.publish(MESSAGE)
    except UnavailableError as error:
        assert reason in str(error)  # noqa: PT017  # it may not have heard yet
    else:
        raise AssertionError("published")


async def test_a_publish_that_meets_the_alarm_is_unknown_and_keeps_the_connection() -> None:
    """It was sent and may yet be read; its late confirm disturbs nobody."""
    async with scripted_queue() as (broker, queue):
        await queue.ready()
        broker.answers["Basic.Publish"] = lambda _: []
        waiting = asyncio.create_task(queue.publish(MESSAGE))
        await asyncio.sleep(0)
        broker.say(commands.Connection.Blocked("alarm"))
        with pytest.raises(UnknownOutcomeError):
            await waiting
        broker.say(commands.Basic.Ack(1), channel=2)
        broker.say(commands.Connection.Unblocked())
        broker.answers["Basic.Publish"] = lambda tag: [commands.Basic.Ack(tag)]
        await eventually(lambda: queue.publish(MESSAGE), within_seconds=2, retried=AWAY)
        assert len(broker._writers) == 1


async def test_a_confirm_of_many_confirms_all_up_to_it() -> None:
    """`multiple` answers every message that was sent before."""
    async with scripted_queue() as (broker, queue):
        broker.answers["Basic.Publish"] = lambda tag: (
            [commands.Basic.Ack(tag, multiple=True)] if tag == 3 else []
        )
        await asyncio.gather(*[queue.publish(MESSAGE) for _ in range(3)])


async def test_a_negative_confirm_is_an_unknown_outcome() -> None:
    """The broker could not take care of the message and does not say what became of it."""
    async with scripted_queue() as (broker, queue):
        broker.answers["Basic.Publish"] = lambda tag: [commands.Basic.Nack(tag)]
        with pytest.raises(UnknownOutcomeError):
            await queue.publish(MESSAGE)


async def test_a_channel_that_dies_leaves_publishes_unknown_and_is_replaced() -> None:
    """An error on the channel fails what waits there; the next publish has a new one."""
    async with scripted_queue() as (broker, queue):
        broker.answers["Basic.Publish"] = lambda _: [
            commands.Channel.Close(541, "INTERNAL_ERROR", 0, 0)
        ]
        with pytest.raises(UnknownOutcomeError, match="INTERNAL_ERROR"):
            await queue.publish(MESSAGE)
        broker.answers["Basic.Publish"] = lambda tag: [commands.Basic.Ack(tag)]
        await queue.publish(MESSAGE)


async def test_a_consumer_that_hears_nothing_takes_a_new_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker may deliver to a ghost of it; only a consumer that holds nothing begins anew."""
    monkeypatch.setattr("polyglot_persistence.adapters.rabbitmq.consumer._QUIET_SECONDS_MAX", 0.05)
    channels = 0

    def open_channel(_: int) -> list[Any]:
        nonlocal channels
        channels += 1
        return [commands.Channel.OpenOk()]

    def consume(_: int) -> list[Any]:
        if channels < 3:
            return [commands.Basic.ConsumeOk("1")]
        deliver = commands.Basic.Deliver("1", 1, routing_key="order_queue")
        return [commands.Basic.ConsumeOk("1"), deliver, ContentHeader()]

    async with scripted_queue() as (broker, queue):
        broker.answers |= {
            "Channel.Open": open_channel,
            "Channel.Close": lambda _: [commands.Channel.CloseOk()],
            "Basic.Qos": lambda _: [commands.Basic.QosOk()],
            "Basic.Cancel": lambda _: [commands.Basic.CancelOk("1")],
            "Basic.Consume": consume,
        }
        async with queue.consume(orders_max=1) as consumer:
            assert list(await consumer.receive(0.1)) == []
            assert list(await consumer.receive(0.1)) == []
            assert len(await consumer.receive(0.1)) == 1
            assert list(await consumer.receive(0.1)) == []
            assert list(await consumer.receive(0.1)) == []
    assert channels == 3


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"AMQP\x00\x01\x00\x00",
        b"\x01\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff\xce",
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a\x00",
        b"\x01\x00\x07\x00\x00\x00\x04\x00\x0a\x00\x33\xce",
    ],
)
async def test_what_is_not_amqp_is_left(garbage: bytes) -> None:
    """Another protocol, a broken frame or a channel nobody opened ends the attempt at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)
        await reader.read()
        writer.close()
        await writer.wait_closed()

    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(
        lambda r, w: tasks.add(asyncio.create_task(serve(r, w))), "127.0.0.1", 0
    )
    address = parse_address(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(UnavailableError, match="not AMQP"):
        await open_connection(address, connect_timeout_seconds=2, timeout_seconds=2)
    server.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_frames_may_come_in_any_pieces() -> None:
    """Byte by byte is the same as all at once."""
    data = b"".join(
        frame.marshal(one, 0)
        for one in (
            commands.Connection.Start(server_properties={"version": "1"}),
            commands.Connection.Tune(10, 131_072, 60),
            commands.Connection.OpenOk(),
            commands.Connection.Blocked("no memory"),
        )
    )
    connection = AmqpConnection(parse_address("amqp://broker"), timeout_seconds=1)
    for byte in data:
        connection.data_received(bytes([byte]))
    await connection.opened()
    assert connection.blocked_because == "no memory"
    connection.fail("the test is over")
