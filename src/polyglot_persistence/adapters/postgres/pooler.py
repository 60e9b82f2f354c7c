"""Detects a pooler behind a connection, and refuses one that shares sessions.

At login, a server sends the client its process id, for canceling. A pooler logs clients in before
it has a server for them and makes the id up, so a different process answers. If that process works
while its client is silent, or changes, the pooler assigns servers per transaction and not per
session: then session locks, deadlines and prepared statements are shared with other clients.

https://www.pgbouncer.org/features.html lists what each `pool_mode` breaks.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import asyncpg

from polyglot_persistence.adapters.postgres.failures import (
    DRIVER_ERRORS,
    SHARED_STATES,
    shared_session,
)
from polyglot_persistence.adapters.postgres.queries import QUERIES

OTHERS_MAX: Final = 3
"""Connections that check the process. An idle pooler gives it to the first of them; under traffic
one of them sees it work for another client."""

LOOKING_SECONDS: Final = 1.0
"""Where sessions are not shared, a client may wait for one until another client ends."""

_UNSUPPORTED: Final = "unsupported startup parameter"

# Quoted, since asyncpg's classes are generic only in their stubs.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def refuses_settings(error: Exception) -> bool:
    """Return whether the error is of a pooler that forwards no session settings at login."""
    return isinstance(error, asyncpg.PostgresError) and _UNSUPPORTED in str(error)


async def refuse_shared_sessions(
    connection: Connection, process: int, connect: Callable[[], Awaitable[Connection]]
) -> bool:
    """Check the process behind a silent connection, through other connections.

    Returns whether that was possible: a pooler that is full, or slow, has no connection for it.

    Raises:
        UnavailableError: the pooler shares sessions.
    """
    others: list[Connection] = []
    first: asyncpg.Record | None = None
    looks = 0
    try:
        with contextlib.suppress(*DRIVER_ERRORS):
            async with asyncio.timeout(LOOKING_SECONDS):
                for _ in range(OTHERS_MAX):
                    others.append(await connect())
                    seen = await _look(others[-1], process)
                    first = first or seen
                    if seen["mine"] or seen["works"] or seen["since"] != first["since"]:
                        raise shared_session()
                    looks += 1
        if not (await _seen(connection, process))["mine"]:
            raise shared_session()
    finally:
        for other in others:
            other.terminate()
    return looks == OTHERS_MAX


async def _look(other: Connection, process: int) -> asyncpg.Record:
    """Return the state of the process; the open transaction keeps the connection's own process."""
    try:
        await other.execute("BEGIN")
    except asyncpg.PostgresError as error:  # from pool_mode=statement
        raise shared_session() from error
    return await _seen(other, process)


async def _seen(connection: Connection, process: int) -> asyncpg.Record:
    try:
        seen = await connection.fetchrow(QUERIES["look_at_process"], process)
    except asyncpg.PostgresError as error:
        if error.sqlstate in SHARED_STATES:
            raise shared_session() from error
        raise
    assert seen is not None  # noqa: S101  it returns the row
    return seen
