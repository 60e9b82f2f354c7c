"""What an audit asks of the record, and rollups that are put right while orders come in."""

import asyncio
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.order import AMOUNT_MAX, AcceptedOrder, Order, new_id
from polyglot_persistence.ports.audit import ID_MAX, ID_MIN, AuditedRecord, Freshness, RangeSum
from polyglot_persistence.ports.record import Record
from tests.support.record import Onlooker
from tests.support.records import RecordEngine

DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def audited(record: RecordEngine) -> AuditedRecord:
    return record.audit()


def sale(
    moment: datetime = NOON,
    amount: str = "1.00",
    product: str = "tea",
    order_id: UUID | None = None,
) -> AcceptedOrder:
    order = Order(order_id or new_id(), product, Decimal(amount), moment)
    return AcceptedOrder(order, datetime.now(UTC), order.id)


async def test_the_record_computes_the_documents_checksum(
    store: Record, audited: AuditedRecord
) -> None:
    """Of every kind of id, name, amount and moment."""
    rng = random.Random(5)
    names = ["a", "Grüner Tee", "茶 🍵", "x" * 200, 'it\'s "quoted"\\ %s', "e\u0301"]
    amounts = ["0.00", "0.01", "1299.90", str(AMOUNT_MAX)]
    moments = [
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 30, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 30, tzinfo=UTC),
        datetime(1, 1, 2, tzinfo=UTC),
    ]
    ids = [UUID(int=n << rng.choice((0, 64, 118))) for n in range(1, 300)]
    orders = [sale(rng.choice(moments), rng.choice(amounts), rng.choice(names), one) for one in ids]
    by_id = {one.order.id: one for one in orders}
    await store.persist(list(by_id.values()))
    expected = {i: checksum(one.order) for i, one in by_id.items()}
    assert await audited.checksums_between(ID_MIN, ID_MAX) == expected
    assert (await audited.range_from(ID_MIN, 1_000)).sums == RangeSum(
        len(expected), sum(expected.values())
    )


async def test_ranges_cover_every_id_once(store: Record, audited: AuditedRecord) -> None:
    """From the lowest to the highest possible, whatever their number."""
    await store.persist([sale() for _ in range(25)])
    for size in (1, 7, 25, 26):
        first, orders, lasts = ID_MIN, 0, []
        while True:
            part = await audited.range_from(first, size)
            orders += part.sums.orders
            lasts.append(part.last)
            if part.last == ID_MAX:
                break
            first = UUID(int=part.last.int + 1)
        assert orders == 25
        assert lasts == sorted(set(lasts), key=lambda last: last.int)


async def test_what_waits_to_be_indexed_is_told(store: Record, audited: AuditedRecord) -> None:
    """By the outbox, or because it never can be; an unknown id has no checksum."""
    waiting, done, refused, unknown = sale(), sale(), sale(), new_id()
    await store.persist([waiting])
    for one in (done, refused):
        persisted = await store.persist([one])
        assert persisted.outbox_id is not None
        await store.outbox_done([persisted.outbox_id])
    await store.bury([DeadLetter(refused.order.id, None, b"", "no", Stage.INDEX, 1)])
    ids = [waiting.order.id, done.order.id, refused.order.id, unknown]
    standing = await audited.standing(ids)
    assert standing.rows == {one.order.id: checksum(one.order) for one in (waiting, done, refused)}
    assert standing.waiting == {waiting.order.id, refused.order.id}


async def test_ids_to_be_indexed_again_come_out_of_the_outbox(
    store: Record, audited: AuditedRecord
) -> None:
    """Orders as they are, what is none as gone, and none of them as new."""
    new, old, gone = sale(), sale(), new_id()
    persisted = await store.persist([old])
    assert persisted.outbox_id is not None
    await store.outbox_done([persisted.outbox_id])
    await store.persist([new])
    await audited.index_again([old.order.id, gone])
    async with store.claim_outbox(0.0, 100) as batch:
        assert {row.order.id for row in batch.orders} == {old.order.id, new.order.id}
        assert list(batch.gone) == [gone]
        assert batch.new == {new.order.id}
    assert (await store.progress(dead_letters_max=0)).outbox_orders == 0


async def test_days_are_found_by_orders_and_by_cells(
    store: Record, audited: AuditedRecord, seen: Onlooker
) -> None:
    """A day of which only a cell is left is compared as well."""
    await store.persist([sale(NOON), sale(NOON - timedelta(days=40))])
    await seen.execute(
        "INSERT INTO sales_quarter_hours VALUES ('2026-02-10 07:00Z', 0, 1, 1);"
        "INSERT INTO sales_product_days VALUES ('2026-02-20', 'tea', 0, 1, 1)"
    )
    days = []
    day = await audited.next_day(date(1970, 1, 1))
    while day is not None:
        days.append(day)
        day = await audited.next_day(day + timedelta(days=1))
    assert days == [date(2026, 1, 20), date(2026, 2, 10), date(2026, 2, 20), DAY]


PLANTED = {
    "a cent too much": "UPDATE sales_{0} SET revenue = revenue + 0.01",
    "an order too few": "UPDATE sales_{0} SET orders = orders - 1",
    "cells are missing": "DELETE FROM sales_{0}",
    "twice as much in another slot": "UPDATE sales_{0} SET slot = slot + 4, revenue = revenue * 2",
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
@pytest.mark.parametrize("rollup", ["quarter_hours", "product_days"])
async def test_a_wrong_cell_is_found_and_put_right(
    store: Record, audited: AuditedRecord, seen: Onlooker, rollup: str, planted: str
) -> None:
    """Found without being touched, then right to the cent, and right at another look."""
    await store.persist([sale(NOON + timedelta(minutes=7 * n), "2.50") for n in range(8)])
    assert await audited.compare_day(DAY, repair=False) == (8, 0, 0, False)
    await seen.execute(planted.format(rollup))
    found = await audited.compare_day(DAY, repair=False)
    assert (found.quarter_hours > 0, found.product_days > 0) == (
        rollup == "quarter_hours",
        rollup == "product_days",
    )
    repaired = await audited.compare_day(DAY, repair=True)
    assert repaired == found._replace(repaired=True)
    await seen.assert_rollup_exact()
    assert await audited.compare_day(DAY, repair=True) == (8, 0, 0, False)


async def test_a_cell_of_no_order_is_removed(
    store: Record, audited: AuditedRecord, seen: Onlooker
) -> None:
    """In all of its slots, also one that adds up to nothing."""
    await store.persist([sale()])
    await seen.execute(
        "INSERT INTO sales_quarter_hours VALUES ('2026-03-01 07:00Z', 0, 5, 3),"
        " ('2026-03-01 07:00Z', 2, 4, 1), ('2026-03-01 08:00Z', 1, 0, 0);"
        "INSERT INTO sales_product_days VALUES ('2026-03-01', 'ghost', 3, 9, 4)"
    )
    assert await audited.compare_day(DAY, repair=True) == (1, 2, 1, True)
    await seen.assert_rollup_exact()
    assert (await audited.sales_totals()).equal


async def test_cells_are_put_right_while_orders_come_in(
    store: Record, audited: AuditedRecord, seen: Onlooker
) -> None:
    """Whatever is persisted meanwhile, no drift is invented and none is left."""
    for n in range(4):
        await store.persist([sale(NOON + timedelta(minutes=15 * n), product=f"p{n}")])
    done = asyncio.Event()

    async def persist(seed: int) -> None:
        rng = random.Random(seed)
        while not done.is_set():
            batch = [
                sale(
                    NOON + timedelta(minutes=15 * rng.randrange(4)),
                    f"{rng.randrange(999)}.{rng.randrange(100):02}",
                    f"p{rng.randrange(4)}",
                )
                for _ in range(20)
            ]
            await store.persist(batch)

    async def drift() -> None:
        rng = random.Random(3)
        try:
            for n in range(15):
                assert (await audited.compare_day(DAY, repair=True))[1:] == (0, 0, False)
                table = ("sales_quarter_hours", "sales_product_days")[n % 2]
                change = (
                    f"UPDATE {table} SET revenue = revenue + 1, orders = orders + 2",
                    f"DELETE FROM {table}",
                )[rng.randrange(2)]
                await seen.execute(f"BEGIN; LOCK TABLE {table}; {change}; COMMIT")
                found = await asyncio.gather(*[audited.compare_day(DAY, repair=True) for _ in "ab"])
                assert any(one.repaired for one in found)
        finally:
            done.set()

    async with asyncio.TaskGroup() as tasks:
        for seed in range(2):
            tasks.create_task(persist(seed))
        tasks.create_task(drift())
    await seen.assert_rollup_exact()
    assert (await audited.sales_totals()).equal


async def test_orders_that_are_under_way_are_no_drift(
    store: Record, audited: AuditedRecord, seen: Onlooker
) -> None:
    """A transaction that has written and not committed is in neither sum."""
    await store.persist([sale()])
    task: asyncio.Task[object]
    await seen.execute("BEGIN; SELECT * FROM sales_product_days FOR UPDATE")
    task = asyncio.create_task(store.persist([sale()]))
    await asyncio.wait([task], timeout=0.2)  # it waits for the cell, with its order inserted
    assert not task.done()
    assert await audited.compare_day(DAY, repair=True) == (1, 0, 0, False)
    await seen.execute("COMMIT")
    await task
    assert await audited.compare_day(DAY, repair=True) == (2, 0, 0, False)


async def test_a_rebuilds_position_is_kept_until_its_end(
    audited: AuditedRecord, seen: Onlooker
) -> None:
    """One that stood still for an hour begins anew."""
    assert await audited.rebuild_position() is None
    for day in (DAY, DAY + timedelta(days=1)):
        await audited.keep_rebuild_position(day)
        assert await audited.rebuild_position() == day
    await seen.execute("UPDATE sales_rebuild SET changed_at = changed_at - interval '61 minutes'")
    assert await audited.rebuild_position() is None
    await audited.keep_rebuild_position(None)
    assert await seen.rows("SELECT FROM sales_rebuild") == []


async def test_freshness_adds_up_over_processes_and_a_day(
    audited: AuditedRecord, seen: Onlooker
) -> None:
    """What is older does not count any more."""
    assert await audited.freshness() == Freshness(0, 0, 0, 0)
    await seen.execute("INSERT INTO freshness VALUES (now() - interval '25 hours', 9, 9, 9, 9)")
    for _ in range(2):
        await audited.count_freshness(Freshness(5, 1, 3, 4))
    assert await audited.freshness() == Freshness(10, 2, 6, 8)


async def test_an_outbox_row_is_done_once(store: Record) -> None:
    """Whoever deletes it is told so; who comes later, or finds it claimed, is not."""
    claimed = (await store.persist([sale()])).outbox_id
    assert claimed is not None
    async with store.claim_outbox(0.0, 1):
        free = (await store.persist([sale()])).outbox_id
        assert free is not None
        assert await store.outbox_done([claimed, free]) == [free]
    assert await store.outbox_done([claimed, free]) == []
