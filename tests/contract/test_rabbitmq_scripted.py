"""The queue over RabbitMQ against a broker that says what no real one can be brought to say."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pamqp import commands, frame
from pamqp.header import ContentHeader

from polyglot_persistence.adapters.rabbitmq.connection import AmqpConnection, open_connection
from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue
from polyglot_persistence.config.addresses.rabbitmq import read_rabbitmq
from polyglot_persistence.domain import codec
from polyglot_persistence.errors import (
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.ports.queue import Message
from tests.support.certificates import certificate_for_loopback
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.scripted_broker import scripted_queue

AWAY = (UnavailableError, UnknownOutcomeError)
MESSAGE = Message(b"[]", 1, START, codec.SCHEMA_VERSION)


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
    certificate, _, tls = certificate_for_loopback(tmp_path)
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
        await eventually(lambda: _is_refused(queue, "low on memory"))
        for asking in (queue.ping(), queue.ready()):
            with pytest.raises(UnavailableError, match="low on memory"):
                await asking
        broker.say(commands.Connection.Unblocked())
        await eventually(lambda: queue.publish(MESSAGE), retried=AWAY)


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
        await eventually(lambda: queue.publish(MESSAGE), retried=AWAY)
        assert len(broker.connections) == 1


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


async def test_a_negative_confirm_is_the_last_one_of_its_connection() -> None:
    """A channel that was opened while the queue had no leader would refuse everything for ever."""
    async with scripted_queue() as (broker, queue):
        broker.answers["Basic.Publish"] = lambda tag: [
            commands.Basic.Nack(tag) if len(broker.connections) == 1 else commands.Basic.Ack(tag)
        ]
        with pytest.raises(UnknownOutcomeError):
            await queue.publish(MESSAGE)
        await queue.publish(MESSAGE)
        assert len(broker.connections) == 2


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
            while not (delivered := await consumer.receive(0.1)):
                pass
            assert len(delivered) == 1
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
    address = read_rabbitmq(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
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
    connection = AmqpConnection(read_rabbitmq("amqp://broker"), timeout_seconds=1)
    for byte in data:
        connection.data_received(bytes([byte]))
    await connection.opened()
    assert connection.blocked_because == "no memory"
    connection.fail("the test is over")


async def test_every_node_has_a_share_of_the_time_and_is_named_if_it_is_not_there() -> None:
    """The first one is another at each attempt; a silent one leaves time for the next."""
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel takes connections for it
    place = f"127.0.0.1:{silent.getsockname()[1]}"
    address = read_rabbitmq(f"amqp://user:hush@{place},127.0.0.1:1/")
    first = set()
    for _ in range(20):
        with pytest.raises(UnavailableError) as caught:
            await open_connection(address, connect_timeout_seconds=0.2, timeout_seconds=1)
        text = str(caught.value)
        assert f"RabbitMQ at {place}: no connection within" in text
        assert "RabbitMQ at 127.0.0.1:1: [Errno 111]" in text
        assert "hush" not in text
        first.add(text.startswith(f"RabbitMQ at {place}"))
    silent.close()
    assert first == {True, False}
