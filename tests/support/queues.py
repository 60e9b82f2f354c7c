"""Queue servers for the contract suite: one class an adapter, the same face for all.

A `QueueServer` makes queues as several processes would, kills one of them, and stops, stalls or
wipes the server behind them.
"""

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from pamqp import commands

from polyglot_persistence.adapters.rabbitmq.channel import Content
from polyglot_persistence.adapters.rabbitmq.connection import open_connection
from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue
from polyglot_persistence.config.addresses.rabbitmq import read_rabbitmq
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.ports.queue import Queue
from tests.support.addresses import RABBITMQ, RABBITMQ4, needs
from tests.support.eventually import WAIT_SECONDS, eventually
from tests.support.patience import patiently
from tests.support.proxy import Proxy
from tests.support.servers import flush, redis_value

Server = TypeVar("Server", bound="QueueServer")

MANAGEMENT = "TEST_RABBITMQ_MANAGEMENT_URL"
"""Of a cluster, if the broker is one."""

TIMEOUT_SECONDS = 2.0
"""Of a command or a confirm: short, since tests wait for it."""


class QueueServer(ABC):
    """One broker, empty at first."""

    death_seconds: float
    """Within so many seconds the messages of a process that died go to another."""

    hold_seconds: float
    """As long as a process may hold a message, if the server minds."""

    @abstractmethod
    async def process(self) -> Queue:
        """Return a queue as another process would have it."""

    @abstractmethod
    async def kill(self, queue: Queue) -> None:
        """Let the process that has this queue die, with all its connections."""

    @abstractmethod
    def stand_still(self, queue: Queue) -> None:
        """Let the process that has this queue say nothing more, its connections open."""

    @abstractmethod
    async def stop(self) -> None:
        """Take the server away."""

    @abstractmethod
    async def start(self) -> None:
        """Give it back, with its data."""

    @abstractmethod
    async def wipe(self) -> None:
        """Remove everything that the queue has on the server, while it runs."""

    @abstractmethod
    async def is_waited_on(self) -> None:
        """Return once a `receive` that was begun waits for a message."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections that are left."""


class StallingServer(QueueServer):
    """One that is behind sockets, which can be silent."""

    @abstractmethod
    def stall(self) -> None:
        """Keep the server from answering, its sockets open."""

    @abstractmethod
    def resume(self) -> None:
        """Let it answer again."""


class ValkeyStreams(StallingServer):
    """The embedded deployment's queue."""

    death_seconds = 2.0
    hold_seconds = 0.7

    def __init__(self, server: EmbeddedValkey) -> None:
        self._server = server
        self._clients: dict[Queue, list[RedisClient]] = {}

    async def process(self) -> Queue:
        clients: list[RedisClient] = []

        def open_client() -> RedisClient:
            client = RedisClient(
                self._server.url,
                connect_timeout_seconds=TIMEOUT_SECONDS,
                command_timeout_seconds=TIMEOUT_SECONDS,
            )
            clients.append(client)
            return client

        queue = ValkeyStreamsQueue(open_client(), open_client, claim_idle_seconds=self.hold_seconds)
        self._clients[queue] = clients
        return queue

    async def kill(self, queue: Queue) -> None:
        for client in self._clients.pop(queue):
            await client.close()

    def stand_still(self, queue: Queue) -> None:
        pass  # a process that is asked nothing sends nothing

    async def stop(self) -> None:
        await self._server.stop()

    async def start(self) -> None:
        await self._server.start()

    async def wipe(self) -> None:
        await flush(self._server.url)

    def stall(self) -> None:
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGCONT)

    async def is_waited_on(self) -> None:
        async def blocked() -> None:
            assert b"\nblocked_clients:1\r" in await redis_value(
                self._server.url, "INFO", "clients"
            )

        await eventually(blocked, within_seconds=WAIT_SECONDS)

    async def close(self) -> None:
        for queue in list(self._clients):
            await self.kill(queue)


class RabbitMQ(StallingServer):
    """The production deployment's queue: a broker that runs already, a queue of each test's own.

    Each process reaches each of its nodes through a proxy, which takes the node away from it.
    """

    death_seconds = 2.0
    hold_seconds = 0.0

    def __init__(self, url: str) -> None:
        self.url = url
        self.queue_name = f"test-{uuid4().hex}"
        self._processes: dict[Queue, tuple[RabbitMQQueue, list[Proxy]]] = {}

    async def process(self) -> Queue:
        parts = urlsplit(self.url)
        proxies = [Proxy(host.name, host.port) for host in read_rabbitmq(self.url).hosts]
        for proxy in proxies:
            await proxy.start()
        user = parts.netloc.rpartition("@")[0] or "guest:guest"
        places = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        queue = RabbitMQQueue(
            urlunsplit(parts._replace(netloc=f"{user}@{places}")),
            queue=self.queue_name,
            management_url=os.environ.get(MANAGEMENT) if len(proxies) > 1 else None,
            connect_timeout_seconds=TIMEOUT_SECONDS,
            publish_timeout_seconds=TIMEOUT_SECONDS,
        )
        self._processes[queue] = (queue, proxies)
        return queue

    def _proxies(self) -> list[Proxy]:
        return [proxy for _, proxies in self._processes.values() for proxy in proxies]

    async def kill(self, queue: Queue) -> None:
        rabbitmq, proxies = self._processes.pop(queue)
        for proxy in proxies:
            await proxy.stop()
        await rabbitmq.close()

    def stand_still(self, queue: Queue) -> None:
        for proxy in self._processes[queue][1]:
            proxy.stall()

    async def stop(self) -> None:
        for proxy in self._proxies():
            await proxy.cut()

    async def start(self) -> None:
        for proxy in self._proxies():
            proxy.restore()

    async def wipe(self) -> None:
        await delete_queue(self.url, self.queue_name)

    def stall(self) -> None:
        for proxy in self._proxies():
            proxy.stall()

    def resume(self) -> None:
        for proxy in self._proxies():
            proxy.resume()

    async def is_waited_on(self) -> None:
        await asyncio.sleep(0)  # messages are pushed: it only waits for the next one

    async def close(self) -> None:
        for rabbitmq, proxies in self._processes.values():
            await rabbitmq.close()
            for proxy in proxies:
                await proxy.stop()
        await self.wipe()


class Deaf:
    """Listens to a channel on which nothing comes unasked."""

    def on_content(self, content: Content) -> None:
        raise AssertionError(content)

    def on_confirm(self, delivery_tag: int, *, multiple: bool, positive: bool) -> None:
        raise AssertionError(delivery_tag)

    def on_closed(self, reason: str) -> None:
        pass


async def delete_queue(url: str, name: str) -> None:
    """Delete a queue with all that is in it, if it is there, as soon as the broker is well."""
    await patiently(partial(_delete_queue, url, name))


async def _delete_queue(url: str, name: str) -> None:
    connection = await open_connection(
        read_rabbitmq(url), connect_timeout_seconds=5, timeout_seconds=20
    )
    try:
        channel = await connection.channel(Deaf())
        await channel.call(commands.Queue.Delete(queue=name), commands.Queue.DeleteOk)
    finally:
        await connection.close()


@asynccontextmanager
async def closing(server: Server) -> AsyncIterator[Server]:
    """Close what is left open at the end."""
    try:
        yield server
    finally:
        await server.close()


REAL = [
    "valkey_streams",
    pytest.param(RABBITMQ, marks=needs(RABBITMQ), id="rabbitmq"),
    pytest.param(RABBITMQ4, marks=needs(RABBITMQ4), id="rabbitmq4"),
]
"""Those that are not bundled by the variable that names a running server."""
