"""The record for contract tests: a fresh migrated database, the port over it, a look beside it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.store import PostgresOrderStore
from polyglot_persistence.ports import OrderStore
from tests.support.record import Onlooker, migrated_pool, onlooker


@pytest_asyncio.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[PostgresPool]:
    """Up to six connections to the fresh database."""
    async with migrated_pool(postgres_dsn, size_max=6) as pool:
        yield pool


@pytest.fixture
def store(pool: PostgresPool) -> OrderStore:
    """The record."""
    return PostgresOrderStore(pool)


@pytest_asyncio.fixture
async def seen(postgres_dsn: str, pool: PostgresPool) -> AsyncIterator[Onlooker]:
    """The same database through a connection of the test's own."""
    async with onlooker(postgres_dsn) as seen:
        yield seen
