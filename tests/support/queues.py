"""Queue servers for the contract suite: one class an adapter, the same face for all.

A `QueueServer` makes queues as several processes would, kills one of them, and stops, stalls or
wipes the server behind them.
"""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.ports import Queue
from tests.support.servers import flush

TIMEOUT_SECONDS = 0.5
"""Of a command or a confirm: short, since tests wait for it."""


class QueueServer(ABC):
    """One broker, empty at first."""

    death_seconds: float
    """Within so many seconds the messages of a process that died go to another."""

    @abstractmethod
    def process(self) -> Queue:
        """Return a queue as another process would have it."""

    @abstractmethod
    async def kill(self, queue: Queue) -> None:
        """Let the process that has this queue die, with all its connections."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the server in an orderly way."""

    @abstractmethod
    async def start(self) -> None:
        """Start it again, with its data."""

    @abstractmethod
    async def wipe(self) -> None:
        """Remove everything that the queue has on the server, while it runs."""

    @abstractmethod
    def stall(self) -> None:
        """Keep the server from running, its sockets open."""

    @abstractmethod
    def resume(self) -> None:
        """Let it run again."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections that are left."""


class ValkeyStreams(QueueServer):
    """The embedded deployment's queue."""

    death_seconds = 2.0

    def __init__(self, server: EmbeddedValkey) -> None:
        self._server = server
        self._clients: dict[Queue, list[RedisClient]] = {}

    def process(self) -> Queue:
        clients: list[RedisClient] = []

        def open_client() -> RedisClient:
            client = RedisClient(
                self._server.url,
                connect_timeout_seconds=TIMEOUT_SECONDS,
                command_timeout_seconds=TIMEOUT_SECONDS,
            )
            clients.append(client)
            return client

        queue = ValkeyStreamsQueue(open_client(), open_client, claim_idle_seconds=0.7)
        self._clients[queue] = clients
        return queue

    async def kill(self, queue: Queue) -> None:
        for client in self._clients.pop(queue):
            await client.close()

    async def stop(self) -> None:
        await self._server.stop()

    async def start(self) -> None:
        await self._server.start()

    async def wipe(self) -> None:
        await flush(self._server)

    def stall(self) -> None:
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGCONT)

    async def close(self) -> None:
        for queue in list(self._clients):
            await self.kill(queue)


@asynccontextmanager
async def closing(server: QueueServer) -> AsyncIterator[QueueServer]:
    """Close what is left open at the end."""
    try:
        yield server
    finally:
        await server.close()
