"""Connects to the primary among the servers of a DSN, and leaves a server that was demoted.

Each connection belongs to a *reign*: the time in which one server process is the primary of one
timeline. It ends with a restart or a promotion.

```
  servers: the latest primary first, the next one 0.25 s later or after a failure, all side by side
     |
     +--> the first that is a primary --> its reign is another than before?
                                            |         |
                                            no        yes: end every connection of another reign
  a statement is late (1 s) --> look for the primary every 2 s, until it is answered
```

Invariant: a connection is handed out only if its server was the primary when it was made.
Invariant: a connection through a pooler is handed out only if no other client shares its session,
as far as can be detected when the first one is made.
Invariant: a hanging server delays the use of another one only by the time of the search for it.
"""

import asyncio
import contextlib
import re
from collections import deque
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from polyglot_persistence.adapters.postgres.failures import DRIVER_ERRORS, meaning
from polyglot_persistence.adapters.postgres.pooler import (
    refuse_shared_sessions,
    refuses_settings,
)
from polyglot_persistence.adapters.postgres.queries import QUERIES
from polyglot_persistence.errors import PolyglotError, UnavailableError
from polyglot_persistence.telemetry import logger

_log = logger("postgres")

NEXT_SERVER_SECONDS: Final = 0.25
"""A server that has not answered by then may hang, and the next one is tried concurrently."""

LATE_SECONDS: Final = 1.0
"""A statement without an answer for this long may have been sent to a lost server."""

LOOK_SECONDS: Final = 2.0
"""Time between two searches for the primary while a statement is late."""

GRACE_SECONDS: Final = 1.0
"""The server aborts a late statement itself; the client gives up only this much later."""

TIDY_SECONDS: Final = 2.0
"""For rolling back, or for closing; then the connection is dropped."""

IDLE_IN_TRANSACTION_SECONDS: Final = 60
"""A worker that stalled inside a transaction holds its locks no longer than this. Twice the time
that a worker may hold a batch without acknowledging it."""

# Quoted, since asyncpg's classes are generic only in their stubs.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_URL: Final = re.compile(r"(\w+://(?:[^/?]*@)?)([^/?]*)([^?]*)\??(.*)", re.DOTALL)


class Primary:
    """The primary among the servers of a DSN in URL form (TLS by its `sslmode`)."""

    def __init__(
        self,
        dsn: str,
        *,
        connect_timeout_seconds: float,
        application_name: str = "polyglot-persistence",
    ) -> None:
        self._servers = deque(dict.fromkeys(servers_of(dsn)))
        self._connect_timeout_seconds = connect_timeout_seconds
        self._application_name = application_name
        self._settings_at_login = True
        """Until a pooler refuses them; then they are set after the login."""
        self._looked_at: set[str] = set()
        """Servers found to be poolers that do not share sessions."""
        self._reign: str | None = None
        self._reigns: dict[Connection, str] = {}
        self._late = 0
        self._looking: asyncio.Task[None] | None = None

    async def connect(self, *, statement_timeout_seconds: float) -> Connection:
        """Return a new connection; if it belongs to a new reign, all others are closed.

        Waits for `connect_timeout_seconds`, and `NEXT_SERVER_SECONDS` more for each further server.

        Raises:
            UnavailableError: none of the servers that answer is the primary.
            ConfigurationError: the DSN is invalid.
        """
        connection, reign = await self._find(self._options(statement_timeout_seconds))
        self._reigns = {c: r for c, r in self._reigns.items() if not c.is_closed()}
        self._reigns[connection] = reign
        if reign != self._reign:
            lost = [c for c, r in self._reigns.items() if r != reign]
            if self._reign is not None:
                _log.warning("primary_changed", reign=reign, connections_ended=len(lost))
            for one in lost:
                one.terminate()
            self._reign = reign
        return connection

    def overseen(self) -> "Overseen":
        """Return a context for awaiting one answer; it searches for the primary if that is late."""
        return Overseen(self)

    async def close(self) -> None:
        """Stop searching for the primary."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def is_late(self) -> None:
        """Count one more late statement."""
        self._late += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())

    def is_answered(self) -> None:
        """Count one late statement less."""
        self._late -= 1

    async def _look(self) -> None:
        while self._late:
            with contextlib.suppress(PolyglotError):  # there may be none for now
                connection = await self.connect(statement_timeout_seconds=LATE_SECONDS)
                with contextlib.suppress(*DRIVER_ERRORS):  # then it is aborted
                    await connection.close(timeout=TIDY_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def _find(self, options: dict[str, Any]) -> tuple[Connection, str]:
        servers = deque(self._servers)
        tried: dict[asyncio.Task[tuple[Connection, str]], str] = {}
        failures: dict[str, PolyglotError] = {}
        try:
            while servers or len(failures) < len(tried):
                if servers:
                    server = servers.popleft()
                    tried[asyncio.create_task(self._try(server, options))] = server
                await asyncio.wait(
                    [task for task in tried if not task.done()],
                    timeout=NEXT_SERVER_SECONDS if servers else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task, server in tried.items():
                    if not task.done() or server in failures:
                        continue
                    try:
                        found = task.result()
                    except PolyglotError as error:
                        failures[server] = error
                        continue
                    del tried[task]
                    self._servers.remove(server)
                    self._servers.appendleft(server)
                    return found
        finally:
            await _end(tried)
        raise _no_primary(failures)

    async def _try(self, server: str, options: dict[str, Any]) -> tuple[Connection, str]:
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                connection = await self._log_in(server, options)
                try:
                    reign = await self._begin_session(connection, server, options)
                except BaseException:
                    connection.terminate()
                    raise
        except DRIVER_ERRORS as error:
            raise meaning(error) from error
        return connection, reign

    async def _log_in(self, server: str, options: dict[str, Any]) -> Connection:
        if self._settings_at_login:
            try:
                return await asyncpg.connect(server, **options)
            except asyncpg.PostgresError as error:
                if not refuses_settings(error):
                    raise
                self._settings_at_login = False
        return await asyncpg.connect(server, **options | {"server_settings": {}})

    async def _begin_session(
        self, connection: Connection, server: str, options: dict[str, Any]
    ) -> str:
        """Return the reign of a new connection, once all its settings are in force."""
        session = await connection.fetchrow(QUERIES["begin_session"])
        assert session is not None  # noqa: S101  it returns the row
        is_pooled = session["process"] != connection.get_server_pid()
        if is_pooled and server not in self._looked_at:
            looked = await refuse_shared_sessions(
                connection, session["process"], lambda: self._log_in(server, options)
            )
            self._looked_at |= {server} if looked else set()
        if is_pooled or not self._settings_at_login:
            settings = options["server_settings"].items()
            await connection.execute(
                "".join(f"SET {name} TO '{value}';" for name, value in settings)
            )
        reign: str = session["reign"]
        return reign

    def _options(self, statement_timeout_seconds: float) -> dict[str, Any]:
        milliseconds = str(max(1, round(statement_timeout_seconds * 1000)))
        return {
            "timeout": self._connect_timeout_seconds,
            "command_timeout": statement_timeout_seconds + GRACE_SECONDS,
            # Overrides settings of the database and the role that a promise depends on.
            "server_settings": {
                "application_name": self._application_name,
                "TimeZone": "UTC",
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_SECONDS * 1000),
                "idle_session_timeout": "0",  # the holder of a session lock is idle for hours
                "default_transaction_isolation": "read committed",
                # A row hidden by a policy must raise an error, and not seem missing.
                "row_security": "off",
                "standard_conforming_strings": "on",
                # The server frees the locks of a client that vanished silently after 25 s.
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
                "jit": "off",  # compiling takes longer than any statement here
            },
        }


class Overseen:
    """The wait for one answer. A class, since a generator costs three times as much."""

    __slots__ = ("_is_late", "_primary", "_timer")

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._is_late = False

    def __enter__(self) -> Self:
        self._timer = asyncio.get_running_loop().call_later(LATE_SECONDS, self._expire)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._is_late:
            self._primary.is_answered()

    def _expire(self) -> None:
        self._is_late = True
        self._primary.is_late()


def servers_of(dsn: str) -> list[str]:
    """Return a DSN for each server; each requires a primary, or the DSN's own requirement."""
    match = _URL.fullmatch(dsn)
    assert match is not None, "a DSN in URL form"  # noqa: S101
    head, places, path, text = match.groups()
    query = {"target_session_attrs": "primary", **dict(parse_qsl(text, keep_blank_values=True))}
    hosts, ports = query.get("host", "").split(","), query.get("port", "").split(",")
    if places or len(hosts) == 1:
        return [f"{head}{place}{path}?{urlencode(query)}" for place in places.split(",")]
    if len(ports) == 1:
        ports *= len(hosts)
    return [
        f"{head}{path}?{urlencode(query | {'host': host} | ({'port': port} if port else {}))}"
        for host, port in zip(hosts, ports, strict=True)
    ]


def _no_primary(failures: dict[str, PolyglotError]) -> PolyglotError:
    for error in failures.values():
        if len(failures) == 1 or not isinstance(error, UnavailableError) or error.remedy:
            return error
    words = "; ".join(f"{_place(server)}: {error}" for server, error in failures.items())
    return UnavailableError(f"no server of POSTGRES_DSN is the primary: {words}")


def _place(server: str) -> str:
    """Return the address of a server, without user and password."""
    parts = urlsplit(server)
    query = dict(parse_qsl(parts.query))
    return parts.netloc.rpartition("@")[2] or query.get("host", "")


async def _end(tried: dict[asyncio.Task[tuple[Connection, str]], str]) -> None:
    """Cancel the attempts that are not needed, and close their connections."""
    for task in tried:
        task.cancel()
    for result in await asyncio.gather(*tried, return_exceptions=True):
        if not isinstance(result, BaseException):
            result[0].terminate()
