"""Stores for contract tests: a record, emptied for each test, search engines, servers of their own.

A database of its own (`postgres_dsn`) is for tests of the schema itself; it costs ten times more.
"""

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.ports.record import Record
from polyglot_persistence.ports.search import SearchIndex
from tests.simulation.stores.record import RecordServer
from tests.support.addresses import (
    ELASTICSEARCH,
    REDIS,
    SIMULATED,
    SIMULATED_POSTGRES_TOO,
    address_of,
    bundled_or_real,
)
from tests.support.installed_redis import InstalledRedis
from tests.support.record import Onlooker, empty, onlooker, pool_on
from tests.support.records import (
    Postgres,
    PostgresTables,
    RecordEngine,
    SimulatedRecord,
    SimulatedTables,
    Tables,
)
from tests.support.search_elasticsearch import Elasticsearch
from tests.support.search_indexes import REAL_ENGINES, SearchEngine, Tantivy, made
from tests.support.search_simulated import Simulated
from tests.support.servers import fresh_database, running, short_directory

_POSTGRES_ITSELF = frozenset({"pool", "record_database", "record_dsn", "seen", "postgres_dsn"})
"""Fixtures that only the real one has."""


@pytest.hookimpl(tryfirst=True)  # before pytest makes parameters of marks
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a record and nothing of PostgreSQL itself on the simulated one, too."""
    asked = frozenset(metafunc.fixturenames)
    marks = metafunc.definition.iter_markers("parametrize")
    chosen = [name for mark in marks for name in _names(mark.args[0])]
    if "record" in asked and not asked & _POSTGRES_ITSELF and "postgres_address" not in chosen:
        metafunc.definition.add_marker(SIMULATED_POSTGRES_TOO)


def _names(of_a_mark: str | Sequence[str]) -> Sequence[str]:
    return of_a_mark.split(",") if isinstance(of_a_mark, str) else of_a_mark


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
def record_server() -> RecordServer:
    """The server behind the simulated record."""
    return RecordServer(SystemClock())


@pytest.fixture
def record(
    request: pytest.FixtureRequest, postgres_address: str, record_server: RecordServer
) -> RecordEngine:
    """The empty record; also the simulated one, if a test asks nothing of PostgreSQL itself."""
    if postgres_address == SIMULATED:
        return SimulatedRecord(record_server)
    return Postgres(request.getfixturevalue("pool"))


@pytest.fixture
def tables(
    request: pytest.FixtureRequest, postgres_address: str, record_server: RecordServer
) -> Tables:
    """A look at the record."""
    if postgres_address == SIMULATED:
        return SimulatedTables(record_server)
    return PostgresTables(request.getfixturevalue("seen"))


@pytest.fixture
def store(record: RecordEngine) -> Record:
    """The record's orders."""
    return record.store()


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
    return await made(engine)
