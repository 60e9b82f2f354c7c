"""Cache servers for the contract suite: one class an adapter, the same face for all.

A `CacheServer` gives a cache as several processes would have it, and looks at, and changes, what is
on the server behind the back of all.
"""

from abc import ABC, abstractmethod
from uuid import UUID

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.redis import keys
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.contents import RedisContents
from polyglot_persistence.ports.audit import CacheContents
from polyglot_persistence.ports.cache import Cache
from tests.simulation.stores.cache import SimulatedCache
from tests.simulation.stores.valkey import ValkeyAddress, ValkeyServer, Value
from tests.support.addresses import SIMULATED
from tests.support.cache import TTL_SECONDS, new_client
from tests.support.turns import taking_turns


class CacheServer(ABC):
    """One server, which is up."""

    @abstractmethod
    async def process(self) -> Cache:
        """Return the cache as another process would have it, connected."""

    @abstractmethod
    def contents(self) -> CacheContents:
        """Return what an audit would ask."""

    @abstractmethod
    async def ttl_seconds(self, order_id: UUID) -> float | None:
        """Return how long an entry lives yet; None if it never expires."""

    @abstractmethod
    async def put(self, order_id: UUID, raw: bytes) -> None:
        """Replace an entry by any bytes."""

    @abstractmethod
    async def remove(self, order_id: UUID) -> None:
        """Remove an entry and leave its mark."""

    @abstractmethod
    async def wipe(self) -> None:
        """Remove everything."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


class RealCacheServer(CacheServer):
    """A Redis or Valkey that runs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = new_client(url)
        self._clients = [self._client]

    async def process(self) -> Cache:
        client = new_client(self._url)
        self._clients.append(client)
        cache = RedisCache(client, clean_ttl_seconds=TTL_SECONDS)
        await client.execute("PING")
        return cache

    def contents(self) -> CacheContents:
        return RedisContents(self._client)

    async def ttl_seconds(self, order_id: UUID) -> float | None:
        milliseconds: int = await self._client.execute("PTTL", keys.entry(order_id))
        assert milliseconds != -2, "there is no such entry"
        return None if milliseconds == -1 else milliseconds / 1000

    async def put(self, order_id: UUID, raw: bytes) -> None:
        await self._client.execute("SET", keys.entry(order_id), raw)

    async def remove(self, order_id: UUID) -> None:
        await self._client.execute("DEL", keys.entry(order_id))

    async def wipe(self) -> None:
        """Remove the scripts as well, which a server that was replaced does not have."""
        await self._client.execute("FLUSHDB")
        await self._client.execute("SCRIPT", "FLUSH")

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


class SimulatedCacheServer(CacheServer):
    """A simulated Valkey."""

    def __init__(self) -> None:
        self.server = ValkeyServer(SystemClock())
        self.address = ValkeyAddress(self.server)

    async def process(self) -> Cache:
        return taking_turns(SimulatedCache(self.address, clean_ttl_seconds=TTL_SECONDS))

    def contents(self) -> CacheContents:
        return SimulatedCache(self.address)

    async def ttl_seconds(self, order_id: UUID) -> float | None:
        expires_at = self.server.entries[order_id].expires_at
        return None if expires_at is None else expires_at - self.server.clock.monotonic()

    async def put(self, order_id: UUID, raw: bytes) -> None:
        with self.server.effect():
            self.server.entries.put(order_id, Value(raw, None))

    async def remove(self, order_id: UUID) -> None:
        with self.server.effect():
            self.server.entries.remove(order_id)

    async def wipe(self) -> None:
        self.server.wipe()

    async def close(self) -> None:
        """Nothing is open."""


def cache_server(url: str) -> CacheServer:
    """Return the server at an address."""
    return SimulatedCacheServer() if url == SIMULATED else RealCacheServer(url)
