"""The servers that every test may use: `postgres_dsn` and `redis_url`, empty for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support.servers import flush, fresh_database, running, short_directory


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server() -> AsyncIterator[EmbeddedPostgres]:
    """A running PostgreSQL, the same one for the whole session."""
    with short_directory() as directory:
        async with running(EmbeddedPostgres(directory / "postgres")) as server:
            yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey_server() -> AsyncIterator[EmbeddedValkey]:
    """A running Valkey, the same one for the whole session."""
    with short_directory() as directory:
        async with running(EmbeddedValkey(directory / "valkey")) as server:
            yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stopped_postgres() -> AsyncIterator[Path]:
    """The data directory of a PostgreSQL that was started and stopped: to copy, never to use."""
    with short_directory() as directory:
        async with running(EmbeddedPostgres(directory / "postgres")):
            pass
        yield directory / "postgres"


@pytest_asyncio.fixture
async def postgres_dsn(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The DSN of a fresh, empty database, dropped after the test."""
    async with fresh_database(postgres_server.dsn) as dsn:
        yield dsn


@pytest_asyncio.fixture
async def redis_url(valkey_server: EmbeddedValkey) -> str:
    """The URL of an empty Valkey."""
    await flush(valkey_server.url)
    return valkey_server.url
