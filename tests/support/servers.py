"""The bundled servers for tests: started once a session, given out empty.

Invariant: fixtures of this project's tests never reach a server that they did not start.
"""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import hiredis

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey

Server = TypeVar("Server", EmbeddedPostgres, EmbeddedValkey)


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
async def fresh_database(server: EmbeddedPostgres) -> AsyncIterator[str]:
    """Give the DSN of a new empty database, dropped at the end whoever is still connected."""
    name = f"test_{uuid4().hex}"
    await _execute(server.dsn, f"CREATE DATABASE {name} STRATEGY file_copy")
    try:
        yield urlunsplit(urlsplit(server.dsn)._replace(path=f"/{name}"))
    finally:
        await _execute(server.dsn, f"DROP DATABASE {name} WITH (FORCE)")


def copy_directory(source: Path, target: Path) -> None:
    """Copy a stopped server's data directory, owners and modes included."""
    subprocess.run(["cp", "-a", source, target], check=True, timeout=60)


async def flush(server: EmbeddedValkey) -> None:
    """Empty the server: data, scripts and functions."""
    await valkey_command(server, "SCRIPT", "FLUSH")
    await valkey_command(server, "FUNCTION", "FLUSH")
    await valkey_command(server, "FLUSHALL")


async def valkey_command(server: EmbeddedValkey, *words: str) -> Any:
    """Send one command over a connection of its own; return the reply, an error too.

    A test's own plain client, so that what it sees does not pass through the code under test.
    """
    reader, writer = await asyncio.open_unix_connection(server.socket_path)
    try:
        writer.write(b"*%d\r\n" % len(words))
        for word in words:
            writer.write(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()))
        async with asyncio.timeout(10):
            replies = hiredis.Reader()
            while (reply := replies.gets()) is False:
                data = await reader.read(65536)
                assert data, "Valkey hung up"
                replies.feed(data)
        return reply
    finally:
        writer.close()
        await writer.wait_closed()


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        await connection.execute(sql, timeout=30)
    finally:
        await connection.close(timeout=10)
