"""A client that keeps one connection to Redis alive: lazily opened, reopened when it is lost.

Invariant: while the server is away calls fail at once; one background task tries to connect.
Invariant: no command passes over a new connection before every hook has seen it.
"""

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

from polyglot_persistence.adapters.redis.address import RedisAddress, parse_address
from polyglot_persistence.adapters.redis.connection import (
    Argument,
    Command,
    RedisConnection,
    ReplyError,
)
from polyglot_persistence.errors import UnavailableError

IN_FLIGHT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Far above what the group commit and the coalesced reads keep in flight (a few MB)."""

_BACKOFF_FIRST_SECONDS: Final = 0.05
_BACKOFF_MAX_SECONDS: Final = 0.5

Hook = Callable[[RedisConnection], Awaitable[None]]


class RedisClient:
    """Executes commands over one shared connection; its owner closes it at the end.

    Over TLS `authority` verifies the server; without one, the machine's own authorities do.
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
        self._address: RedisAddress = parse_address(address)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._command_timeout_seconds = command_timeout_seconds
        self._in_flight_bytes_max = in_flight_bytes_max
        self._tls = (authority or ssl.create_default_context()) if self._address.tls else None
        self._hooks: list[Hook] = []
        self._connection: RedisConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._first_attempt = asyncio.Event()
        self._reason = "never connected"
        self._closed = False

    def on_connect(self, hook: Hook) -> None:
        """Have `hook` look at each new connection before any command passes over it.

        A hook that raises `UnavailableError` or `UnknownOutcomeError` makes the attempt fail.
        """
        self._hooks.append(hook)

    async def execute(self, *arguments: Argument) -> Any:
        """Return the reply to one command (bytes, int, list or None).

        Raises:
            ReplyError: the server refused it (an `UnavailableError` with the server's code).
            UnavailableError: not sent.
            UnknownOutcomeError: sent, and the connection was lost or silent before the reply.
        """
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self.connection()
        return await connection.execute(*arguments)

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Return the replies to commands that are sent together, in order; not a transaction.

        Raises:
            ReplyError: at least one was refused (the first such reply); the others took effect.
            UnavailableError: none was sent.
            UnknownOutcomeError: sent, and the connection was lost or silent before the replies.
        """
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self.connection()
        replies = await connection.request(commands)
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise reply
        return replies

    async def connection(self) -> RedisConnection:
        """Return the connection, waiting for one attempt at most, and not if the last one failed.

        Raises:
            UnavailableError: there is none.
        """
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        if self._closed:
            raise UnavailableError("this Redis client is closed")
        if self._connecting is None or self._connecting.done():
            self._first_attempt.clear()
            self._connecting = asyncio.create_task(self._connect_with_backoff())
        await self._first_attempt.wait()
        connection = self._connection
        if connection is None or connection.closed:
            reason = connection.closed_because if connection else self._reason
            raise UnavailableError(f"Redis at {self._address} is away: {reason}")
        return connection

    async def close(self) -> None:
        """Close the connection for good. Idempotent; calls in flight have an unknown outcome."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        self._first_attempt.set()
        if self._connection is not None:
            self._connection.close("this client was closed")

    async def _connect_with_backoff(self) -> None:
        backoff_seconds = _BACKOFF_FIRST_SECONDS
        while True:
            self._connection = None
            try:
                self._connection = await self._open()
            except Exception as error:  # noqa: BLE001  # whatever it is, callers wait to hear it
                self._reason = str(error) or type(error).__name__
            else:
                return
            finally:
                self._first_attempt.set()
            jitter = random.uniform(0.5, 1.0)  # noqa: S311  # no secret
            await asyncio.sleep(backoff_seconds * jitter)
            backoff_seconds = min(2 * backoff_seconds, _BACKOFF_MAX_SECONDS)

    async def _open(self) -> RedisConnection:
        connection = RedisConnection(
            str(self._address),
            timeout_seconds=self._command_timeout_seconds,
            in_flight_bytes_max=self._in_flight_bytes_max,
        )
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                await self._dial(connection)
                await self._introduce(connection)
        except TimeoutError as error:
            connection.close("no answer")
            limit = f"{self._connect_timeout_seconds:g} s"
            raise UnavailableError(f"no connection within {limit}") from error
        except BaseException:
            connection.close("not connected")
            raise
        return connection

    async def _dial(self, connection: RedisConnection) -> None:
        loop = asyncio.get_running_loop()
        if self._address.socket_path is not None:
            await loop.create_unix_connection(lambda: connection, self._address.socket_path)
        else:
            await loop.create_connection(
                lambda: connection, self._address.host, self._address.port, ssl=self._tls
            )

    async def _introduce(self, connection: RedisConnection) -> None:
        address = self._address
        if address.password is not None:
            user = [address.username] if address.username else []
            await connection.execute("AUTH", *user, address.password)
        if address.database:
            await connection.execute("SELECT", address.database)
        # A server that still loads its data answers this with LOADING: not connected yet.
        await connection.execute("PING")
        for hook in self._hooks:
            await hook(connection)
