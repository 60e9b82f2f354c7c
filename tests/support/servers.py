"""Servers for tests: the bundled ones, started once a session, and how any is given out empty.

Invariant: fixtures of this project's tests never reach a server that they did not start.
"""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import hiredis

from polyglot_persistence.embedded.server import BundledServer
from tests.support.patience import patiently

Server = TypeVar("Server", bound=BundledServer)


@contextmanager
def short_directory() -> Iterator[Path]:
    """Give a directory for temporary files whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="pp-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@asynccontextmanager
async def running(
    server: Server,
) -> AsyncIterator[Server]:
    """Start the server, and stop it at the end."""
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def fresh_database(dsn: str) -> AsyncIterator[str]:
    """Give the DSN of a new empty database on the same server.

    It is dropped at the end, whoever is still connected.
    """
    name = f"test_{uuid4().hex}"

    async def create() -> None:
        # It is there whole or not at all, so an attempt of which nothing was heard may have done.
        with suppress(asyncpg.DuplicateDatabaseError):
            await _execute(dsn, f"CREATE DATABASE {name} STRATEGY file_copy")

    await patiently(create)
    try:
        yield urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    finally:
        await patiently(partial(_execute, dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


def copy_directory(source: Path, target: Path) -> None:
    """Copy a stopped server's data directory, owners and modes included."""
    subprocess.run(["cp", "-a", source, target], check=True, timeout=60)


async def flush(url: str) -> None:
    """Empty the database of the URL, and the server's scripts and functions."""
    await redis_done(url, "SCRIPT", "FLUSH")
    await redis_done(url, "FUNCTION", "FLUSH")
    await redis_done(url, "FLUSHDB")


async def redis_done(url: str, *words: str) -> Any:
    """Have a Redis or Valkey do this, as soon as it is well; return the reply."""
    return await patiently(partial(redis_value, url, *words))


async def redis_value(url: str, *words: str) -> Any:
    """Send one command as `redis_command` does; an error that is replied is raised."""
    reply = await redis_command(url, *words)
    if isinstance(reply, Exception):
        raise reply
    return reply


async def redis_command(url: str, *words: str) -> Any:
    """Send one command to a Redis or Valkey; return the reply, an error too.

    A test's own plain client, so that what it sees does not pass through the code under test.
    """
    address = urlsplit(url)
    if address.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(unquote(address.path))
    else:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
    database = address.path.strip("/") if address.scheme == "redis" else ""
    first: list[tuple[str, ...]] = [("SELECT", database)] if database else []
    if address.password:
        first.insert(0, ("AUTH", address.username or "default", address.password))
    try:
        for command in (*first, words):
            writer.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub errs
        async with asyncio.timeout(10):
            replies = hiredis.Reader()
            for _ in first:
                await _reply(reader, replies)
            return await _reply(reader, replies)
    finally:
        writer.close()
        await writer.wait_closed()


async def _reply(reader: asyncio.StreamReader, replies: hiredis.Reader) -> Any:
    while (reply := replies.gets()) is False:
        data = await reader.read(65536)
        assert data, "the server hung up"
        replies.feed(data)
    return reply


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        await connection.execute(sql, timeout=30)
    finally:
        await connection.close(timeout=10)
