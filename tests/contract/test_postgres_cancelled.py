"""Cancelling a call to PostgreSQL, at any moment: it ends soon, and nothing is left behind."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.adapters.postgres.primary import TIDY_SECONDS
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.ports.record import Record
from tests.support.eventually import eventually
from tests.support.orders import accepted
from tests.support.processes import descendants
from tests.support.record import Onlooker, onlooker, pool_on
from tests.support.servers import copy_directory, running, short_directory
from tests.support.standby import signal_if_there

pytestmark = pytest.mark.timeout(120)

MARGIN_SECONDS = 1.5
"""For a machine that has more to do."""

WAIT_AT_COMMIT = """
CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION wait_at_commit();
SELECT pg_advisory_lock(1)
"""
WAIT_AT_INSERT = "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"


async def cancelled(call: Coroutine[Any, Any, object], ready: Callable[[], Any] | None) -> float:
    """Cancel a call, once something is ready; return the seconds until it has ended."""
    task = asyncio.ensure_future(call)
    if ready is not None:
        await ready()
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - started


async def duration(store: Record) -> float:
    """Persist a batch; return how long it takes."""
    started = time.monotonic()
    await store.persist([accepted() for _ in range(20)])
    return time.monotonic() - started


async def test_a_persist_that_is_cut_off_anywhere_leaves_nothing_behind(
    record_dsn: str, seen: Onlooker
) -> None:
    """From before its connection is there until after its COMMIT: it happened whole or not at all.

    The one connection serves the next call, whose reply is its own.
    """
    async with pool_on(record_dsn, size_max=1) as pool:
        store = PostgresRecord(pool)
        seconds = min([await duration(store) for _ in range(5)])
        cut_off = 0
        for step in range(50):
            batch = [accepted() for _ in range(20)]
            try:
                async with asyncio.timeout(seconds * step / 40):
                    await store.persist(batch)
            except TimeoutError:
                cut_off += 1
            found = (await store.find([one.order.id for one in batch])).orders
            assert len(found) in (0, 20)
            open_transactions = "SELECT count(*) FROM pg_stat_activity WHERE datname = "
            assert not await seen.value(
                f"{open_transactions} current_database() AND state LIKE 'idle in transaction%'"
            )
        assert cut_off > 10
        await seen.assert_rollup_exact()
        waiting = "SELECT sum(orders)::bigint FROM index_outbox"
        assert await seen.value(waiting) == await seen.value("SELECT count(*) FROM orders")


@pytest_asyncio.fixture
async def own_postgres(stopped_postgres: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A migrated server of the test's own."""
    with short_directory() as directory:
        copy_directory(stopped_postgres, directory / "data")
        async with running(EmbeddedPostgres(directory / "data")) as server:
            await migrate(server.dsn)
            yield server


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Stop every process of a server."""
    assert server.pid is not None
    family = [server.pid, *descendants(server.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            signal_if_there(pid, signal.SIGCONT)


@pytest.mark.parametrize("wait", [WAIT_AT_INSERT, WAIT_AT_COMMIT], ids=["insert", "commit"])
async def test_a_call_that_a_frozen_server_does_not_answer_is_cut_off(
    own_postgres: EmbeddedPostgres, wait: str
) -> None:
    """At the statement and at the COMMIT; no cancellation of the server's is waited for."""
    async with (
        pool_on(own_postgres.dsn, size_max=1) as pool,
        onlooker(own_postgres.dsn) as rival,
        onlooker(own_postgres.dsn) as seen,
    ):
        store = PostgresRecord(pool)
        await store.find([])
        await rival.execute(wait)
        order = accepted()
        task = asyncio.create_task(store.persist([order]))
        await seen.blocked()
        with frozen(own_postgres):
            seconds = await cancelled(_result(task), None)
            assert seconds < TIDY_SECONDS + MARGIN_SECONDS
        await rival.execute("ROLLBACK; SELECT pg_advisory_unlock_all()")
        await persists_again(store)


async def test_a_call_that_waits_for_a_frozen_server_is_cut_off(
    own_postgres: EmbeddedPostgres,
) -> None:
    """At its BEGIN, and while it connects."""
    async with pool_on(own_postgres.dsn, size_max=1) as pool:
        store = PostgresRecord(pool)
        await store.find([])
        with frozen(own_postgres):
            for _ in ("begin", "connect"):
                seconds = await cancelled(store.persist([accepted()]), lambda: turns(20))
                assert seconds < TIDY_SECONDS + MARGIN_SECONDS
        await persists_again(store)


async def _result(task: "asyncio.Task[Any]") -> object:
    return await task


async def turns(count: int) -> None:
    """Let everything else go on as far as it can."""
    for _ in range(count):
        await asyncio.sleep(0.01)


async def persists_again(store: Record) -> None:
    """Wait until the one connection persists an order, and no reply is another's."""

    async def attempt() -> None:
        order = accepted()
        assert (await store.persist([order])).inserted == {order.order.id}
        assert (await store.find([order.order.id])).orders.keys() == {order.order.id}

    await eventually(attempt, within_seconds=5, retried=(Exception,))
