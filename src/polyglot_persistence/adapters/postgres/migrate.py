"""The schema's migrations: numbered SQL files, applied in order, each in its own transaction.

Invariant: an applied file is never edited; its checksum is verified.
Invariant: any number of processes may migrate at once; one works, the others wait and then find
nothing to do.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Final, NamedTuple

import asyncpg

from polyglot_persistence.adapters.postgres.failures import DRIVER_ERRORS, meaning
from polyglot_persistence.adapters.postgres.locks import lock_key
from polyglot_persistence.adapters.postgres.pool import SERVER_VERSION_MIN
from polyglot_persistence.adapters.postgres.primary import Primary
from polyglot_persistence.errors import ConfigurationError
from polyglot_persistence.telemetry import logger

_log = logger("migrate")

CONNECT_TIMEOUT_SECONDS: Final = 10.0
MIGRATION_TIMEOUT_SECONDS: Final = 900.0
"""For one migration, and for waiting for another process's: indexing a large table takes time."""

_FILE_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_LOCK: Final = lock_key("migrate")

_BOOKKEEPING: Final = """
CREATE TABLE schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT transaction_timestamp()
)"""


class Migration(NamedTuple):
    """One numbered file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(dsn: str) -> list[str]:
    """Bring the schema up to date and return the names of the migrations applied by this call.

    A failed migration leaves no trace; those before it remain applied. The role need not be a
    superuser, only be allowed to create tables, and not even that if nothing is missing.

    Raises:
        ConfigurationError: the server is too old, or its schema is not an earlier state of this
            code's.
        UnavailableError: PostgreSQL is away; call again.
    """
    async with migrating(dsn) as connection:
        return await _migrate(connection)


@asynccontextmanager
async def migrating(dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Give a connection to the primary, with a migration's deadlines; translate driver errors."""
    primary = Primary(
        dsn,
        connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
        application_name="polyglot-persistence migrate",
    )
    try:
        connection = await primary.connect(statement_timeout_seconds=MIGRATION_TIMEOUT_SECONDS)
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
    except DRIVER_ERRORS as error:
        raise meaning(error) from error


async def _migrate(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    if connection.get_server_version().major < SERVER_VERSION_MIN:
        raise ConfigurationError(
            f"PostgreSQL {SERVER_VERSION_MIN} or newer is needed,"
            f" this is {connection.get_server_version().major}"
        )
    # A session lock, which spans the single transactions and ends with the connection.
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    # Checked first: a role that may not create tables can still see that nothing is missing.
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        await connection.execute(_BOOKKEEPING)
    records = await connection.fetch("SELECT version, name, checksum FROM schema_migrations")
    known = _migrations()
    applied = {record["version"]: record for record in records}
    _check(known, applied)
    names = []
    for migration in known:
        if migration.version in applied:
            continue
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                *(migration.version, migration.name, migration.checksum),
            )
        _log.info("migrated", version=migration.version, name=migration.name)
        names.append(migration.name)
    return names


def _migrations() -> Sequence[Migration]:
    folder = resources.files(__package__).joinpath("migrations")
    found = []
    for entry in folder.iterdir():
        if match := _FILE_NAME.fullmatch(entry.name):
            text = entry.read_text(encoding="utf-8").replace("\r\n", "\n")
            found.append(Migration(int(match[1]), f"{match[1]}_{match[2]}", text))
    return sorted(found)


def _check(known: Sequence[Migration], applied: Mapping[int, asyncpg.Record]) -> None:
    by_version = {migration.version: migration for migration in known}
    for version, record in applied.items():
        migration = by_version.get(version)
        if migration is None:
            raise ConfigurationError(
                f"the database is newer than this program: it has migration {record['name']};"
                " run a newer version of the program"
            )
        if migration.checksum != record["checksum"]:
            raise ConfigurationError(
                f"migration {migration.name} was edited after it was applied to this database;"
                " restore the file and put the change into a new migration"
            )
