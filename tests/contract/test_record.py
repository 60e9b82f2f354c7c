"""The contract of `Record`: the outbox, the cache epoch, the roles, the ping."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.outbox import OutboxBatch
from polyglot_persistence.ports.record import Record
from tests.support.eventually import WAIT_SECONDS
from tests.support.orders import accepted
from tests.support.record import Onlooker
from tests.support.records import RecordEngine, Tables


async def persist(store: Record, *sizes: int) -> list[set[UUID]]:
    """Persist batches of these sizes and return their ids."""
    return [
        set((await store.persist([accepted() for _ in range(size)])).inserted) for size in sizes
    ]


def ids(batch: OutboxBatch) -> set[UUID]:
    found = [row.order.id for row in batch.orders]
    assert len(found) == len(set(found))
    return set(found)


async def test_a_claim_yields_the_orders_and_deletes_the_rows(
    store: Record, tables: Tables
) -> None:
    """After a normal end nothing waits any more, and the next claim yields nothing."""
    batches = await persist(store, 3, 2)
    assert (await store.progress(dead_letters_max=1)).outbox_orders == 5
    async with store.claim_outbox(0, 100) as claimed:
        assert ids(claimed) == batches[0] | batches[1]
        stored = (await store.find(list(batches[0]))).orders
        assert {row.order.id: row for row in claimed.orders if row.order.id in stored} == stored
    assert (await store.progress(dead_letters_max=1)).outbox_oldest is None
    async with store.claim_outbox(0, 100) as claimed:
        assert claimed.orders == []
    assert not await tables.outbox()


async def test_an_exception_leaves_the_rows(store: Record) -> None:
    """What could not be indexed waits for the next claim, and the exception is the caller's own."""
    (batch,) = await persist(store, 3)
    with pytest.raises(ConnectionResetError, match="the caller's"):
        async with store.claim_outbox(0, 100):
            raise ConnectionResetError("the caller's")
    async with store.claim_outbox(0, 100) as claimed:
        assert ids(claimed) == batch


async def test_a_claim_takes_only_what_is_old_enough(store: Record, tables: Tables) -> None:
    """Fresh rows belong to the worker that wrote them."""
    (old,) = await persist(store, 2)
    await tables.age_outbox(timedelta(minutes=1))
    await persist(store, 3)
    async with store.claim_outbox(30, 100) as claimed:
        assert ids(claimed) == old
    assert (await store.progress(dead_letters_max=1)).outbox_orders == 3


async def test_a_claim_is_bounded_in_orders_but_never_empty_handed(store: Record) -> None:
    """The oldest rows up to the bound; one row at least, however many orders it has."""
    batches = await persist(store, 5, 2, 2, 2)
    async with store.claim_outbox(0, 4) as claimed:
        assert ids(claimed) == batches[0]
    async with store.claim_outbox(0, 4) as claimed:
        assert ids(claimed) == batches[1] | batches[2]
    assert (await store.progress(dead_letters_max=1)).outbox_orders == 2


async def test_two_at_once_claim_different_rows(store: Record) -> None:
    """Neither waits for the other, and nothing is worked on twice."""
    await persist(store, *[2] * 150)
    async with store.claim_outbox(0, 10) as one, store.claim_outbox(0, 10) as other:
        assert len(ids(one)) == len(ids(other)) == 10
        assert not ids(one) & ids(other)
    assert (await store.progress(dead_letters_max=1)).outbox_orders == 280


async def test_done_rows_are_deleted_and_others_are_not(store: Record) -> None:
    """By the id that persist returned."""
    done = await store.persist([accepted()])
    waiting = await store.persist([accepted(), accepted()])
    assert done.outbox_id is not None
    await store.outbox_done([done.outbox_id])
    await store.outbox_done([])
    await store.outbox_done([done.outbox_id])
    assert (await store.progress(dead_letters_max=1)).outbox_orders == 2
    assert waiting.outbox_id is not None
    await store.outbox_done([waiting.outbox_id])
    assert (await store.progress(dead_letters_max=1)).outbox_oldest is None


async def test_done_does_not_wait_for_a_claim(store: Record) -> None:
    """A claimed row is left to its claimer, so that neither is held up."""
    persisted = await store.persist([accepted()])
    assert persisted.outbox_id is not None
    async with store.claim_outbox(0, 100):
        async with asyncio.timeout(WAIT_SECONDS):
            await store.outbox_done([persisted.outbox_id])
        assert (await store.progress(dead_letters_max=1)).outbox_orders == 1
    assert (await store.progress(dead_letters_max=1)).outbox_orders == 0


async def test_the_depth_tells_how_long_the_oldest_waits(store: Record) -> None:
    """By the database's clock."""
    await persist(store, 2, 1)
    progress = await store.progress(dead_letters_max=1)
    assert progress.outbox_orders == 3
    assert progress.outbox_oldest is not None
    assert abs(datetime.now(UTC) - progress.outbox_oldest) < timedelta(minutes=1)


def number(epoch: str) -> int:
    """Return the part of an epoch that grows while the server stays the same."""
    return int(epoch.rpartition(".")[2])


async def test_exactly_one_call_creates_the_epoch(store: Record) -> None:
    """Of any number at once: the one that finds a fresh installation."""
    found = await asyncio.gather(*[store.found_epoch() for _ in range(6)])
    assert len({epoch for epoch, _ in found}) == 1
    assert sorted(created for _, created in found) == [False] * 5 + [True]
    assert await store.found_epoch() == (found[0][0], False)


async def test_a_new_epoch_is_greater_than_any_before(store: Record) -> None:
    """Also of many at once: no two calls get the same one, and the last is the one found."""
    first, _ = await store.found_epoch()
    raised = await asyncio.gather(*[store.new_epoch() for _ in range(6)])
    assert len(set(raised)) == 6
    assert min(map(number, raised)) > number(first)
    assert await store.found_epoch() == (max(raised, key=number), False)
    assert await store.epoch() == max(raised, key=number)


async def test_an_epoch_is_not_handed_out_again_by_a_restored_backup(
    store: Record, seen: Onlooker
) -> None:
    """The next after an old one is not the one that was next then."""
    await store.found_epoch()
    await seen.execute("CREATE TEMP TABLE backup AS SELECT * FROM cache_epoch")
    lost = await store.new_epoch()
    await seen.execute("UPDATE cache_epoch SET epoch = backup.epoch FROM backup")
    assert number(await store.new_epoch()) > number(lost)


async def test_an_epoch_grows_although_the_clock_went_back(store: Record, seen: Onlooker) -> None:
    """The clock only makes it unique; the order does not depend on it."""
    await store.found_epoch()
    ahead = 2 * 10**15 * 3
    await seen.execute(f"UPDATE cache_epoch SET epoch = {ahead}")
    assert number(await store.new_epoch()) == ahead + 1


async def test_only_one_process_leads_in_a_role(store: Record, record: RecordEngine) -> None:
    """Others get None at once; another role is free; leaving the context hands it on."""
    other = record.store()
    async with store.lead("sweeper") as lead:
        assert lead is not None
        async with other.lead("sweeper") as second, other.lead("refresher") as elsewhere:
            assert second is None
            assert elsewhere is not None
        await lead.confirm()
    async with other.lead("sweeper") as second:
        assert second is not None


async def test_an_exception_ends_the_lead_too(store: Record) -> None:
    """The role is free again however the context is left."""
    with pytest.raises(ValueError, match="mine"):
        async with store.lead("sweeper"):
            raise ValueError("mine")
    async with store.lead("sweeper") as lead:
        assert lead is not None


async def test_a_lost_connection_is_a_lost_lead(store: Record, seen: Onlooker) -> None:
    """It cannot be confirmed any more, and another process can take it."""
    async with store.lead("sweeper") as lead:
        assert lead is not None
        holder = await seen.value(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        await seen.terminate(holder)
        with pytest.raises(UnavailableError):
            await lead.confirm()
        async with store.lead("sweeper") as second:
            assert second is not None


async def test_ping_tells_the_version_and_no_warning(store: Record) -> None:
    """The bundled server keeps what it commits."""
    state = await store.ping()
    assert state.version.startswith("PostgreSQL ")
    assert state.warnings == ()
