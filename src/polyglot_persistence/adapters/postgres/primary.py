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
  several servers --> every 5 s, and before the first connection: is another on a newer timeline?
```

Two servers may both be primaries: one was promoted while the other was cut off, or frozen. The one
on the newer timeline counts. The other may go on committing, and what it commits is lost.

Invariant: a connection is handed out only if its server was the primary when it was made, and this
process has seen no primary on a newer timeline.
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

WATCH_SECONDS: Final = 5.0
"""Time between two searches for a primary on a newer timeline, where a DSN names several servers.
No statement is late if the former primary still answers."""

GRACE_SECONDS: Final = 1.0
"""The server aborts a late statement itself; the client gives up only this much later."""

TIDY_SECONDS: Final = 2.0
"""For rolling back, or for closing; then the connection is dropped."""

IDLE_IN_TRANSACTION_SECONDS: Final = 60
"""A worker that stalled inside a transaction holds its locks no longer than this. Twice the time
that a worker may hold a batch without acknowledging it."""

# Quoted, since asyncpg's classes are generic only in their stubs.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Attempt: TypeAlias = "asyncio.Task[tuple[Connection, str]]"

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
        """It begins with the timeline: eight hexadecimal digits."""
        self._reigns: dict[Connection, str] = {}
        self._late = 0
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def servers(self) -> int:
        """Return how many servers the DSN names."""
        return len(self._servers)

    async def connect(self, *, statement_timeout_seconds: float) -> Connection:
        """Return a new connection; if it belongs to a new reign, all others are closed.

        Waits for `connect_timeout_seconds`, and `NEXT_SERVER_SECONDS` more for each further server.

        Raises:
            UnavailableError: none of the servers that answer is the primary.
            ConfigurationError: the DSN is invalid.
        """
        connection, reign = await self._find(self._options(statement_timeout_seconds))
        if _timeline(reign) < _timeline(self._reign):  # another call has met a newer one meanwhile
            connection.terminate()
            raise _former_primary(reign, self._reign)
        self._adopt(connection, reign)
        return connection

    def watch(self) -> None:
        """Search for a primary on a newer timeline from now on, until closed."""
        if len(self._servers) > 1 and self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def _adopt(self, connection: Connection, reign: str) -> None:
        self._reigns = {c: r for c, r in self._reigns.items() if not c.is_closed()}
        self._reigns[connection] = reign
        if reign == self._reign:
            return
        lost = [c for c, r in self._reigns.items() if r != reign]
        if self._reign is not None:
            _log.warning("primary_changed", reign=reign, connections_ended=len(lost))
        for one in lost:
            _cut(one)
        self._reign = reign

    def overseen(self) -> "Overseen":
        """Return a context for awaiting one answer; it searches for the primary if that is late."""
        return Overseen(self)

    async def close(self) -> None:
        """Stop searching for the primary."""
        for task in (self._looking, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

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

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for server in tuple(self._servers):
                with contextlib.suppress(PolyglotError):  # a standby, or away
                    await self._look_at(server)

    async def _look_at(self, server: str) -> None:
        connection, reign = await self._try(server, self._options(LATE_SECONDS))
        if _timeline(reign) > _timeline(self._reign):
            self._adopt(connection, reign)
            self._prefer(server)
        with contextlib.suppress(*DRIVER_ERRORS):  # then it is aborted
            await connection.close(timeout=TIDY_SECONDS)

    def _prefer(self, server: str) -> None:
        self._servers.remove(server)
        self._servers.appendleft(server)

    async def _find(self, options: dict[str, Any]) -> tuple[Connection, str]:
        servers = deque(self._servers)
        tried: dict[Attempt, str] = {}
        failures: dict[str, PolyglotError] = {}
        try:
            while servers or len(failures) < len(tried):
                if servers:
                    server = servers.popleft()
                    tried[self._trying(server, options)] = server
                await asyncio.wait(
                    [task for task in tried if not task.done()],
                    timeout=NEXT_SERVER_SECONDS if servers else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task, server in tried.items():
                    if not task.done() or server in failures:
                        continue
                    if error := _failure(task):
                        failures[server] = error
                        continue
                    if self._reign is None:
                        tried |= {self._trying(other, options): other for other in servers}
                        await asyncio.wait(tried, timeout=NEXT_SERVER_SECONDS)
                    newest = max(filter(_has_found, tried), key=lambda one: one.result()[1])
                    self._prefer(tried.pop(newest))
                    return newest.result()
        finally:
            await _end(tried)
        raise _no_primary(failures)

    def _trying(self, server: str, options: dict[str, Any]) -> Attempt:
        return asyncio.create_task(self._try(server, options))

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
        reign: str = session["reign"]
        if _timeline(reign) < _timeline(self._reign):
            raise _former_primary(reign, self._reign)
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


def _cut(connection: Connection) -> None:
    """End a connection that a call may be using; that call fails with an error of the driver.

    `terminate` would take the protocol away from a call that is between two messages, which then
    fails with an AttributeError.
    """
    connection._transport.abort()  # type: ignore[attr-defined]  # noqa: SLF001


def _timeline(reign: str | None) -> int:
    """Return the number of a reign's timeline; 0 before the first reign."""
    return int(reign[:8], 16) if reign else 0


def _former_primary(reign: str, newer: str | None) -> UnavailableError:
    return UnavailableError(
        f"a former primary: it is on timeline {_timeline(reign)}, and another server was promoted "
        f"to timeline {_timeline(newer)}",
        remedy="stop it and make it a standby of the new primary; if it was restored on purpose, "
        "restart API and workers",
    )


def _failure(attempt: Attempt) -> PolyglotError | None:
    """Return the failure of an attempt that has ended; any other error is raised."""
    try:
        attempt.result()
    except PolyglotError as error:
        return error
    return None


def _has_found(attempt: Attempt) -> bool:
    return attempt.done() and attempt.exception() is None


async def _end(tried: dict[Attempt, str]) -> None:
    """Cancel the attempts that are not needed, and close their connections."""
    for task in tried:
        task.cancel()
    for result in await asyncio.gather(*tried, return_exceptions=True):
        if not isinstance(result, BaseException):
            result[0].terminate()
