"""A client over one connection to Redis, which is kept alive (`runtime.link`).

Invariant: every hook checks a new connection before any command uses it.
Invariant: a server that Sentinels named is left within two seconds after they name another one.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

from polyglot_persistence.adapters.redis.connection import (
    Argument,
    Command,
    RedisConnection,
    ReplyError,
)
from polyglot_persistence.adapters.redis.sentinel import Sentinels, Views
from polyglot_persistence.config.addresses.hosts import Host
from polyglot_persistence.config.addresses.redis import RedisAddress, read_redis
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.runtime.link import KeepAlive

IN_FLIGHT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Far more than the group commit and the coalesced reads keep in flight (a few MB)."""

_PAUSE_SECONDS_MAX: Final = 0.5

_SENTINELS_SECONDS_MAX: Final = 1.0
"""Maximum time for a question: a health check has two seconds in all."""

_SENTINELS_SECONDS: Final = 1.0
"""Pause between two questions to the Sentinels."""

Hook = Callable[[RedisConnection], Awaitable[None]]


class RedisClient:
    """Executes commands over one shared connection; its owner closes it at the end.

    Over TLS `authority` verifies the server; without one, the system's own CAs do.
    """

    def __init__(
        self,
        address: str,
        *,
        authority: ssl.SSLContext | None = None,
        connect_timeout_seconds: float,
        command_timeout_seconds: float,
        in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX,
    ) -> None:
        self._address: RedisAddress = read_redis(address)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._command_timeout_seconds = command_timeout_seconds
        self._in_flight_bytes_max = in_flight_bytes_max
        self._tls = (authority or ssl.create_default_context()) if self._address.tls else None
        self._sentinels = (
            Sentinels(
                self._address,
                self._tls,
                timeout_seconds=min(connect_timeout_seconds, _SENTINELS_SECONDS_MAX),
            )
            if self._address.name
            else None
        )
        self._following: asyncio.Task[None] | None = None
        self._hooks: list[Hook] = []
        self._link = KeepAlive(
            f"Redis at {self._address}", self._open, pause_seconds_max=_PAUSE_SECONDS_MAX
        )

    def on_connect(self, hook: Hook) -> None:
        """Register a hook that checks each new connection before any command uses it.

        A hook that raises `UnavailableError` or `UnknownOutcomeError` fails the attempt.
        """
        self._hooks.append(hook)

    async def execute(self, *arguments: Argument) -> Any:
        """Return the reply to one command (bytes, int, list or None).

        Raises:
            ReplyError: the server refused it (an `UnavailableError` with the server's code).
            UnavailableError: not sent.
            UnknownOutcomeError: sent, and the connection was lost or silent before the reply.
        """
        connection = await self._link.get()
        return await connection.execute(*arguments)

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Return the replies to commands sent together, in order; not a transaction.

        Raises:
            ReplyError: at least one was refused (the first such reply); the others took effect.
            UnavailableError: none was sent.
            UnknownOutcomeError: sent, and the connection was lost or silent before the replies.
        """
        connection = await self._link.get()
        replies = await connection.request(commands)
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise reply
        return replies

    async def connection(self) -> RedisConnection:
        """Return the connection, after at most one attempt, and at once if the last one failed.

        Raises:
            UnavailableError: there is none.
        """
        return await self._link.get()

    async def sentinels(self) -> Views | None:
        """Return what the Sentinels know, of all that answer; None if the address has none.

        Raises:
            UnavailableError: none answers.
        """
        return None if self._sentinels is None else await self._sentinels.ask(every=True)

    async def close(self) -> None:
        """Close the connection for good. Idempotent; calls in flight have an unknown outcome."""
        await self._link.close()
        if self._following is not None:
            self._following.cancel()
        if self._link.latest is not None:
            self._link.latest.close("this client was closed")

    async def _open(self) -> RedisConnection:
        host = await self._primary()
        connection = RedisConnection(
            str(host or self._address),
            timeout_seconds=self._command_timeout_seconds,
            in_flight_bytes_max=self._in_flight_bytes_max,
        )
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                await self._dial(connection, host)
                await self._introduce(connection)
        except TimeoutError as error:
            connection.close("no answer")
            limit = f"{self._connect_timeout_seconds:g} s"
            raise UnavailableError(f"no connection within {limit}") from error
        except BaseException:
            connection.close("not connected")
            raise
        if self._sentinels is not None:
            self._following = asyncio.create_task(
                _leave_when_replaced(connection, host, self._sentinels)
            )
        return connection

    async def _primary(self) -> Host | None:
        """Return where the server is; None for a Unix socket."""
        if self._sentinels is not None:
            return (await self._sentinels.ask()).newest.primary
        return next(iter(self._address.hosts), None)

    async def _dial(self, connection: RedisConnection, host: Host | None) -> None:
        loop = asyncio.get_running_loop()
        if host is None:
            await loop.create_unix_connection(lambda: connection, self._address.socket_path)
        else:
            await loop.create_connection(lambda: connection, host.name, host.port, ssl=self._tls)

    async def _introduce(self, connection: RedisConnection) -> None:
        address = self._address
        if address.password is not None:
            user = [address.username] if address.username else []
            await connection.execute("AUTH", *user, address.password)
        if address.database:
            await connection.execute("SELECT", address.database)
        # A server that is still loading its data answers LOADING: not connected yet.
        await connection.execute("PING")
        for hook in self._hooks:
            await hook(connection)


async def _leave_when_replaced(
    connection: RedisConnection, host: Host | None, sentinels: Sentinels
) -> None:
    """Close the connection once the Sentinels name another primary.

    The former one may be cut off from them, and so not demoted yet.
    """
    while not connection.closed:
        await asyncio.sleep(_SENTINELS_SECONDS)
        with contextlib.suppress(UnavailableError):
            if (await sentinels.ask()).newest.primary != host:
                connection.close("the Sentinels name another primary")
