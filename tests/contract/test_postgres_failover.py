"""PostgreSQL with a standby: only a primary is used, and a new one is found in time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.bootstrap.doctor import examine
from polyglot_persistence.config import load
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from tests.support.eventually import eventually
from tests.support.orders import accepted
from tests.support.record import onlooker
from tests.support.standby import Pair, both, pair_of_servers

pytestmark = pytest.mark.timeout(180)

FOUND_SECONDS = 10.0
"""How long after a promotion the new primary may not be in use yet."""

CONNECTIONS = 8

NOWHERE = {
    "REDIS_ADDR": "unix:///nowhere/redis",
    "RABBITMQ_URL": "unix:///nowhere/redis",
    "ELASTICSEARCH_URL": "tantivy:///nowhere",
}
"""Stores that are not looked at."""


@pytest_asyncio.fixture
async def pair(stopped_postgres: Path) -> AsyncIterator[Pair]:
    async with pair_of_servers(stopped_postgres) as pair:
        yield pair


@pytest_asyncio.fixture
async def pool(pair: Pair) -> AsyncIterator[PostgresPool]:
    """As a process has it whose settings are the defaults."""
    pool = default_pool(pair.dsn)
    yield pool
    await pool.close()


def default_pool(dsn: str) -> PostgresPool:
    return PostgresPool(
        dsn,
        size_max=CONNECTIONS,
        connect_timeout_seconds=3,
        statement_timeout_seconds=10,
    )


async def at_once(call: Callable[[], Awaitable[object]]) -> None:
    """Call as often as there are connections, side by side."""
    await asyncio.gather(*[call() for _ in range(CONNECTIONS)])


async def is_late(pool: PostgresPool) -> None:
    """A statement has waited for so long that another primary is looked for."""
    assert pool._primary._late


async def persists(store: PostgresRecord) -> None:
    """Persist on every connection, as often as needed."""

    async def one() -> None:
        assert (await store.persist([accepted(order_id=new_id())])).inserted

    async def attempt() -> None:
        await at_once(one)

    retried = (UnavailableError, UnknownOutcomeError)
    await eventually(attempt, within_seconds=FOUND_SECONDS, retried=retried)


async def test_a_promoted_standby_is_used(pair: Pair, pool: PostgresPool) -> None:
    """After a kill: by reads and writes of every connection, and by what is new."""
    store = PostgresRecord(pool)
    await persists(store)
    before = await store.new_epoch()
    await pair.caught_up()
    await pair.primary.killed()
    with pytest.raises(UnavailableError):
        await store.find([])
    await pair.standby.promote()
    await persists(store)
    found = await store.found_epoch()
    assert found == (await store.epoch(), False)
    assert found[0] != before
    assert await migrate(pair.dsn) == []
    (warning,) = (await store.ping()).warnings
    assert warning.detail == "POSTGRES_DSN names 2 servers, and no standby follows the primary"


async def test_an_epoch_that_a_failover_lost_is_not_handed_out_again(pair: Pair) -> None:
    """The new primary lacks the last ones, and still differs from each that was ever read."""
    primary = default_pool(pair.primary.dsn)
    store = PostgresRecord(primary)
    replicated = [(await store.found_epoch())[0], await store.new_epoch()]
    await pair.caught_up()
    await pair.cut_off()
    lost = [await store.new_epoch(), await store.new_epoch()]
    await primary.close()
    await pair.primary.killed()
    await pair.standby.promote()
    promoted = default_pool(pair.standby.dsn)
    store = PostgresRecord(promoted)
    found = await store.epoch()
    assert found is not None
    assert found == (await store.find([])).epoch
    assert len({*replicated, *lost, found, await store.new_epoch()}) == 6
    await promoted.close()


async def test_a_standby_alone_is_no_record(pair: Pair) -> None:
    """Health says so, and nothing is read from it: it may lack what was persisted."""
    pool = default_pool(pair.standby.dsn)
    store = PostgresRecord(pool)
    order = accepted()
    for call in (store.ping, lambda: store.find([]), lambda: store.persist([order])):
        with pytest.raises(UnavailableError, match="standby"):
            await call()
    with pytest.raises(UnavailableError, match="standby"):
        await migrate(pair.standby.dsn)
    await pool.close()


async def findings(dsn: str) -> list[tuple[str, str]]:
    """Return what `polyglot doctor` says of a record."""
    found = await examine(load({"POSTGRES_DSN": dsn, **NOWHERE}))
    return [(one.level, one.detail) for one in found if one.store == "record"]


async def test_doctor_fails_on_a_standby_alone(pair: Pair) -> None:
    """It answers every read, and is no record all the same."""
    ((level, detail),) = await findings(pair.standby.dsn)
    assert level == "FAIL"
    assert "standby" in detail


@pytest.mark.parametrize("role", ["superuser", "worker"])
async def test_doctor_says_whether_a_failover_can_lose_orders(
    pair: Pair, stopped_postgres: Path, role: str
) -> None:
    """To a role that may not see the standby's state, too."""
    dsn = pair.dsn
    async with onlooker(pair.primary.dsn) as there:
        if role == "worker":
            await there.execute("CREATE ROLE worker LOGIN PASSWORD 'w'")
            for schema in ("TABLES", "SEQUENCES"):
                await there.execute(f"GRANT ALL ON ALL {schema} IN SCHEMA public TO worker")
            parts = urlsplit(dsn)
            dsn = urlunsplit(parts._replace(netloc="worker:w@"))
        passed, warned = await findings(dsn)
        assert passed[0] == "PASS"
        assert "primary of 1 asynchronous standby" in passed[1]
        assert warned[0] == "WARN"
        assert "asynchronous: a promoted one may lack the last persisted orders" in warned[1]
        await there.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await there.execute("SELECT pg_reload_conf()")

        async def synchronous() -> None:
            ((level, detail),) = await findings(dsn)
            assert level == "PASS"
            assert "primary of 1 synchronous standby" in detail

        await eventually(synchronous)
        database = await there.value("SELECT current_database()")
        await there.execute(f"ALTER DATABASE {database} SET synchronous_commit = local")
        passed, warned = await findings(dsn)
        assert "asynchronous" in passed[1]
        assert warned[0] == "WARN"


async def test_a_standby_that_is_named_first_is_passed_over(pair: Pair) -> None:
    """The order of the servers does not matter, nor that one is named twice."""
    pool = default_pool(both(pair.standby.dsn, both(pair.standby.dsn, pair.primary.dsn)))
    assert (await PostgresRecord(pool).persist([accepted()])).inserted
    await pool.close()


async def test_without_a_primary_each_server_has_its_reason(pair: Pair, pool: PostgresPool) -> None:
    """One is a standby, the other is not there; no password is told."""
    await pair.primary.killed()
    with pytest.raises(UnavailableError) as caught:
        await PostgresRecord(pool).ping()
    text = str(caught.value)
    assert "standby" in text
    assert "cannot be reached" in text
    assert pair.primary._password not in text


@pytest.mark.parametrize("looking", [False, True], ids=["at once", "while looking for one"])
async def test_a_frozen_primary_is_left_once_another_is_promoted(
    pair: Pair, pool: PostgresPool, looking: bool
) -> None:
    """By statements that wait for it, by idle connections and by a role that a session holds.

    The frozen server keeps its connections and accepts new ones; a deadline is not waited for.
    """
    store = PostgresRecord(pool)
    async with store.lead("sweeper") as lead:
        assert lead is not None
        await persists(store)  # now each connection is there
        await pair.caught_up()
        with pair.primary.frozen():
            waiting = asyncio.create_task(lead.confirm())
            hung = [asyncio.create_task(store.persist([accepted()])) for _ in range(3)]
            if looking:
                await eventually(partial(is_late, pool), within_seconds=5)
            await pair.standby.promote()
            async with asyncio.timeout(FOUND_SECONDS):  # which the service promises
                await persists(store)
                with pytest.raises(UnavailableError):
                    await waiting
                for error in await asyncio.gather(*hung, return_exceptions=True):
                    assert isinstance(error, UnavailableError)
        # It wakes up and still takes itself for the primary.
        await persists(store)
    async with onlooker(pair.primary.dsn) as there:
        assert not await there.value(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polyglot%'"
        )


async def test_after_a_restart_of_the_primary_all_connections_are_to_it(
    pair: Pair, pool: PostgresPool
) -> None:
    """The standby answers meanwhile, and is not what the pool is left with."""
    store = PostgresRecord(pool)
    await persists(store)
    await pair.primary.stop()
    ended = time.monotonic() + 3.0
    while time.monotonic() < ended:
        failed = await asyncio.gather(
            *[store.find([new_id()]) for _ in range(CONNECTIONS)], return_exceptions=True
        )
        assert all(isinstance(error, UnavailableError) for error in failed)
        with pytest.raises(UnavailableError):
            await store.ping()
        await asyncio.sleep(0.02)
    await pair.primary.start()
    await persists(store)
    async with onlooker(pair.standby.dsn) as there:
        assert not await there.value(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polyglot%'"
        )


async def test_a_call_whose_connection_is_ended_fails_as_any_other(pool: PostgresPool) -> None:
    """At whatever moment another primary is found, and how often: nothing else is raised."""
    store = PostgresRecord(pool)
    stopped = False
    failed = 0

    async def call() -> None:
        nonlocal failed
        while not stopped:
            try:
                await store.ping()
                await store.find([new_id()])
                await store.persist([accepted(order_id=new_id())])
            except (UnavailableError, UnknownOutcomeError):
                failed += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(call())
        try:
            for n in range(150):
                connection = await pool._connect(1.0)
                pool._primary._adopt(connection, f"00000001 {n}")
                await connection.close()
        finally:
            stopped = True
    assert failed


# --- two primaries at once -------------------------------------------------------------------


async def on(dsn: str) -> int:
    """Return how many connections of the program a server has."""
    async with onlooker(dsn) as there:
        connections: int = await there.value(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polyglot%'"
        )
    return connections


async def test_a_former_primary_that_still_answers_is_left(pair: Pair, pool: PostgresPool) -> None:
    """No statement is late and no connection ends: it was not fenced when another was promoted."""
    store = PostgresRecord(pool)
    await persists(store)
    async with store.lead("sweeper") as lead:
        assert lead is not None
        await pair.standby.promote()

        async def left() -> None:
            assert not await on(pair.primary.dsn)

        await eventually(left, within_seconds=FOUND_SECONDS)
        with pytest.raises(UnavailableError):
            await lead.confirm()
    await persists(store)
    assert not await on(pair.primary.dsn)
    assert await on(pair.standby.dsn)


@pytest.mark.parametrize("first", ["former", "new"])
async def test_of_two_primaries_a_process_begins_with_the_new_one(pair: Pair, first: str) -> None:
    """Whichever the DSN names first."""
    await pair.standby.promote()
    servers = (pair.primary.dsn, pair.standby.dsn)
    pool = default_pool(both(*(servers if first == "former" else reversed(servers))))
    store = PostgresRecord(pool)
    await asyncio.gather(*[store.persist([accepted(order_id=new_id())]) for _ in range(4)])
    assert not await on(pair.primary.dsn)
    async with onlooker(pair.standby.dsn) as there:
        assert await there.value("SELECT count(*) FROM orders") == 4
    await pool.close()


async def test_a_former_primary_is_refused_once_the_new_one_was_used(
    pair: Pair, pool: PostgresPool
) -> None:
    """It came back as it was, and the new one is away: no record is better than two."""
    store = PostgresRecord(pool)
    await persists(store)
    await pair.caught_up()
    await pair.primary.killed()
    await pair.standby.promote()
    await persists(store)
    await pair.standby.killed()
    await pair.primary.start()

    async def refused() -> None:
        with pytest.raises(UnavailableError, match="former primary"):
            await store.ping()

    await eventually(refused, within_seconds=FOUND_SECONDS)
    with pytest.raises(UnavailableError):
        await store.persist([accepted()])
    await pair.standby.start()
    await persists(store)
