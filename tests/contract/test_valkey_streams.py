"""What is particular to the queue over Valkey Streams; the contract is in test_queue.py."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.valkey_streams import queue as queue_module
from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue
from polyglot_persistence.adapters.valkey_streams.stream import GROUP, STREAM
from polyglot_persistence.domain import codec
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import Delivery, Message
from tests.support.eventually import WAIT_SECONDS, eventually
from tests.support.orders import START
from tests.support.servers import running, short_directory

MESSAGE = Message(b"[]", 1, START, codec.SCHEMA_VERSION)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedValkey]:
    with short_directory() as directory:
        async with running(EmbeddedValkey(directory / "valkey")) as server:
            yield server


def new_client(server: EmbeddedValkey) -> RedisClient:
    return RedisClient(server.url, connect_timeout_seconds=2, command_timeout_seconds=2)


@pytest_asyncio.fixture
async def client(server: EmbeddedValkey) -> AsyncIterator[RedisClient]:
    client = new_client(server)
    yield client
    await client.close()


@pytest.fixture
def queue(server: EmbeddedValkey, client: RedisClient) -> ValkeyStreamsQueue:
    return ValkeyStreamsQueue(client, lambda: new_client(server))


async def consumer_names(client: RedisClient) -> list[bytes]:
    consumers: list[Any] = await client.execute("XINFO", "CONSUMERS", STREAM, GROUP)
    return [consumer[1] for consumer in consumers]


async def test_nothing_is_left_of_a_message_and_a_consumer_that_are_done(
    queue: ValkeyStreamsQueue, client: RedisClient
) -> None:
    """An acknowledged message leaves the stream, a consumer that left leaves the group."""
    await queue.publish(MESSAGE)
    async with queue.consume(orders_max=10) as consumer:
        await consumer.ack(await consumer.receive(2))
        assert len(await consumer_names(client)) == 1
    assert await client.execute("XLEN", STREAM) == 0
    assert await consumer_names(client) == []


async def test_names_of_consumers_that_died_long_ago_are_removed(
    queue: ValkeyStreamsQueue, client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash loop does not fill the group with names."""
    await queue.publish(MESSAGE)
    async with queue.consume(orders_max=10) as consumer:
        await consumer.ack(await consumer.receive(2))
        await client.execute("XGROUP", "CREATECONSUMER", STREAM, GROUP, "dead")
    assert await consumer_names(client) == [b"dead"]
    monkeypatch.setattr(queue_module, "CONSUMER_SILENT_MS", -1)
    async with queue.consume(orders_max=10):
        assert await consumer_names(client) == []


async def test_what_could_not_be_handed_back_is_handed_back_by_the_next_consumer(
    queue: ValkeyStreamsQueue, server: EmbeddedValkey
) -> None:
    """A server that was away when a worker left costs no wait for the silent-consumer bound."""
    await queue.publish(MESSAGE)
    async with queue.consume(orders_max=10) as consumer:
        assert len(await consumer.receive(WAIT_SECONDS)) == 1
        await server.stop()
    await server.start()

    async def receive() -> None:
        async with queue.consume(orders_max=10) as consumer:
            [delivery] = await consumer.receive(0)
            assert delivery.redeliveries == 1

    await eventually(receive, retried=(UnavailableError, UnknownOutcomeError))


async def test_at_the_memory_limit_publishing_is_refused_and_draining_goes_on(
    queue: ValkeyStreamsQueue, client: RedisClient
) -> None:
    """What makes room is allowed where nothing else is."""
    await queue.publish(MESSAGE)
    await queue.publish(MESSAGE)
    await client.execute("CONFIG", "SET", "maxmemory", "1000")
    with pytest.raises(UnavailableError, match="OOM"):
        await queue.publish(MESSAGE)
    async with queue.consume(orders_max=10) as consumer:
        first, second = await consumer.receive(WAIT_SECONDS)
        await consumer.release([first])
        await consumer.ack([second])
        assert await queue.ready() == 1
        await consumer.ack(await consumer.receive(2))
    assert await queue.ready() == 0
    assert await client.execute("XLEN", STREAM) == 0


async def test_an_entry_without_the_fields_is_delivered_for_what_it_is(
    queue: ValkeyStreamsQueue, client: RedisClient
) -> None:
    """What somebody put there by hand reaches the worker, which says what is wrong with it."""
    await client.execute("XADD", STREAM, "*", "orders", "many", "colour", "red")
    async with queue.consume(orders_max=10) as consumer:
        [delivery] = await consumer.receive(WAIT_SECONDS)
    assert delivery[1:5] == (b"", 0, None, 1)


async def test_a_server_that_does_not_fsync_is_warned_of(
    queue: ValkeyStreamsQueue, client: RedisClient
) -> None:
    """The reply to a publish is a confirm only with `appendfsync always`."""
    assert (await queue.ping()).warnings == ()
    await client.execute("CONFIG", "SET", "appendfsync", "everysec")
    assert "appendfsync" in (await queue.ping()).warnings[0].remedy


@pytest.mark.parametrize("number", ["9" * 5_000, "9" * 18, "1e9", "-1", ""])
async def test_a_message_with_numbers_that_are_none_is_delivered(
    number: str, queue: ValkeyStreamsQueue, client: RedisClient
) -> None:
    """Fields that anybody may have written are no reason to die: they count as not there."""
    await client.execute("XADD", STREAM, "*", "body", "what?", "accepted_at", number)
    async with queue.consume(orders_max=10) as consumer:
        [delivery] = await consumer.receive(WAIT_SECONDS)
        assert delivery[1:4] == (b"what?", 0, None)
        await consumer.ack([delivery])


@pytest.mark.parametrize(
    "orders", ["1e400", "nan", "-nan", "inf", "-1e9", "0x7fffffff", "9" * 9, "9" * 99, "", "\0"]
)
async def test_a_count_that_is_none_holds_up_no_neighbor(
    orders: str, queue: ValkeyStreamsQueue, client: RedisClient
) -> None:
    """A number of orders that nobody can have is no reason to give out less than there is."""
    await client.execute("XADD", STREAM, "*", "body", "what?", "orders", orders)
    for _ in range(3):
        await queue.publish(MESSAGE)
    async with queue.consume(orders_max=10) as consumer:
        assert len(await consumer.receive(WAIT_SECONDS)) == 4
        await queue.publish(MESSAGE)
        assert len(await consumer.receive(WAIT_SECONDS)) == 1


async def test_a_group_that_was_lost_delivers_again(
    queue: ValkeyStreamsQueue, client: RedisClient
) -> None:
    """What is in the stream when the group is created may have been delivered by another."""
    async with queue.consume(orders_max=10) as consumer:
        await consumer.receive(0)
        await queue.publish(MESSAGE)
        [before] = await consumer.receive(WAIT_SECONDS)
        await client.execute("XGROUP", "DESTROY", STREAM, GROUP)
        await queue.publish(MESSAGE)
    async with queue.consume(orders_max=10) as consumer:
        again, other = await consumer.receive(WAIT_SECONDS)
        await queue.publish(MESSAGE)
        [new] = await consumer.receive(WAIT_SECONDS)
    assert before.tag == again.tag
    assert [one.redeliveries for one in (before, again, other, new)] == [0, 1, 1, 0]


async def test_what_a_restarted_server_has_may_have_been_delivered(
    queue: ValkeyStreamsQueue, client: RedisClient, server: EmbeddedValkey
) -> None:
    """Its log may lack the latest deliveries, as a replica's that was promoted does."""
    async with queue.consume(orders_max=10) as consumer:
        await consumer.receive(0)
        await queue.publish(MESSAGE)
        [before] = await consumer.receive(WAIT_SECONDS)
        # What a log without its tail says of it: that nobody had it.
        [name] = await consumer_names(client)
        await client.execute("XGROUP", "DELCONSUMER", STREAM, GROUP, name)
        await client.execute("XGROUP", "SETID", STREAM, GROUP, "0")
        await server.stop()
    await server.start()

    async def received() -> Sequence[Delivery]:
        async with queue.consume(orders_max=10) as consumer:
            deliveries = await consumer.receive(2)
            await queue.publish(MESSAGE)
            return [*deliveries, *await consumer.receive(2)]

    again, new = await eventually(received, retried=(UnavailableError, UnknownOutcomeError))
    assert before.tag == again.tag
    assert [one.redeliveries for one in (before, again, new)] == [0, 1, 0]


async def test_what_an_older_worker_released_goes_to_a_newer_one(
    queue: ValkeyStreamsQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and to no other of its own version."""
    await queue.publish(MESSAGE._replace(schema=codec.SCHEMA_VERSION + 1))
    async with queue.consume(orders_max=10) as consumer:
        await consumer.release(await consumer.receive(2))
        assert list(await consumer.receive(0)) == []
        assert await queue.ready() == 1
    monkeypatch.setattr(
        "polyglot_persistence.adapters.valkey_streams.consumer.SCHEMA_VERSION",
        codec.SCHEMA_VERSION + 1,
    )
    async with queue.consume(orders_max=10) as consumer:
        [delivery] = await consumer.receive(0)
        assert delivery.redeliveries >= 1
        await consumer.ack([delivery])
    assert await queue.ready() == 0


async def test_a_clock_that_was_set_back_makes_the_count_unknown(
    queue: ValkeyStreamsQueue, client: RedisClient
) -> None:
    """How long a silent worker has held something cannot be told for a while; the rest goes on."""
    async with queue.consume(orders_max=10) as consumer:
        await consumer.receive(0)
        seconds, _ = await client.execute("TIME")
        in_an_hour = f"{int(seconds) + 3600}000-0"
        await client.execute("XADD", STREAM, in_an_hour, "body", "of before")
        assert await queue.ready() == 1  # nobody holds it
        [of_before] = await consumer.receive(WAIT_SECONDS)
        with pytest.raises(UnavailableError, match="clock"):
            await queue.ready()
        await queue.publish(MESSAGE)
        await consumer.ack([of_before, *await consumer.receive(2)])
    assert await client.execute("XLEN", STREAM) == 0
