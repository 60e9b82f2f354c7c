"""Migrating: once, by any number of processes at once, never over what it cannot know."""

import asyncio

import asyncpg
import pytest

from polyglot_persistence.adapters.postgres import migrate as module
from polyglot_persistence.adapters.postgres.migrate import Migration, migrate
from polyglot_persistence.errors import ConfigurationError, UnavailableError
from tests.support.processes import free_port
from tests.support.record import onlooker

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"


async def test_an_empty_database_gets_the_schema_and_a_second_run_nothing(
    postgres_dsn: str,
) -> None:
    """The names of what was applied are returned, and kept with their checksums."""
    applied = await migrate(postgres_dsn)
    assert applied[0] == "0001_foundation"
    assert await migrate(postgres_dsn) == []
    async with onlooker(postgres_dsn) as seen:
        names = await seen.rows("SELECT name FROM schema_migrations ORDER BY version")
        assert [name for (name,) in names] == applied
        assert await seen.rows("SELECT matviewname FROM pg_matviews") == [("daily_sales_mv",)]


async def test_any_number_may_migrate_at_once(postgres_dsn: str) -> None:
    """One does the work, the others wait for it and find nothing to do."""
    applied = await asyncio.gather(*[migrate(postgres_dsn) for _ in range(5)])
    assert sorted(len(names) for names in applied) == [0, 0, 0, 0, max(map(len, applied))]


async def test_an_edited_migration_is_refused(postgres_dsn: str) -> None:
    """The schema would not be what the files say, and nobody would notice."""
    await migrate(postgres_dsn)
    async with onlooker(postgres_dsn) as seen:
        await seen.execute("UPDATE schema_migrations SET checksum = 'another' WHERE version = 1")
        with pytest.raises(ConfigurationError, match="0001_foundation was edited"):
            await migrate(postgres_dsn)


async def test_a_newer_database_is_refused(postgres_dsn: str) -> None:
    """An older program does not know what the newer one rests on."""
    await migrate(postgres_dsn)
    async with onlooker(postgres_dsn) as seen:
        await seen.execute(
            "INSERT INTO schema_migrations (version, name, checksum)"
            " VALUES (9999, '9999_future', 'x')"
        )
        with pytest.raises(ConfigurationError, match=r"newer than this program.*9999_future"):
            await migrate(postgres_dsn)


async def test_a_failing_migration_leaves_no_trace(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before it are applied and kept; mended, it goes on from there."""
    good = Migration(1, "0001_good", "CREATE TABLE good (id int)")
    bad = Migration(2, "0002_bad", "CREATE TABLE bad (id int); SELECT 1/0")
    monkeypatch.setattr(module, "_migrations", lambda: [good, bad])
    with pytest.raises(Exception, match="division by zero"):
        await migrate(postgres_dsn)
    async with onlooker(postgres_dsn) as seen:
        assert await seen.rows(TABLES) == [("good",), ("schema_migrations",)]
        mended = Migration(2, "0002_mended", "CREATE TABLE mended (id int)")
        monkeypatch.setattr(module, "_migrations", lambda: [good, mended])
        assert await migrate(postgres_dsn) == ["0002_mended"]
        assert await seen.rows(TABLES) == [("good",), ("mended",), ("schema_migrations",)]


async def test_no_superuser_is_needed(postgres_dsn: str) -> None:
    """A role that owns nothing but its schema can migrate and refresh."""
    async with onlooker(postgres_dsn) as seen:
        await seen.execute("CREATE ROLE plain; GRANT CREATE ON SCHEMA public TO plain")
        try:
            as_plain = "&role=plain" if "?" in postgres_dsn else "?role=plain"
            await migrate(postgres_dsn + as_plain)
            owner = await seen.value("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'")
            assert owner == "plain"
        finally:
            await seen.execute("DROP OWNED BY plain; DROP ROLE plain")


async def test_a_server_that_is_away_is_unavailable() -> None:
    """Whoever migrates at start tries again."""
    with pytest.raises(UnavailableError):
        await migrate(f"postgresql://nobody@127.0.0.1:{free_port()}/none")


async def test_an_older_server_is_refused(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says which version is needed and which one this is."""
    monkeypatch.setattr(module, "SERVER_VERSION_MIN", 99)
    with pytest.raises(ConfigurationError, match=r"99 or newer is needed, this is \d\d"):
        await migrate(postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn, timeout=10)
    assert await connection.fetch(TABLES) == []
    await connection.close(timeout=10)
