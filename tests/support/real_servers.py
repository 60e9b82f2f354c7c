"""The real servers of the production deployment: emptied for a test, killed, and started again.

Invariant: a test has a database, a queue and keys of its own; what it makes, it removes.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import asyncpg
import pytest
from elasticsearch import AsyncElasticsearch

from polyglot_persistence.bootstrap.stores import SEARCH_ALIAS
from polyglot_persistence.ports.queue import QUEUE_NAME
from tests.support.addresses import (
    ELASTICSEARCH,
    POSTGRES,
    RABBITMQ,
    VARIABLES,
    address_of,
    redis_url,
)
from tests.support.patience import patiently
from tests.support.processes import REPOSITORY
from tests.support.queues import delete_queue
from tests.support.servers import flush, fresh_database, redis_command

COMMAND_SECONDS = 600
"""More than the longest start that `scripts/servers` waits for, twice."""


@asynccontextmanager
async def empty_stores() -> AsyncIterator[dict[str, str]]:
    """Give the settings of a deployment on the real servers, which have nothing of it."""
    redis = redis_url()
    rabbitmq = address_of(RABBITMQ)
    elasticsearch = address_of(ELASTICSEARCH)
    await _wipe(redis, rabbitmq, elasticsearch)
    async with fresh_database(address_of(POSTGRES)) as postgres:
        yield {
            "POSTGRES_DSN": postgres,
            "REDIS_ADDR": redis,
            "RABBITMQ_URL": rabbitmq,
            "ELASTICSEARCH_URL": elasticsearch,
        }
        await _wipe(redis, rabbitmq, elasticsearch)


async def _wipe(redis: str, rabbitmq: str, elasticsearch: str) -> None:
    await flush(redis)
    await delete_queue(rabbitmq, QUEUE_NAME)
    await patiently(partial(delete_indexes, elasticsearch))


async def delete_indexes(url: str) -> None:
    """Delete every index of the deployment."""
    async with AsyncElasticsearch(url, request_timeout=30) as client:
        for name in await client.indices.get(index=f"{SEARCH_ALIAS}-*"):
            await client.indices.delete(index=name)


class RealServer:
    """One of the servers that `scripts/servers` started, to be killed and started again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = address_of(VARIABLES[name])
        if f"export {VARIABLES[name]}='{self.address}'" not in servers("test-env", name):
            pytest.skip(f"scripts/servers did not start {name} at {self.address}")

    async def pid(self) -> int:
        """Return the process that started its others; it must run."""
        return int(await asyncio.to_thread(servers, "pids", self.name))

    async def kill(self) -> None:
        """End it without a word, as `kill -9` does."""
        await asyncio.to_thread(servers, "kill", self.name)

    async def down(self) -> None:
        """Stop it in order."""
        await asyncio.to_thread(servers, "down", self.name)

    async def up(self) -> None:
        """Start it on the data that it has."""
        await asyncio.to_thread(servers, "up", self.name)

    async def answers(self) -> bool:
        """Whether it talks to clients at all."""
        try:
            async with asyncio.timeout(2):
                return await self._talk()
        except (OSError, TimeoutError, EOFError, AssertionError, asyncpg.PostgresError):
            return False

    async def _talk(self) -> bool:
        if self.name == "redis":
            return bool(await redis_command(f"redis://{self.address}", "PING") == b"PONG")
        if self.name == "postgres":
            connection = await asyncpg.connect(self.address)
            await connection.close()
            return True
        if self.name == "rabbitmq":
            return (await self._say(b"AMQP\x00\x00\x09\x01")).startswith(b"\x01")
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return (await self._say(request)).startswith(b"HTTP/1.1 200")

    async def _say(self, request: bytes) -> bytes:
        address = urlsplit(self.address)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(request)
            return await reader.readexactly(12)
        finally:
            writer.close()


def servers(*arguments: str) -> str:
    """Run `scripts/servers`; return what it prints."""
    done = subprocess.run(
        [REPOSITORY / "scripts" / "servers", *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
