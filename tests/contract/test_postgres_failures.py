"""PostgreSQL failing: what each fault means to a caller, how soon, and that the next call works.

Every fault is made for real: backends ended, stopped or blocked, servers stopped or mute.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit, urlunsplit

import pytest

from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.adapters.postgres.pool import BACKOFF_FIRST_SECONDS, PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.errors import (
    ConfigurationError,
    PoisonError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.ports.record import Record
from tests.support.addresses import BUNDLED_POSTGRES
from tests.support.eventually import eventually
from tests.support.orders import accepted
from tests.support.processes import free_port
from tests.support.record import Onlooker, onlooker, pool_on
from tests.support.servers import running, short_directory

BLOCK_ORDERS = "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"


@asynccontextmanager
async def blocked_store(
    dsn: str, *, statement_timeout_seconds: float = 5.0, size_max: int = 1
) -> AsyncIterator[tuple[Record, Onlooker]]:
    """Give a record with one connection, and a rival that keeps everyone from its orders."""
    async with (
        pool_on(
            dsn, size_max=size_max, statement_timeout_seconds=statement_timeout_seconds
        ) as pool,
        onlooker(dsn) as rival,
    ):
        store = PostgresRecord(pool)
        await store.find([])  # the connection is there, and used again
        await rival.execute(BLOCK_ORDERS)
        yield store, rival


async def test_a_backend_that_dies_before_the_commit_has_done_nothing(record_dsn: str) -> None:
    """The transaction is rolled back for certain; the next call gets a new connection."""
    order = accepted()
    async with blocked_store(record_dsn) as (store, rival), onlooker(record_dsn) as seen:
        task = asyncio.create_task(store.persist([order]))
        await seen.terminate(await seen.blocked())
        with pytest.raises(UnavailableError):
            await task
        await rival.execute("COMMIT")
        assert await seen.value("SELECT count(*) FROM orders") == 0
        assert (await store.persist([order])).inserted == {order.order.id}


AT_COMMIT = """
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN {what}; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION at_commit();
"""


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("PERFORM pg_terminate_backend(pg_backend_pid(), 100)", UnknownOutcomeError),
        ("RAISE EXCEPTION 'no' USING ERRCODE = '40001'", UnavailableError),
        ("RAISE EXCEPTION 'no' USING ERRCODE = '23514'", PoisonError),
        ("RAISE EXCEPTION 'no' USING ERRCODE = '57014'", UnknownOutcomeError),
    ],
    ids=["terminated", "serialization", "constraint", "cancelled"],
)
async def test_only_a_certain_rollback_is_certain(
    store: Record, seen: Onlooker, what: str, error: type[PolyglotError]
) -> None:
    """A failure during COMMIT is an unknown outcome, unless the server surely undid it."""
    await seen.execute(AT_COMMIT.format(what=what))
    order = accepted()
    try:
        with pytest.raises(error):
            await store.persist([order])
    finally:
        await seen.execute("DROP FUNCTION at_commit CASCADE")
    assert (await store.persist([order])).stored.keys() == {order.order.id}
    await seen.assert_rollup_exact()


async def test_a_late_statement_is_ended_by_the_server(record_dsn: str) -> None:
    """Unavailable at its deadline; the one connection serves the next call."""
    order = accepted()
    async with blocked_store(record_dsn, statement_timeout_seconds=0.3) as (store, rival):
        with pytest.raises(UnavailableError):
            await store.persist([order])
        with pytest.raises(UnavailableError):
            await store.find([order.order.id])
        await rival.execute("COMMIT")
        assert (await store.find([order.order.id])).orders == {}
        assert (await store.persist([order])).inserted == {order.order.id}


async def test_a_mute_backend_is_given_up(record_dsn: str) -> None:
    """A server that says nothing at all (a cut cable) costs no more than the deadlines together."""
    async with pool_on(record_dsn, size_max=1, statement_timeout_seconds=0.2) as pool:
        store = PostgresRecord(pool)
        async with pool.reading() as session:
            backend = await session._connection.fetchval("SELECT pg_backend_pid()")
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError, match="in time"):
                await store.find([new_id()])
            assert (await store.find([])).epoch == ""
        finally:
            os.kill(backend, signal.SIGCONT)


async def test_a_cancelled_call_leaves_nothing_behind(record_dsn: str) -> None:
    """No lock, no order, and no reply for the next caller on the same connection."""
    order, other = accepted(), accepted()
    async with blocked_store(record_dsn) as (store, rival), onlooker(record_dsn) as seen:
        for call in (store.persist([order]), store.find([order.order.id])):
            task = asyncio.ensure_future(call)
            await seen.blocked()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await rival.execute("COMMIT")
        assert (await store.persist([other])).inserted == {other.order.id}
        assert (await store.find([order.order.id, other.order.id])).orders.keys() == {
            other.order.id
        }


async def test_a_cancelled_claim_frees_its_rows(store: Record) -> None:
    """Whatever is cancelled in the body: the rows wait for the next."""
    await store.persist([accepted()])
    inside = asyncio.Event()

    async def claim() -> None:
        async with store.claim_outbox(0, 10):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(claim())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.claim_outbox(0, 10) as batch:
        assert len(batch.orders) == 1


async def test_a_claim_whose_connection_died_is_not_done(store: Record, seen: Onlooker) -> None:
    """The rows are another's by then: leaving the context says so."""
    await store.persist([accepted()])
    with pytest.raises(UnavailableError):
        async with store.claim_outbox(0, 10):
            await seen.terminate(
                await seen.value(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                    " AND state = 'idle in transaction'"
                )
            )
    async with store.claim_outbox(0, 10) as batch:
        assert len(batch.orders) == 1


async def test_waiting_for_a_connection_has_a_deadline(record_dsn: str) -> None:
    """With all in use a caller is told so, and not left waiting."""
    pool = PostgresPool(
        record_dsn, size_max=1, connect_timeout_seconds=0.2, statement_timeout_seconds=5
    )
    store = PostgresRecord(pool)
    async with store.claim_outbox(0, 10):
        with pytest.raises(UnavailableError, match=r"within 0\.4 s"):
            await store.find([])
    assert (await store.find([])).epoch == ""
    await pool.close()


async def test_a_closed_pool_is_unavailable(record_dsn: str) -> None:
    """After the end nothing connects again, and closing twice is nothing."""
    async with pool_on(record_dsn) as pool:
        await PostgresRecord(pool).ping()
        await pool.close()
        with pytest.raises(UnavailableError, match="closed"):
            await PostgresRecord(pool).ping()


async def test_a_schema_that_is_not_there_is_unavailable(postgres_dsn: str) -> None:
    """A process may start before the one that migrates; the message says what to do."""
    pool = PostgresPool(
        postgres_dsn, size_max=1, connect_timeout_seconds=2, statement_timeout_seconds=2
    )
    with pytest.raises(UnavailableError, match="polyglot migrate"):
        await PostgresRecord(pool).persist([accepted()])
    await migrate(postgres_dsn)
    assert (await PostgresRecord(pool).persist([accepted()])).inserted
    await pool.close()


async def test_a_read_only_server_is_unavailable(record_dsn: str) -> None:
    """A standby refuses what it cannot store; that condemns no order."""
    joint = "&" if "?" in record_dsn else "?"
    pool = PostgresPool(
        f"{record_dsn}{joint}default_transaction_read_only=on",
        size_max=1,
        connect_timeout_seconds=2,
        statement_timeout_seconds=2,
    )
    with pytest.raises(UnavailableError, match="read-only"):
        await PostgresRecord(pool).persist([accepted()])
    await pool.close()


async def test_a_refused_login_keeps_the_password(record_dsn: str) -> None:
    """It may be mended any time, so it is unavailable; the message does not tell the secret."""
    parts = urlsplit(record_dsn)
    wrong = record_dsn.replace(f":{parts.password}@", ":not-the-secret@")
    assert wrong != record_dsn
    pool = PostgresPool(wrong, size_max=1, connect_timeout_seconds=2, statement_timeout_seconds=2)
    with pytest.raises(UnavailableError, match="refused the login") as refused:
        await PostgresRecord(pool).ping()
    assert "not-the-secret" not in str(refused.value)
    await pool.close()


async def test_a_dsn_that_makes_no_sense_is_a_setting_at_fault() -> None:
    """No pause and no retry will mend it."""
    pool = PostgresPool(
        "postgresql://u@h/d?sslmode=sometimes",
        size_max=1,
        connect_timeout_seconds=2,
        statement_timeout_seconds=2,
    )
    with pytest.raises(ConfigurationError):
        await PostgresRecord(pool).ping()
    await pool.close()


async def test_a_mute_server_costs_the_connect_timeout() -> None:
    """Something accepts and never answers: one call at a time waits for it, the others do not."""
    waiting = most_waiting = 0

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting, most_waiting
        waiting += 1
        most_waiting = max(most_waiting, waiting)
        while await reader.read(65_536):
            pass
        waiting -= 1
        writer.close()

    mute = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    pool = PostgresPool(
        f"postgresql://u:p@127.0.0.1:{mute.sockets[0].getsockname()[1]}/d?sslmode=disable",
        size_max=4,
        connect_timeout_seconds=0.3,
        statement_timeout_seconds=5,
    )
    store = PostgresRecord(pool)

    async def call() -> None:
        with pytest.raises(UnavailableError):
            await store.find([])

    await call()
    for _ in range(3):
        await asyncio.gather(*[call() for _ in range(8)])
    assert most_waiting == 1
    await pool.close()
    mute.close()


async def test_while_away_one_call_tries_and_the_others_fail_at_once() -> None:
    """No stampede on a server that is coming back: it is tried after pauses that grow."""
    tried_at: list[float] = []

    def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried_at.append(time.monotonic())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = PostgresPool(
        f"postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable",
        size_max=8,
        connect_timeout_seconds=1,
        statement_timeout_seconds=5,
    )
    store = PostgresRecord(pool)
    with pytest.raises(UnavailableError):
        await store.find([])  # until one has failed, each call tries
    calls = 0
    while len(tried_at) < 6:
        results = await asyncio.gather(*[store.find([]) for _ in range(8)], return_exceptions=True)
        assert all(isinstance(result, UnavailableError) for result in results)
        calls += 8
        await asyncio.sleep(0)
    assert calls >= 8 * (len(tried_at) - 1)
    pauses = [later - earlier for earlier, later in pairwise(tried_at)]
    assert min(pauses[1:]) > BACKOFF_FIRST_SECONDS / 2
    await pool.close()
    server.close()


async def test_a_server_that_is_away_is_noticed_at_once_and_found_again() -> None:
    """Made before the server is there, and used through its start, stop and return."""
    with short_directory() as directory:
        server = EmbeddedPostgres(directory / "postgres")
        async with running(server):
            dsn = server.dsn
            await migrate(dsn)
        pool = PostgresPool(
            dsn, size_max=4, connect_timeout_seconds=2, statement_timeout_seconds=30
        )
        store = PostgresRecord(pool)
        order = accepted()
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await store.persist([order])
            async with running(server):
                assert server.dsn == dsn

                async def persist() -> None:
                    assert order.order.id in (await store.persist([order])).stored

                await eventually(persist, retried=(UnavailableError,))
                await asyncio.gather(*[store.find([]) for _ in range(4)])
        await pool.close()


@BUNDLED_POSTGRES  # for its socket
async def test_a_last_word_without_an_end(record_dsn: str) -> None:
    """A backend's FATAL has arrived and its end has not: the driver's confusion is not ours."""
    async with swallowing_ends(record_dsn) as (dsn, ended), onlooker(record_dsn) as seen:
        pool = PostgresPool(dsn, size_max=1, connect_timeout_seconds=2, statement_timeout_seconds=2)
        store = PostgresRecord(pool)
        for doomed in (lambda: store.persist([accepted()]), lambda: store.find([])):
            await store.find([])
            async with pool.reading() as session:
                pid = session._connection.get_server_pid()
            ended.clear()
            await seen.terminate(pid)
            await ended.wait()
            with pytest.raises(UnavailableError):
                await doomed()
            await store.find([])
        await pool.close()


@asynccontextmanager
async def swallowing_ends(dsn: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Give a way to the server that passes on all that it says, but not that it hangs up."""
    parts = urlsplit(dsn)
    socket_path = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
    ended = asyncio.Event()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(socket_path)
        to_server = asyncio.create_task(forward(reader, far_writer))
        await forward(far_reader, writer)
        ended.set()
        with suppress(ConnectionError):  # what is written to a server that is gone
            await to_server
        for one in (writer, far_writer):
            one.close()

    server = await asyncio.start_server(link, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    netloc = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
    try:
        yield urlunsplit(parts._replace(netloc=netloc, query="sslmode=disable")), ended
    finally:
        server.close()


async def test_nothing_listens_there() -> None:
    """Neither making the pool nor the first call hangs or crashes."""
    pool = PostgresPool(
        f"postgresql://u:p@127.0.0.1:{free_port()}/d",
        size_max=2,
        connect_timeout_seconds=1,
        statement_timeout_seconds=1,
    )
    store = PostgresRecord(pool)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await store.new_epoch()
    with pytest.raises(UnavailableError):
        async with store.lead("sweeper"):
            pytest.fail("nobody leads without a server")
    await pool.close()
