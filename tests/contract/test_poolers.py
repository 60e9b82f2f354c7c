"""PostgreSQL behind a real PgBouncer: refused unless each client has a session of its own."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.bootstrap import doctor
from polyglot_persistence.config import load
from polyglot_persistence.errors import UnavailableError
from tests.support.eventually import eventually
from tests.support.orders import accepted
from tests.support.pgbouncer import NEEDS_PGBOUNCER, pgbouncer
from tests.support.processes import free_port, started
from tests.support.record import onlooker, pool_on

pytestmark = NEEDS_PGBOUNCER

SHARED = "a pooler shares sessions of PostgreSQL between clients; set pool_mode=session"
IGNORED = (
    "statement_timeout, lock_timeout, idle_in_transaction_session_timeout, idle_session_timeout, "
    "default_transaction_isolation, row_security, tcp_keepalives_idle, tcp_keepalives_interval, "
    "tcp_keepalives_count, jit"
)
"""What administrators write for clients that send settings at login."""

SESSION_POOLERS = [
    {"pool_mode": "session"},
    {"pool_mode": "session", "ignore_startup_parameters": IGNORED},
    {"pool_mode": "session", "server_round_robin": "1", "default_pool_size": "50"},
]
SHARING_POOLERS = [
    {"pool_mode": "transaction"},
    {"pool_mode": "transaction", "ignore_startup_parameters": IGNORED},
    {"pool_mode": "transaction", "server_round_robin": "1"},
    {"pool_mode": "transaction", "default_pool_size": "1"},
    {"pool_mode": "transaction", "server_reset_query_always": "1"},
    {"pool_mode": "statement"},
    {"pool_mode": "statement", "ignore_startup_parameters": IGNORED},
]


def _name(settings: object) -> str:
    return " ".join(f"{v}" if n == "pool_mode" else n for n, v in dict(settings).items())  # type: ignore[call-overload]


async def ping(dsn: str) -> None:
    async with pool_on(dsn, connect_timeout_seconds=20) as pool:
        await PostgresRecord(pool).ping()


@asynccontextmanager
async def traffic(dsn: str, clients: int) -> AsyncIterator[None]:
    """Have other clients run transactions one after another, of which each keeps a server busy."""
    stopped = asyncio.Event()

    async def client() -> None:
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
        try:
            while not stopped.is_set():
                await connection.execute("BEGIN; SELECT pg_sleep(0.002); COMMIT")
        finally:
            connection.terminate()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
        yield
        stopped.set()


@pytest.mark.parametrize("settings", SESSION_POOLERS, ids=_name)
async def test_a_pooler_of_sessions_works(postgres_dsn: str, settings: dict[str, str]) -> None:
    """Migrations, orders, deadlines and roles are as without it."""
    async with pgbouncer(postgres_dsn, **settings) as dsn, onlooker(postgres_dsn) as seen:
        assert await migrate(dsn)
        async with (
            pool_on(dsn, connect_timeout_seconds=20) as pool,
            pool_on(dsn, connect_timeout_seconds=20) as other,
        ):
            store = PostgresRecord(pool)
            orders = [accepted(n) for n in range(60)]
            await asyncio.gather(*[store.persist(orders[n : n + 20]) for n in range(0, 50, 2)])
            assert await seen.value("SELECT count(*) FROM orders") == 60
            await seen.assert_rollup_exact()
            async with pool.reading() as session:
                show = session._connection.fetchval
                assert await show("SHOW statement_timeout") == "5s"
                assert await show("SHOW row_security") == "off"
                assert await show("SHOW TimeZone") == "UTC"
            async with store.lead("refresh") as lead:
                assert lead is not None
                async with PostgresRecord(other).lead("refresh") as second:
                    assert second is None
                await lead.confirm()
            async with PostgresRecord(other).lead("refresh") as lead:
                assert lead is not None
            async with PostgresDeadLetters(pool).turn() as turn:
                await turn.confirm()


async def test_what_a_client_leaves_is_not_the_next_ones(postgres_dsn: str) -> None:
    """One server for all: its locks, settings and statements go with the client."""
    async with pgbouncer(postgres_dsn, pool_mode="session", default_pool_size="1") as dsn:
        for _ in range(3):
            await migrate(dsn)
        plain = await asyncpg.connect(dsn)
        assert await plain.fetchval("SHOW statement_timeout") == "0"
        assert not await plain.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        await plain.close()


async def test_a_full_pooler_of_sessions_is_away_and_not_refused(postgres_dsn: str) -> None:
    """Whoever has no session yet waits for one, and shares none."""
    async with (
        pgbouncer(postgres_dsn, pool_mode="session", default_pool_size="1") as dsn,
        pool_on(dsn, size_max=1) as pool,
    ):
        await PostgresRecord(pool).ping()  # holds the only one
        async with pool_on(dsn) as other:
            with pytest.raises(UnavailableError, match=r"in time|within"):
                await PostgresRecord(other).ping()


@pytest.mark.parametrize("settings", SHARING_POOLERS, ids=_name)
async def test_a_pooler_that_shares_sessions_is_refused(
    postgres_dsn: str, settings: dict[str, str]
) -> None:
    """By whatever asks the record: the sentence names the setting."""
    async with pgbouncer(postgres_dsn, **settings) as dsn, onlooker(postgres_dsn) as seen:
        for _ in range(3):
            with pytest.raises(UnavailableError, match=SHARED):
                await migrate(dsn)
            with pytest.raises(UnavailableError, match=SHARED):
                await ping(dsn)
        assert await seen.value("SELECT to_regclass('schema_migrations')") is None


@pytest.mark.parametrize("round_robin", ["0", "1"])
@pytest.mark.parametrize("clients", [1, 4, 16])
async def test_it_is_refused_under_traffic(
    postgres_dsn: str, clients: int, round_robin: str
) -> None:
    """However the servers go round between the looks at them."""
    settings = {"pool_mode": "transaction", "server_round_robin": round_robin}
    async with pgbouncer(postgres_dsn, **settings) as dsn, traffic(dsn, clients):
        for _ in range(20):
            with pytest.raises(UnavailableError, match=SHARED):
                await ping(dsn)


async def test_sessions_work_under_traffic(postgres_dsn: str) -> None:
    """What others do says nothing against a pooler of sessions."""
    async with pgbouncer(postgres_dsn, pool_mode="session") as dsn, traffic(dsn, 4):
        await migrate(dsn)
        for _ in range(10):
            await ping(dsn)


async def test_a_session_that_was_not_reset_is_refused(postgres_dsn: str) -> None:
    """Without `server_reset_query` the next client finds the former one's statements."""
    settings = {"pool_mode": "session", "server_reset_query": "", "default_pool_size": "1"}
    async with pgbouncer(postgres_dsn, **settings) as dsn:
        other = await asyncpg.connect(dsn)
        last = (await other.prepare("SELECT 1")).get_name()  # each process numbers its own
        number = int(last.strip("_").rpartition("_")[2], 16)
        names = [f"__asyncpg_stmt_{number + n:x}__" for n in range(1, 9)]
        await other.execute(";".join(f"PREPARE {name} AS SELECT 1" for name in names))
        await other.close()
        with pytest.raises(UnavailableError, match="server_reset_query"):
            await migrate(dsn)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_doctor_names_the_setting(postgres_dsn: str, mode: str) -> None:
    """As what to do, and not that the server be started."""
    async with pgbouncer(postgres_dsn, pool_mode=mode) as dsn:
        findings = await asyncio.to_thread(doctor, load({"POSTGRES_DSN": dsn}))
    (found,) = [one for one in findings if one.store == "record"]
    assert found.level == "FAIL"
    assert found.fix.startswith("set pool_mode=session in PgBouncer ")
    assert "pool_mode" not in found.detail


@pytest.mark.parametrize("command", ["api", "worker"])
async def test_a_process_says_at_its_start_what_to_set(postgres_dsn: str, command: str) -> None:
    """In one line of its log, and not again at each retry; it goes on without the record."""
    async with pgbouncer(postgres_dsn, pool_mode="transaction") as dsn:
        environment = {
            "POSTGRES_DSN": dsn,
            "REDIS_ADDR": "127.0.0.1:1",
            "LOG_FORMAT": "json",
            "RABBITMQ_URL": "redis://127.0.0.1:1",
            "ELASTICSEARCH_URL": "tantivy:///nowhere",
            "API_HOST": "127.0.0.1",
            "API_PORT": str(free_port()),
        }
        arguments = [sys.executable, "-m", "polyglot_persistence", command]
        with started(arguments, environment=environment) as process:

            def said() -> list[str]:
                lines = map(json.loads, process.log().splitlines())
                return [line["error"] for line in lines if line["action"] == "not_prepared"]

            async def is_said() -> None:
                assert said(), process.log()

            await eventually(is_said)
            assert re.search(SHARED, said()[0])
            assert process.code is None
            process.send(signal.SIGTERM)
            await process.ended()
            assert len(said()) == 1
