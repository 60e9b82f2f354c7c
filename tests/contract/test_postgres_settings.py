"""What a database, a role or a server is set to by default: no promise rests on it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.store import PostgresOrderStore
from polyglot_persistence.embedded.postgres import _SETTINGS, EmbeddedPostgres
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.orders import OrderStore
from tests.support.orders import accepted
from tests.support.record import Onlooker, pool_on
from tests.support.servers import copy_directory, running, short_directory


@pytest_asyncio.fixture
async def preset(
    record_dsn: str, seen: Onlooker, request: pytest.FixtureRequest
) -> AsyncIterator[PostgresPool]:
    """Connections to a record whose database has these settings for every new session."""
    database = await seen.value("SELECT current_database()")
    for setting in request.param:
        await seen.execute(f"ALTER DATABASE {database} SET {setting}")
    async with pool_on(record_dsn) as pool:
        yield pool
    await seen.execute(f"ALTER DATABASE {database} RESET ALL")


@pytest.mark.parametrize(
    "preset",
    [
        ["default_transaction_isolation = 'serializable'"],
        ["default_transaction_isolation = 'repeatable read'"],
        [
            "default_transaction_isolation = 'serializable'",
            "default_transaction_deferrable = on",
        ],
        ["synchronous_commit = off"],
        ["standard_conforming_strings = off", "escape_string_warning = off"],
        ["statement_timeout = '1ms'", "lock_timeout = '1ms'"],
        ["bytea_output = 'escape'", "DateStyle = 'German, DMY'", "IntervalStyle = 'sql_standard'"],
    ],
    ids=lambda settings: settings[0].split(" = ")[0] if isinstance(settings, list) else "",
    indirect=True,
)
async def test_what_a_session_is_set_to_by_default_does_not_count(
    preset: PostgresPool, seen: Onlooker
) -> None:
    """Batches at once, of which each two have orders in common: all are persisted, once."""
    store = PostgresOrderStore(preset)
    orders = [accepted(n) for n in range(60)]
    await asyncio.gather(*[store.persist(orders[n : n + 20]) for n in range(0, 50, 2)])
    assert await seen.value("SELECT count(*) FROM orders") == 60
    await seen.assert_rollup_exact()
    async with preset.transaction() as session:
        show = session._connection.fetchval
        assert await show("SHOW transaction_isolation") == "read committed"
        assert await show("SHOW synchronous_commit") != "off"
        assert await show("SHOW standard_conforming_strings") == "on"
        assert await show("SHOW statement_timeout") == "5s"
    assert (await store.ping()).warnings == ()


@pytest.mark.parametrize("preset", [["synchronous_commit = remote_write"]], indirect=True)
async def test_a_stricter_commit_stays_as_it_is(preset: PostgresPool) -> None:
    """Only what a crash of the server would undo is not accepted."""
    async with preset.reading() as session:
        assert await session._connection.fetchval("SHOW synchronous_commit") == "remote_write"


@pytest.mark.parametrize("preset", [["default_transaction_read_only = on"]], indirect=True)
async def test_a_read_only_record_is_away(preset: PostgresPool) -> None:
    """A ping fails, so that nobody takes orders from the queue for it."""
    with pytest.raises(UnavailableError, match="read-only"):
        await PostgresOrderStore(preset).ping()


async def test_a_connection_that_turns_out_read_only_is_not_used_again(
    record_dsn: str, seen: Onlooker
) -> None:
    """A pooler may have put another server behind it: the next call connects anew."""
    async with pool_on(record_dsn, size_max=1) as pool:
        store = PostgresOrderStore(pool)
        async with pool.reading() as session:
            before = session._connection.get_server_pid()
            await session._connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(UnavailableError, match="read-only"):
            await store.persist([accepted()])
        assert (await store.persist([accepted()])).inserted
        async with pool.reading() as session:
            assert session._connection.get_server_pid() != before
    assert await seen.value("SELECT count(*) FROM orders") == 1


async def test_a_policy_never_hides_a_row(
    store: OrderStore, seen: Onlooker, record_dsn: str
) -> None:
    """It would make an order one that does not exist; so reading fails."""
    order = accepted()
    await store.persist([order])
    await seen.execute(
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        "CREATE ROLE plain; GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain"
    )
    database = await seen.value("SELECT current_database()")
    await seen.execute(f"ALTER DATABASE {database} SET role = plain")
    try:
        async with pool_on(record_dsn) as pool:
            with pytest.raises(UnavailableError, match="row-level security"):
                await PostgresOrderStore(pool).find([order.order.id])
    finally:
        await seen.execute(
            f"ALTER DATABASE {database} RESET ALL;"
            "ALTER TABLE orders DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;"
            "DROP OWNED BY plain; DROP ROLE plain"
        )


async def test_a_ping_warns_of_what_only_the_server_can_set(
    stopped_postgres: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash would lose what was committed; the warning names the setting."""
    monkeypatch.setitem(_SETTINGS, "fsync", "off")
    monkeypatch.setitem(_SETTINGS, "full_page_writes", "off")
    with short_directory() as directory:
        copy_directory(stopped_postgres, directory / "data")
        async with (
            running(EmbeddedPostgres(directory / "data")) as server,
            pool_on(server.dsn) as pool,
        ):
            warnings = (await PostgresOrderStore(pool).ping()).warnings
    assert [warning.detail.split()[0] for warning in warnings] == ["fsync", "full_page_writes"]
