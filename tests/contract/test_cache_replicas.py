"""When what a cache has accepted outlives its server: any of its replicas may be promoted."""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.cache import Cache
from tests.simulation.stores.cache import SimulatedCache
from tests.simulation.stores.valkey import Fsync, ValkeyAddress, ValkeyServer
from tests.support.addresses import SIMULATED
from tests.support.cache import AWAY, new_client
from tests.support.eventually import eventually
from tests.support.orders import accepted, single
from tests.support.processes import free_port
from tests.support.servers import redis_command, running, short_directory


class Primary(ABC):
    """A cache, its server, and two replicas of it."""

    cache: Cache

    async def survives(self) -> bool:
        """Whether an order that is accepted now outlives the server."""
        reply = await self.cache.accept([single(accepted())])
        return reply.durable and await self.cache.survives_failover(reply.reign)

    @abstractmethod
    def stall(self, replica: int) -> None:
        """Let a replica stand still, and take nothing."""

    @abstractmethod
    async def leave(self, replica: int) -> None:
        """Let a replica go, and the server know it."""

    @abstractmethod
    async def let_an_hour_pass(self) -> None:
        """Let what was noted of replicas be forgotten."""

    @abstractmethod
    async def refuse_memory(self) -> None:
        """Let the server be at its memory limit, and the cache connect to it anew."""

    @abstractmethod
    async def set_fsync(self, fsync: Fsync) -> None:
        """Change it while the server runs."""

    @abstractmethod
    async def restart_alone(self) -> None:
        """Restart the server; its replicas do not come back."""


class RealPrimary(Primary):
    """Of three servers."""

    def __init__(self, client: RedisClient, server: EmbeddedValkey) -> None:
        self.client, self.server = client, server
        self.cache = RedisCache(client)
        self.replicas: list[EmbeddedValkey] = []

    def stall(self, replica: int) -> None:
        pid = self.replicas[replica].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

    async def leave(self, replica: int) -> None:
        await self.replicas[replica].stop()

        async def is_gone() -> None:
            info = await redis_command(self.server.url, "INFO", "replication")
            assert b"connected_slaves:1" in info

        await eventually(is_gone, within_seconds=10)

    async def let_an_hour_pass(self) -> None:
        await redis_command(self.server.url, "DEL", "polyglot:replicated")

    async def refuse_memory(self) -> None:
        await redis_command(self.server.url, "CONFIG", "SET", "maxmemory", "1")
        (await self.client.connection()).close("lost")

    async def set_fsync(self, fsync: Fsync) -> None:
        await redis_command(self.server.url, "CONFIG", "SET", "appendfsync", fsync)

    async def restart_alone(self) -> None:
        await self.server.stop()
        await self.server.start()
        await eventually(self.cache.ping, within_seconds=5, retried=AWAY)

    async def begin(self, resources: AsyncExitStack) -> None:
        """Start the replicas."""
        port = free_port()
        await redis_command(self.server.url, "CONFIG", "SET", "port", str(port))
        for _ in range(2):
            directory = resources.enter_context(short_directory())
            replica = type(self.server)(directory / "data")
            await resources.enter_async_context(running(replica))
            await redis_command(replica.url, "REPLICAOF", "127.0.0.1", str(port))
            await eventually(lambda r=replica: _is_linked(r), within_seconds=20)  # type: ignore[misc]
            self.replicas.append(replica)

    def go_on(self) -> None:
        """Let every replica go on."""
        for replica in self.replicas:
            if replica.pid is not None:
                os.kill(replica.pid, signal.SIGCONT)


class SimulatedPrimary(Primary):
    """The same of simulated servers."""

    def __init__(self) -> None:
        clock = SystemClock()
        self._server = ValkeyServer(clock, "primary")
        self._replicas = [ValkeyServer(clock, f"replica {n}") for n in range(2)]
        for replica in self._replicas:
            replica.replicate(self._server)
        self.cache = SimulatedCache(ValkeyAddress(self._server))

    def stall(self, replica: int) -> None:
        self._replicas[replica].stands_still = True

    async def leave(self, replica: int) -> None:
        self._replicas[replica].cut_off()

    async def let_an_hour_pass(self) -> None:
        with self._server.effect():
            self._server.replicated.clear()

    async def refuse_memory(self) -> None:
        self._server.is_full = True
        self._server.cut_connections()

    async def set_fsync(self, fsync: Fsync) -> None:
        self._server.fsync = fsync

    async def restart_alone(self) -> None:
        for replica in self._replicas:
            replica.cut_off()
        self._server.stop()
        self._server.start()


async def _is_linked(replica: EmbeddedValkey) -> None:
    assert b"master_link_status:up" in await redis_command(replica.url, "INFO", "replication")


@pytest_asyncio.fixture(params=["bundled", SIMULATED])
async def primary(
    request: pytest.FixtureRequest, own_server: EmbeddedValkey
) -> AsyncIterator[Primary]:
    if request.param == SIMULATED:
        simulated = SimulatedPrimary()
        await simulated.cache.ping()
        yield simulated
        return
    async with AsyncExitStack() as resources:
        client = new_client(own_server.url)
        resources.push_async_callback(client.close)
        primary = RealPrimary(client, own_server)
        resources.callback(primary.go_on)
        await primary.begin(resources)
        await primary.cache.ping()
        try:
            yield primary
        finally:
            primary.go_on()


async def test_every_replica_must_have_confirmed(primary: Primary) -> None:
    """The one that lags may be promoted, and the other one be told to follow it."""
    assert await primary.survives()
    primary.stall(0)
    assert not await primary.survives()


async def test_a_replica_that_left_must_have_confirmed_as_well(primary: Primary) -> None:
    """It lacks what the other one has, and may be promoted for an hour."""
    assert await primary.survives()
    await primary.leave(0)
    await primary.cache.ping()
    assert not await primary.survives()
    await primary.let_an_hour_pass()
    assert await primary.survives()


async def test_a_replica_that_left_before_any_ping_is_not_known(primary: Primary) -> None:
    """Nobody has counted it: the other one is enough (docs/architecture.md says so)."""
    await primary.let_an_hour_pass()
    await primary.leave(0)
    await primary.cache.ping()
    assert await primary.survives()


async def test_a_server_that_does_not_fsync_any_more_is_not_enough(primary: Primary) -> None:
    """It is asked anew, whatever it was when the order was accepted."""
    reign = (await primary.cache.accept([single(accepted())])).reign
    await primary.set_fsync("everysec")
    assert not await primary.cache.survives_failover(reign)
    await primary.set_fsync("always")
    assert await primary.cache.survives_failover(reign)


async def test_a_write_that_is_refused_confirms_nothing(primary: Primary) -> None:
    """WAIT counts from the last write of a connection, and a new one has made none."""
    reign = (await primary.cache.accept([single(accepted())])).reign
    for replica in range(2):
        primary.stall(replica)
    await primary.refuse_memory()
    assert not await primary.cache.survives_failover(reign)


async def test_a_restarted_primary_remembers_that_it_had_replicas(primary: Primary) -> None:
    """It says that it has none, and had none, until the first one is back."""
    await primary.restart_alone()
    assert not await primary.survives()
    await primary.let_an_hour_pass()
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


@pytest.mark.parametrize("primary", ["bundled"], indirect=True)
async def test_a_primary_that_would_go_on_without_its_replicas_is_told(
    primary: Primary, own_server: EmbeddedValkey
) -> None:
    """With two of them the loss of one stops nothing; with one there is no such advice."""
    setting = "min-replicas-to-write"
    assert setting in str((await primary.cache.ping()).warnings)
    await redis_command(own_server.url, "CONFIG", "SET", setting, "1")
    assert setting not in str((await primary.cache.ping()).warnings)
    await redis_command(own_server.url, "CONFIG", "SET", setting, "0")
    await primary.leave(0)
    assert setting not in str((await primary.cache.ping()).warnings)
