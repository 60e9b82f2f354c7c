"""The audit over all real stores, on every search engine: drift found, and repaired under load."""

import asyncio
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID

import pytest_asyncio

from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.redis import keys
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.flows.watch.audit import EVERYTHING, UNATTENDED
from polyglot_persistence.flows.watch.audit_cache import WITHOUT_LETTER
from polyglot_persistence.flows.watch.audit_tally import Tally
from polyglot_persistence.ports.audit import ID_MAX, ID_MIN
from polyglot_persistence.ports.cache import Settled
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.addresses import BUNDLED
from tests.support.audit import AuditStand, new_orders
from tests.support.cache import entry_of, make_warm, new_client
from tests.support.drift import altered, plant, shown
from tests.support.eventually import eventually
from tests.support.orders import accepted, single
from tests.support.record import Onlooker
from tests.support.search_indexes import SearchEngine, made

pytestmark = BUNDLED

EACH = int(os.environ.get("DRIFT_EACH", "40"))
"""Of every kind; the number of real drift is planted by DRIFT_EACH=1000."""


@pytest_asyncio.fixture
async def stand(
    pool: PostgresPool, redis_url: str, engine: SearchEngine
) -> AsyncIterator[AuditStand]:
    """Empty stores with a warm cache."""
    client = new_client(redis_url)
    index = await made(engine)
    stand = AuditStand(pool, client, index, engine.contents())
    await make_warm(stand.store, stand.cache)
    yield stand
    await client.close()


async def test_stores_that_agree_have_no_drift(stand: AuditStand) -> None:
    """Whatever is repaired: nothing is touched."""
    placed = new_orders(250)
    await stand.place(placed)
    for repaired in (frozenset[Drift](), EVERYTHING):
        report = await stand.audit(repaired)
        assert report.is_clean, report
        assert (report.orders, report.entries, report.tally.found.total()) == (250, 250, 0)
    assert (await stand.store.progress(dead_letters_max=0)).outbox_orders == 0


async def test_drift_of_every_kind_is_repaired_under_load(
    stand: AuditStand, seen: Onlooker
) -> None:
    """Found to the last one, with nothing that is only under way; repaired; and then all agree."""
    placed = new_orders(3 * EACH + 100)
    await stand.place(placed)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        load = tasks.create_task(stand.traffic(stop))
        try:
            planted = await plant(stand.projections, seen.connection, placed, EACH)
            found = await stand.audit()
            assert dict(found.tally.found) == planted, found
            assert (found.tally.repaired.total(), found.is_clean) == (0, False)
            repaired = await stand.audit(EVERYTHING)
            assert dict(repaired.tally.found) == planted, repaired
            assert repaired.tally.repaired == repaired.tally.found
            again = await stand.audit()
            assert (again.tally.found.total(), again.not_compared) == (0, {}), again
        finally:
            stop.set()
    orders = len(placed) + load.result() + EACH
    await seen.assert_rollup_exact()
    assert await stand.record.count_orders() == orders
    totals = await stand.record.checksums_between(ID_MIN, ID_MAX)

    async def all_agree() -> None:
        assert await stand.contents.checksums_between(ID_MIN, ID_MAX, 10**6) == totals

    await eventually(all_agree)


async def test_what_waits_to_be_indexed_is_no_drift(stand: AuditStand) -> None:
    """Nor is what never can be."""
    await stand.place(new_orders(20))
    waiting, refused = new_orders(2)
    await stand.persist.persist([waiting], "queue")
    to_index = await stand.persist.persist([refused], "queue")
    await stand.store.bury([DeadLetter(refused.order.id, None, b"", "no", Stage.INDEX, 1)])
    await stand.store.outbox_done([batch.outbox_id for batch in to_index])
    assert (await stand.audit(EVERYTHING)).is_clean


async def test_unattended_no_document_is_removed(stand: AuditStand) -> None:
    """It may be all that is left of an order after a restore; an operator decides."""
    await stand.place(new_orders(20))
    ghost = accepted(name="ghost")
    await stand.index.index([StoredOrder(ghost.order, ghost.accepted_at, ghost.accepted_at)])
    await shown(stand.contents, [ghost.order], [])
    for _ in range(2):
        report = await stand.audit(UNATTENDED)
        assert (report.tally.found, report.tally.remaining) == ({Drift.EXTRA_DOCUMENT: 1}, 1)
    assert await stand.index.indexed_at(ghost.order.id) is not None
    assert (await stand.audit(EVERYTHING)).is_clean
    assert await stand.index.indexed_at(ghost.order.id) is None


async def test_a_store_that_is_away_ends_its_part_only(
    stand: AuditStand, engine: SearchEngine, seen: Onlooker
) -> None:
    """The others are compared and repaired, and the report says what was not."""
    placed = new_orders(30)
    await stand.place(placed)
    await engine.wipe()
    await seen.execute("UPDATE sales_quarter_hours SET orders = orders + 1")
    report = await stand.audit(EVERYTHING)
    assert set(report.not_compared) == {"search"}
    assert report.tally.repaired[Drift.WRONG_QUARTER_HOUR] > 0
    assert not report.is_clean
    await seen.assert_rollup_exact()


async def test_orders_that_the_record_lost_are_decided_again(stand: AuditStand) -> None:
    """Persisted from clean entries, and dead letters from dead ones; the epoch is new."""
    lost, condemned, known = (accepted(n, name=f"n{n}") for n in range(3))
    await stand.store.bury([DeadLetter(known.order.id, None, b"", "no", Stage.PERSIST, 1)])
    await stand.cache.accept([single(condemned), single(known)])
    await stand.cache.settle(
        [
            Settled(EntryState.CLEAN, lost),
            Settled(EntryState.DEAD, condemned),
            Settled(EntryState.DEAD, known),
        ]
    )
    epoch = (await stand.store.find([])).epoch
    report = await stand.audit(UNATTENDED)
    assert report.tally.repaired == {Drift.LOST_ORDER: 2}
    found = await stand.store.find([one.order.id for one in (lost, condemned, known)])
    assert set(found.orders) == {lost.order.id}
    assert found.orders[lost.order.id].order == lost.order
    assert set(found.dead) == {condemned.order.id, known.order.id}
    assert found.dead[condemned.order.id].letter.reason == WITHOUT_LETTER
    assert found.epoch != epoch
    assert (await stand.audit()).tally.found.total() == 0


async def test_an_entry_is_what_a_reader_would_get(stand: AuditStand) -> None:
    """Another amount, bytes that are no entry, and a death that never was: all as the record."""
    placed = new_orders(4)
    await stand.place(placed)
    lie = placed[0].order.id
    await stand.cache.settle(
        [
            Settled(
                EntryState.CLEAN, AcceptedOrder(altered(placed[0]), placed[0].accepted_at, lie)
            ),
        ]
    )
    dead = placed[1]
    await stand.client.execute(
        "SET", keys.entry(dead.order.id), entry_of(dead, EntryState.DEAD), "EX", 60
    )
    report = await stand.audit(UNATTENDED)
    assert report.tally.repaired == {Drift.STALE_ENTRY: 2}
    ids: list[UUID] = [one.order.id for one in placed]
    raws = (await stand.cache.read(ids)).entries
    assert [raw and raw[raw.index(b"\n") :] for raw in raws] == [
        entry[entry.index(b"\n") :] for entry in (entry_of(one) for one in placed)
    ]
    assert {raw[:1] for raw in raws if raw} == {b"C"}


async def test_sales_are_rebuilt_from_nothing_while_orders_come_in(
    stand: AuditStand, seen: Onlooker
) -> None:
    """Both rollups emptied: at the end they and the view add up to the orders, to the cent."""
    await stand.place(new_orders(200))
    stop = asyncio.Event()
    done: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stand.traffic(stop))
        try:
            for table in ("sales_quarter_hours", "sales_product_days"):
                await seen.execute(f"BEGIN; LOCK TABLE {table}; DELETE FROM {table}; COMMIT")
            totals = await stand.sales.rebuild(Tally(), done.append)
        finally:
            stop.set()
    assert totals.equal
    assert sum(done) >= 200
    await seen.assert_rollup_exact()
    await stand.view.refresh()
    expected = await seen.value("SELECT sum(amount) FROM orders")
    assert sum((day.revenue for day in await stand.view.latest_days(100)), Decimal(0)) == expected
    assert await stand.record.rebuild_position() is None


async def test_a_rebuild_that_was_cut_short_goes_on(stand: AuditStand, seen: Onlooker) -> None:
    """Behind the last day that it has done."""
    await stand.place(new_orders(90))
    await seen.execute("DELETE FROM sales_quarter_hours")

    class CutShortError(Exception):
        pass

    done: list[int] = []

    def advance(orders: int) -> None:
        done.append(orders)
        if len(done) == 2:
            raise CutShortError

    try:
        await stand.sales.rebuild(Tally(), advance)
    except CutShortError:
        pass
    else:
        raise AssertionError("it was not cut short")
    await stand.sales.rebuild(Tally(), done.append)
    # The day at which it was cut short was put right and not noted; the one before it was.
    assert done[1] == done[2]
    assert sum(done) == 90 + done[1]
    await seen.assert_rollup_exact()
