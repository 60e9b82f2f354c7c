"""Stores for contract tests: a record, emptied for each test, search engines, servers of their own.

A database of its own (`postgres_dsn`) is for tests of the schema itself; it costs ten times more.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.store import PostgresOrderStore
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.ports import OrderStore, SearchIndex
from tests.support.addresses import ELASTICSEARCH, REDIS, address_of, bundled_or_real
from tests.support.installed_redis import InstalledRedis
from tests.support.record import Onlooker, empty, onlooker, pool_on
from tests.support.search_elasticsearch import Elasticsearch
from tests.support.search_indexes import REAL_ENGINES, SearchEngine, Tantivy
from tests.support.search_simulated import Simulated
from tests.support.servers import fresh_database, running, short_directory


@pytest_asyncio.fixture(params=bundled_or_real(REDIS))
async def own_server(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedValkey]:
    """A Valkey or Redis of the test's own, which it may stop, stall and reconfigure."""
    kind = EmbeddedValkey if request.param == "bundled" else InstalledRedis
    with short_directory() as directory:
        async with running(kind(directory / "data")) as server:
            yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def record_database(postgres_address: str) -> AsyncIterator[str]:
    """The DSN of a migrated database, the same one for the whole session."""
    async with fresh_database(postgres_address) as dsn:
        await migrate(dsn)
        yield dsn


@pytest_asyncio.fixture
async def record_dsn(record_database: str) -> str:
    """The DSN of a migrated database without a row."""
    await empty(record_database)
    return record_database


@pytest_asyncio.fixture
async def pool(record_dsn: str) -> AsyncIterator[PostgresPool]:
    """Up to six connections to the empty record."""
    async with pool_on(record_dsn, size_max=6) as pool:
        yield pool


@pytest.fixture
def store(pool: PostgresPool) -> OrderStore:
    """The record."""
    return PostgresOrderStore(pool)


@pytest_asyncio.fixture
async def seen(record_dsn: str) -> AsyncIterator[Onlooker]:
    """The same database through a connection of the test's own."""
    async with onlooker(record_dsn) as seen:
        yield seen


@pytest_asyncio.fixture(params=[*REAL_ENGINES, "simulated"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[SearchEngine]:
    """An engine without an index."""
    with short_directory() as directory:
        engine: SearchEngine
        if request.param == "tantivy":
            engine = Tantivy(directory / "search")
        elif request.param == "simulated":
            engine = Simulated()
        else:
            engine = Elasticsearch(address_of(ELASTICSEARCH))
        try:
            yield engine
        finally:
            await engine.close()


@pytest_asyncio.fixture
async def index(engine: SearchEngine) -> SearchIndex:
    """An empty index."""
    index = engine.process()
    await index.ensure()
    return index
