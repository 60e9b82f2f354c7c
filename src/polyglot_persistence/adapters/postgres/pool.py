"""Connections to PostgreSQL: lazily made, bounded, every wait with a deadline.

```
  up ---------- connecting fails ----------> away: calls fail at once
   ^                                           |  0.05 .. 0.5 s, jittered
   +---- succeeds ---- one call tries <--------+
```

Invariant: nothing here fails because PostgreSQL is away when the process starts.
Invariant: no call waits longer for a connection than twice the connect timeout (for a free one, and
for connecting). No call waits longer for a statement than its deadline: the server's
`statement_timeout`, plus a second if the server is gone. If another server has become the primary
by then, the wait ends when that is detected (`primary.py`).
Invariant: a connection to a server other than a primary is not handed out.
Invariant: a statement that was canceled or timed out leaves no reply behind: its connection is
reused only after the server has acknowledged the cancellation, and is closed otherwise.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from polyglot_persistence.adapters.postgres.failures import (
    DRIVER_ERRORS,
    is_of_a_standby,
    meaning,
    meaning_at_commit,
    meaning_of_effect,
)
from polyglot_persistence.adapters.postgres.primary import TIDY_SECONDS, Connection, Primary
from polyglot_persistence.adapters.postgres.queries import QUERIES
from polyglot_persistence.errors import PolyglotError, UnavailableError
from polyglot_persistence.runtime.pauses import Pauses
from polyglot_persistence.telemetry import DB_QUERY_SECONDS, logger

_log = logger("postgres")

SERVER_VERSION_MIN = 15
"""The first with UNIQUE NULLS NOT DISTINCT, which the dead letters require."""

BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_LAST_SECONDS = 0.5
"""PostgreSQL is detected again within about this time of its return."""

# Quoted, since asyncpg's classes are generic only in their stubs.
Held: TypeAlias = "Connection | PoolConnectionProxy[asyncpg.Record]"


class Session:
    """A connection, in or out of a transaction, that runs the named statements of `queries.sql`.

    Every failure is translated. Outside of a transaction `fetch` and its like are for reading: the
    outcome of a lost connection is unknown.
    """

    def __init__(self, connection: Held, primary: Primary) -> None:
        self._connection = connection
        self._primary = primary

    async def fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a statement and return its rows.

        Raises:
            UnavailableError: it had no effect.
            PoisonError: PostgreSQL can never accept these arguments.
        """
        try:
            with DB_QUERY_SECONDS.labels(name).time(), self._primary.overseen():
                return await self._connection.fetch(QUERIES[name], *arguments)
        except DRIVER_ERRORS as error:
            if is_of_a_standby(error):
                self._connection.terminate()
            raise meaning(error) from error

    async def fetchrow(self, name: str, *arguments: object) -> asyncpg.Record | None:
        """Run a statement and return its first row. Raises as `fetch` does."""
        rows = await self.fetch(name, *arguments)
        return rows[0] if rows else None

    async def fetchval(self, name: str, *arguments: object) -> Any:
        """Run a statement and return its first row's first column. Raises as `fetch` does."""
        row = await self.fetchrow(name, *arguments)
        return None if row is None else row[0]

    async def effect(self, name: str, *arguments: object) -> None:
        """Run a statement with an effect that commits by itself, outside of a transaction.

        Raises:
            UnavailableError: it had no effect.
            UnknownOutcomeError: it may have had.
        """
        try:
            with DB_QUERY_SECONDS.labels(name).time(), self._primary.overseen():
                await self._connection.fetch(QUERIES[name], *arguments)
        except DRIVER_ERRORS as error:
            if is_of_a_standby(error):
                self._connection.terminate()
            raise meaning_of_effect(error) from error


class PostgresPool:
    """Up to `size_max` connections to the database of a DSN in URL form (TLS by its `sslmode`).

    The holder of a claimed outbox batch needs a second connection for anything else.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size_max: int,
        connect_timeout_seconds: float,
        statement_timeout_seconds: float,
    ) -> None:
        self._primary = Primary(dsn, connect_timeout_seconds=connect_timeout_seconds)
        self._size_max = size_max
        self._connect_timeout_seconds = connect_timeout_seconds
        self._statement_timeout_seconds = statement_timeout_seconds
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._failures = 0
        self._pauses = Pauses(BACKOFF_FIRST_SECONDS, BACKOFF_LAST_SECONDS)
        self._reason = ""
        self._trying = False
        self._retry_at = 0.0

    @property
    def servers(self) -> int:
        """Return how many servers the DSN names."""
        return self._primary.servers

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Session]:
        """Yield a connection outside of any transaction."""
        async with self._held() as connection:
            yield Session(connection, self._primary)

    async def read(self, name: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Return the rows of one statement, outside of any transaction. Raises as `fetch` does."""
        async with self.reading() as session:
            return await session.fetch(name, *arguments)

    async def write(self, name: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Return the rows of one statement in a transaction. Raises as `transaction` does."""
        async with self.transaction() as session:
            return await session.fetch(name, *arguments)

    @contextlib.asynccontextmanager
    async def transaction(self, *, timeout_seconds: float | None = None) -> AsyncIterator[Session]:
        """Yield a connection in a READ COMMITTED transaction; commit on leaving, or roll back.

        `timeout_seconds` sets the deadline of its statements, on a connection beside the pool.

        Raises:
            UnavailableError: rolled back, or not even begun.
            UnknownOutcomeError: the answer to COMMIT was lost.
        """
        taken = self._held() if timeout_seconds is None else self._beside(timeout_seconds)
        async with taken as connection:
            transaction = connection.transaction()
            try:
                with self._primary.overseen():
                    await transaction.start()
            except DRIVER_ERRORS as error:
                raise meaning(error) from error
            try:
                yield Session(connection, self._primary)
            except BaseException:
                await _roll_back(connection, transaction)
                raise
            try:
                with self._primary.overseen():
                    await transaction.commit()
            except DRIVER_ERRORS as error:
                raise meaning_at_commit(error) from error

    @contextlib.asynccontextmanager
    async def dedicated(self, *, timeout_seconds: float | None = None) -> AsyncIterator[Session]:
        """Yield a dedicated connection, beside the pool, to hold session locks.

        `timeout_seconds` sets the deadline of its statements and waits for locks.
        """
        async with self._beside(timeout_seconds or self._statement_timeout_seconds) as connection:
            yield Session(connection, self._primary)

    @contextlib.asynccontextmanager
    async def _beside(self, timeout_seconds: float) -> AsyncIterator[Held]:
        connection = await self._connect(timeout_seconds)
        try:
            yield connection
        finally:
            with contextlib.suppress(*DRIVER_ERRORS):  # then it is aborted
                await connection.close(timeout=TIDY_SECONDS)

    async def close(self) -> None:
        """Close the connections; abort those still in use after `TIDY_SECONDS`."""
        self._closed = True
        await self._primary.close()
        pool, self._pool = self._pool, None
        if pool is None:
            return
        with contextlib.suppress(*DRIVER_ERRORS):  # then it is terminated
            async with asyncio.timeout(TIDY_SECONDS):
                await pool.close()

    @contextlib.asynccontextmanager
    async def _held(self) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
        pool = await self._open()
        # Longer than an attempt to connect, so that its failure is reported as one.
        seconds = 2 * self._connect_timeout_seconds
        try:
            connection = await pool.acquire(timeout=seconds)
        except TimeoutError as error:
            raise UnavailableError(f"no connection to PostgreSQL within {seconds:g} s") from error
        except DRIVER_ERRORS as error:
            raise meaning(error) from error
        try:
            yield connection
        finally:
            with contextlib.suppress(*DRIVER_ERRORS):  # then the pool has dropped the connection
                await pool.release(connection, timeout=TIDY_SECONDS)

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        """Create the pool inside the running loop; without connections this cannot fail."""
        async with self._opening:
            if self._closed:
                raise UnavailableError("the connections to PostgreSQL are closed")
            if self._pool is None:
                self._primary.watch()
                self._pool = await asyncpg.create_pool(
                    min_size=0,
                    max_size=self._size_max,
                    connect=lambda *_, **__: self._connect(self._statement_timeout_seconds),
                    reset=_keep,
                )
            return self._pool

    async def _connect(self, statement_timeout_seconds: float) -> Connection:
        """Connect; while PostgreSQL is away only one call at a time and with pauses."""
        if self._failures and (self._trying or time.monotonic() < self._retry_at):
            raise UnavailableError(f"{self._reason}; trying again in a moment")
        self._trying = True
        try:
            connection = await self._primary.connect(
                statement_timeout_seconds=statement_timeout_seconds
            )
        except PolyglotError as error:
            self._failed(error)
            raise
        finally:
            self._trying = False
        if self._failures:
            _log.info("store_back", store="postgres", failures=self._failures)
        self._failures = 0
        self._pauses.begin_again()
        return connection

    def _failed(self, error: PolyglotError) -> None:
        if not self._failures:
            _log.warning("store_away", store="postgres", error=str(error))
        self._failures += 1
        self._reason = str(error)
        self._retry_at = time.monotonic() + self._pauses.next()


async def _keep(_connection: object) -> None:
    """Do nothing instead of asyncpg's round trip that resets the session.

    Nothing sets session state on pooled connections; an open transaction is rolled back before.
    """


async def _roll_back(connection: Held, transaction: asyncpg.transaction.Transaction) -> None:
    try:
        async with asyncio.timeout(TIDY_SECONDS):
            await transaction.rollback()
    except DRIVER_ERRORS:
        # Without its connection the server rolls back by itself.
        with contextlib.suppress(*DRIVER_ERRORS):  # asyncpg has noticed and dropped it
            connection.terminate()
