"""One side's own part of each store: emptied, and asked what is in it.

Invariant: nothing here reaches another side's part, nor anything that is not a bench's.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
import hiredis
import httpx2

HTTP_TIMEOUT_SECONDS = 120.0

_TLS = ssl.create_default_context()
"""Made once, though it is never used here: a client without one reads all certificates of the
machine, which takes 30 ms, and in these the process sends nothing of what is due."""


class Record:
    """A database of its own on a PostgreSQL server."""

    def __init__(self, admin_dsn: str, database: str) -> None:
        self.admin_dsn = admin_dsn
        self._database = database
        self.dsn = urlunsplit(urlsplit(admin_dsn)._replace(path=f"/{database}"))

    async def wipe(self) -> None:
        """Make the database anew, empty."""
        await self.drop()
        await self._administer(f"CREATE DATABASE {self._database}")

    async def drop(self) -> None:
        """Delete the database, if it is there."""
        await self._administer(f"DROP DATABASE IF EXISTS {self._database} WITH (FORCE)")

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def exists(self) -> bool:
        """Return whether the database is there."""
        query = "SELECT true FROM pg_database WHERE datname = $1"
        return bool(await self._server_value(query, self._database))

    async def execute(self, script: str) -> None:
        """Run statements."""
        connection = await self.connect()
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    async def version(self) -> str:
        """Return the server's version; the database need not be there."""
        return str(await self._server_value("SHOW server_version")).split()[0]

    async def _server_value(self, query: str, *values: Any) -> Any:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            return await connection.fetchval(query, *values)
        finally:
            await connection.close()

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """Return rows."""
        connection = await self.connect()
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    async def connect(self) -> "asyncpg.Connection[Any]":
        """Return a connection; the caller closes it."""
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self.dsn, timeout=10)
        return connection


class Cache:
    """A database of its own on a Redis or Valkey: `redis://host:port/1`, or a Unix socket."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def commands(self, commands: Iterable[tuple[bytes | str | int, ...]]) -> list[Any]:
        """Send commands together and return their replies."""
        address = urlsplit(self.url)
        if address.scheme == "unix":
            reader, writer = await asyncio.open_unix_connection(unquote(address.path))
        else:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        parser = hiredis.Reader()
        select = [("SELECT", address.path.strip("/") or 0)] if address.scheme != "unix" else []
        packed = [
            hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub names a 1-tuple
            for command in [*select, *commands]
        ]
        writer.write(b"".join(packed))
        replies: list[Any] = []
        try:
            while len(replies) < len(packed):
                parser.feed(await reader.read(1 << 20))
                while (reply := parser.gets()) is not False:
                    replies.append(reply)
        finally:
            writer.close()
        return replies[len(select) :]

    async def command(self, *words: bytes | str | int) -> Any:
        """Send one command and return its reply."""
        return (await self.commands([words]))[0]

    async def wipe(self) -> None:
        """Delete everything in this database."""
        await self.command("FLUSHDB")


class Queues:
    """A virtual host of its own on a RabbitMQ."""

    def __init__(self, url: str, management: str, virtual_host: str) -> None:
        self.url = f"{url.rstrip('/')}/{virtual_host}"
        self._management = management
        self._virtual_host = virtual_host

    async def wipe(self) -> None:
        """Make the virtual host anew: no queue, no message. Who was connected is cut off."""
        path = f"/api/vhosts/{self._virtual_host}"
        async with _client(self._management) as client:
            answer = await client.delete(path)
            if answer.status_code != httpx2.codes.NOT_FOUND:
                answer.raise_for_status()
            (await client.put(path)).raise_for_status()
            user = urlsplit(self._management).username
            permissions = {"configure": ".*", "write": ".*", "read": ".*"}
            (
                await client.put(f"/api/permissions/{self._virtual_host}/{user}", json=permissions)
            ).raise_for_status()

    async def version(self) -> str:
        """Return the broker's version."""
        async with _client(self._management) as client:
            return str((await client.get("/api/overview")).json()["rabbitmq_version"])

    async def purge(self, queue: str) -> None:
        """Delete the messages; who is connected stays so."""
        async with _client(self._management) as client:
            path = f"/api/queues/{self._virtual_host}/{queue}/contents"
            (await client.delete(path)).raise_for_status()


class Index:
    """An index (or what is behind an alias) of an Elasticsearch."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name

    async def wipe(self) -> None:
        """Delete the index."""
        async with _client(self.url) as client:
            answer = await client.get(f"/{self.name}/_alias")
            if answer.status_code == httpx2.codes.NOT_FOUND:
                return
            for index in answer.json():
                (await client.delete(f"/{index}")).raise_for_status()

    async def documents(self) -> int:
        """Return how many documents a search can find, all that came so far included."""
        async with _client(self.url) as client:
            answer = await client.post(f"/{self.name}/_refresh")
            if answer.status_code == httpx2.codes.NOT_FOUND:
                return 0
            count: int = (await client.get(f"/{self.name}/_count")).json()["count"]
            return count

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send any request."""
        async with _client(self.url) as client:
            answer = await client.request(method, path, json=body)
            answer.raise_for_status()
            return answer.json()


def _client(url: str) -> httpx2.AsyncClient:
    parts = urlsplit(url)
    auth = (parts.username or "", parts.password or "") if parts.username else None
    base = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    # No proxy of the environment may come between us and what is this very machine.
    return httpx2.AsyncClient(
        base_url=base, auth=auth, timeout=HTTP_TIMEOUT_SECONDS, trust_env=False, verify=_TLS
    )
