"""A Valkey and its replica under faults, really and simulated, behind one address.

The address is a symbolic link to a server's socket, so that a failover is a link to another one and
whoever is connected to the old server stays so.
"""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.ports.cache import Cache
from polyglot_persistence.ports.queue import Queue
from tests.simulation.stores.cache import SimulatedCache
from tests.simulation.stores.streams import SimulatedStreams
from tests.simulation.stores.valkey import Fsync, ValkeyAddress, ValkeyServer
from tests.support.addresses import SIMULATED
from tests.support.cache import new_client
from tests.support.eventually import eventually
from tests.support.installed_redis import InstalledRedis
from tests.support.servers import redis_value, running, short_directory


class FaultyValkey(ABC):
    """Two servers: the first is the primary at first, and the second knows nothing of it."""

    @abstractmethod
    async def cache(self) -> Cache:
        """Return the cache of another process, connected to whatever the address means now."""

    @abstractmethod
    async def queue(self) -> Queue:
        """Return the queue of another process."""

    @abstractmethod
    def mark(self) -> None:
        """Remember how long the log is."""

    @abstractmethod
    async def restart_from_mark(self) -> None:
        """Restart the first server without what its log got since."""

    @abstractmethod
    async def wipe(self) -> None:
        """Remove everything, while it runs."""

    @abstractmethod
    async def follow(self) -> None:
        """Make the second server a replica of the first, with all its data."""

    @abstractmethod
    async def cut_off(self) -> None:
        """Let nothing more reach the replica."""

    @abstractmethod
    async def promote(self) -> None:
        """Make the replica a primary, and let the address mean it."""

    @abstractmethod
    async def demote(self) -> None:
        """Make the first server a replica of the second."""

    @abstractmethod
    async def set_fsync(self, fsync: Fsync) -> None:
        """Change it at run time."""

    @abstractmethod
    async def set_policy(self, policy: str) -> None:
        """Change what may be evicted."""

    @abstractmethod
    async def fill(self) -> None:
        """Let the server be at its memory limit; what may be evicted is."""

    @abstractmethod
    async def refuse_writes(self) -> None:
        """Let it answer reads and refuse writes."""


class RealValkey(FaultyValkey):
    """Two servers in directories of their own, on the loopback."""

    def __init__(self, directory: Path, first: EmbeddedValkey, second: EmbeddedValkey) -> None:
        self._directory = directory
        self._first = first
        self._second = second
        self._link = directory / "address"
        self._link.symlink_to(first.socket_path)
        self._clients: list[RedisClient] = []
        self._mark: dict[Path, int] = {}

    async def cache(self) -> Cache:
        client = self._new_client()
        cache = RedisCache(client)
        await client.execute("PING")
        return cache

    async def queue(self) -> Queue:
        return ValkeyStreamsQueue(self._new_client(), self._new_client)

    def mark(self) -> None:
        self._mark = {path: path.stat().st_size for path in self._log()}

    async def restart_from_mark(self) -> None:
        await self._first.stop()
        for path in self._log():
            os.truncate(path, self._mark.get(path, 0))
        await self._first.start()

    async def wipe(self) -> None:
        await redis_value(self._first.url, "FLUSHALL")

    async def follow(self) -> None:
        await self._replicate(self._second, self._first)

    async def cut_off(self) -> None:
        """Take the port away, at which the replica would connect again."""
        await redis_value(self._first.url, "CONFIG", "SET", "port", "0")
        await redis_value(self._first.url, "CLIENT", "KILL", "TYPE", "replica")

        async def gone() -> None:
            assert b"connected_slaves:0" in await redis_value(
                self._first.url, "INFO", "replication"
            )

        await eventually(gone, within_seconds=10)

    async def promote(self) -> None:
        await redis_value(self._second.url, "REPLICAOF", "NO", "ONE")
        self._link.unlink()
        self._link.symlink_to(self._second.socket_path)

    async def demote(self) -> None:
        await self._replicate(self._first, self._second)

    async def set_fsync(self, fsync: Fsync) -> None:
        await redis_value(self._first.url, "CONFIG", "SET", "appendfsync", fsync)

    async def set_policy(self, policy: str) -> None:
        await redis_value(self._first.url, "CONFIG", "SET", "maxmemory-policy", policy)

    async def fill(self) -> None:
        await redis_value(self._first.url, "CONFIG", "SET", "maxmemory", "1")

    async def refuse_writes(self) -> None:
        await redis_value(self._first.url, "CONFIG", "SET", "min-replicas-to-write", "1")

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            await client.close()

    def _new_client(self) -> RedisClient:
        client = new_client(f"unix://{self._link}?db=0")
        self._clients.append(client)
        return client

    def _log(self) -> list[Path]:
        return sorted((self._directory / "first").glob("**/*.incr.aof"))

    async def _replicate(self, replica: EmbeddedValkey, primary: EmbeddedValkey) -> None:
        port = _free_port()
        await redis_value(primary.url, "CONFIG", "SET", "bind", "127.0.0.1")
        await redis_value(primary.url, "CONFIG", "SET", "port", str(port))
        await redis_value(replica.url, "REPLICAOF", "127.0.0.1", str(port))

        async def in_step() -> None:
            assert b"master_link_status:up" in await redis_value(replica.url, "INFO", "replication")

        await eventually(in_step, within_seconds=20)


class SimulatedValkey(FaultyValkey):
    """The same of simulated servers."""

    def __init__(self) -> None:
        clock = SystemClock()
        self._first = ValkeyServer(clock, "first")
        self._second = ValkeyServer(clock, "second")
        self._address = ValkeyAddress(self._first)
        self._queues = 0
        self._mark = 0

    async def cache(self) -> Cache:
        cache = SimulatedCache(self._address)
        await cache.ping()
        return cache

    async def queue(self) -> Queue:
        self._queues += 1
        return SimulatedStreams(self._address, str(self._queues))

    def mark(self) -> None:
        self._mark = len(self._first.journal.effects)

    async def restart_from_mark(self) -> None:
        self._first.stop()
        self._first.start(lost_effects=len(self._first.journal.effects) - self._mark)

    async def wipe(self) -> None:
        self._first.wipe()

    async def follow(self) -> None:
        self._second.replicate(self._first)

    async def cut_off(self) -> None:
        self._first.ship()
        self._second.cut_off()

    async def promote(self) -> None:
        self._second.promote()
        self._address.server = self._second

    async def demote(self) -> None:
        self._first.replicate(self._second)

    async def set_fsync(self, fsync: Fsync) -> None:
        self._first.fsync = fsync

    async def set_policy(self, policy: str) -> None:
        self._first.policy = policy

    async def fill(self) -> None:
        self._first.is_full = True
        for order_id in self._first.evictable():
            self._first.evict(order_id)

    async def refuse_writes(self) -> None:
        self._first.refuses_writes = True


@asynccontextmanager
async def faulty_valkey(kind: str) -> AsyncIterator[FaultyValkey]:
    """Yield two servers of a kind: bundled, real, or simulated."""
    if kind == SIMULATED:
        yield SimulatedValkey()
        return
    program = EmbeddedValkey if kind == "bundled" else InstalledRedis
    with short_directory() as directory:
        async with (
            running(program(directory / "first")) as first,
            running(program(directory / "second")) as second,
        ):
            servers = RealValkey(directory, first, second)
            try:
                yield servers
            finally:
                await servers.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
