"""When what a cache has accepted outlives its server: any of its replicas may be promoted."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import UnavailableError
from tests.support.cache import AWAY, new_client
from tests.support.eventually import eventually
from tests.support.orders import accepted, single
from tests.support.processes import free_port
from tests.support.servers import redis_command, running, short_directory


class Primary:
    """A cache, its server, and two replicas of it."""

    def __init__(self, client: RedisClient, server: EmbeddedValkey) -> None:
        self.client, self.server = client, server
        self.cache = RedisCache(client)
        self.replicas: list[EmbeddedValkey] = []

    async def survives(self) -> bool:
        """Whether an order that is accepted now outlives the server."""
        reply = await self.cache.accept([single(accepted())])
        return reply.durable and await self.cache.survives_failover(reply.reign)

    def stall(self, replica: EmbeddedValkey) -> None:
        assert replica.pid is not None
        os.kill(replica.pid, signal.SIGSTOP)


async def _is_linked(replica: EmbeddedValkey) -> None:
    assert b"master_link_status:up" in await redis_command(replica.url, "INFO", "replication")


@pytest_asyncio.fixture
async def primary(own_server: EmbeddedValkey) -> AsyncIterator[Primary]:
    async with AsyncExitStack() as resources:
        client = new_client(own_server.url)
        resources.push_async_callback(client.close)
        primary = Primary(client, own_server)
        port = free_port()
        await redis_command(own_server.url, "CONFIG", "SET", "port", str(port))
        for _ in range(2):
            directory = resources.enter_context(short_directory())
            replica = type(own_server)(directory / "data")
            await resources.enter_async_context(running(replica))
            await redis_command(replica.url, "REPLICAOF", "127.0.0.1", str(port))
            await eventually(lambda r=replica: _is_linked(r), within_seconds=20)  # type: ignore[misc]
            primary.replicas.append(replica)
        await primary.cache.ping()
        try:
            yield primary
        finally:
            for replica in primary.replicas:
                if replica.pid is not None:
                    os.kill(replica.pid, signal.SIGCONT)


async def test_every_replica_must_have_confirmed(primary: Primary) -> None:
    """The one that lags may be promoted, and the other one be told to follow it."""
    assert await primary.survives()
    primary.stall(primary.replicas[0])
    assert not await primary.survives()


async def test_a_replica_that_left_must_have_confirmed_as_well(primary: Primary) -> None:
    """It lacks what the other one has, and may be promoted for an hour."""
    assert await primary.survives()
    await primary.replicas[0].stop()

    async def is_gone() -> None:
        info = await redis_command(primary.server.url, "INFO", "replication")
        assert b"connected_slaves:1" in info

    await eventually(is_gone, within_seconds=10)
    await primary.cache.ping()
    assert not await primary.survives()
    await redis_command(primary.server.url, "DEL", "polyglot:replicated")  # an hour has passed
    assert await primary.survives()


async def test_a_write_that_is_refused_confirms_nothing(primary: Primary) -> None:
    """WAIT counts from the last write of a connection, and a new one has made none."""
    reign = (await primary.cache.accept([single(accepted())])).reign
    for replica in primary.replicas:
        primary.stall(replica)
    await redis_command(primary.server.url, "CONFIG", "SET", "maxmemory", "1")
    (await primary.client.connection()).close("lost")
    assert not await primary.cache.survives_failover(reign)


async def test_a_restarted_primary_remembers_that_it_had_replicas(primary: Primary) -> None:
    """It says that it has none, and had none, until the first one is back."""
    await primary.server.stop()
    await primary.server.start()
    await eventually(primary.cache.ping, within_seconds=5, retried=AWAY)
    assert not await primary.survives()
    await redis_command(primary.server.url, "DEL", "polyglot:replicated")  # an hour has passed
    assert await primary.survives()


async def test_a_server_that_forbids_info_is_not_taken_for_a_replica(
    own_server: EmbeddedValkey,
) -> None:
    """The operator reads what is wrong: many a role lacks the category @dangerous."""
    rules = ("reset", "on", "nopass", "~*", "+@all", "-info")
    await redis_command(own_server.url, "ACL", "SETUSER", "default", *rules)
    client = new_client(own_server.url)
    try:
        with pytest.raises(UnavailableError, match=r"NOPERM.*info"):
            await RedisCache(client).ping()
    finally:
        await client.close()
