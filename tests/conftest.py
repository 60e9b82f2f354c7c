"""The servers that tests may use: `postgres_dsn` and `redis_url`, empty for each test.

Both come once from the bundled server, which is always there, and once from a real one of the
production deployment (`scripts/servers`). Those that are not there skip their tests with a reason,
or fail them with REQUIRE_SERVERS=1.
"""

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support import addresses
from tests.support.redis_ha import RedisHa, primary_url, redis_ha
from tests.support.servers import flush, fresh_database, running, short_directory

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# A shell has what it starts in the background ignore Ctrl-C, and so would every process of ours.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a real server that is not there, but not where all must run.

    One process of several runs the others, for there is one of each server.
    """
    all_must_run = os.environ.get("REQUIRE_SERVERS") == "1"
    for item in items:
        if item.get_closest_marker("servers"):
            item.add_marker(pytest.mark.xdist_group("servers"))
            names = ", ".join(addresses.missing(item))
            if names and not all_must_run:
                item.add_marker(pytest.mark.skip(reason=f"no real server: {names}"))


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Undo what a command that a test runs in this process leaves: variables, level of the log."""
    variables, level = dict(os.environ), logging.root.level
    yield
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)
    logging.root.setLevel(level)


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
async def valkey_sentinels() -> AsyncIterator[RedisHa]:
    """A running Valkey with a replica and Sentinels, the same one for the whole session."""
    async with redis_ha() as topology:
        yield topology


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stopped_postgres() -> AsyncIterator[Path]:
    """The data directory of a PostgreSQL that was started and stopped: to copy, never to use."""
    with short_directory() as directory:
        async with running(EmbeddedPostgres(directory / "postgres")):
            pass
        yield directory / "postgres"


@pytest.fixture(scope="session", params=addresses.bundled_or_real(addresses.POSTGRES))
def postgres_address(request: pytest.FixtureRequest) -> str:
    """The DSN of a PostgreSQL on which to make databases."""
    if request.param == addresses.SIMULATED:
        return addresses.SIMULATED
    if request.param == "real":
        return addresses.address_of(addresses.POSTGRES)
    server: EmbeddedPostgres = request.getfixturevalue("postgres_server")
    return server.dsn


@pytest.fixture(scope="session", params=addresses.bundled_or_real(addresses.REDIS))
def redis_address(request: pytest.FixtureRequest) -> str:
    """The URL of a Redis or Valkey, with what the last test left there."""
    if request.param == addresses.SIMULATED:
        return addresses.SIMULATED
    if request.param == "real":
        return addresses.redis_url()
    if request.param == addresses.SENTINELS:
        topology: RedisHa = request.getfixturevalue("valkey_sentinels")
        return topology.url
    server: EmbeddedValkey = request.getfixturevalue("valkey_server")
    return server.url


@pytest_asyncio.fixture
async def postgres_dsn(postgres_address: str) -> AsyncIterator[str]:
    """The DSN of a fresh, empty database, dropped after the test."""
    async with fresh_database(postgres_address) as dsn:
        yield dsn


@pytest_asyncio.fixture
async def redis_url(redis_address: str) -> str:
    """The URL of an empty Redis or Valkey."""
    if redis_address != addresses.SIMULATED:
        await flush(await primary_url(redis_address))
    return redis_address
