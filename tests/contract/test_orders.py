"""The contract of `Orders.persist`: whole units, once, with rollup, outbox and dead letters."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.order import AcceptedOrder, Order, from_micros, new_id, to_micros
from polyglot_persistence.errors import PoisonError
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.record import Record
from tests.support.orders import accepted
from tests.support.record import Onlooker, onlooker
from tests.support.records import Tables


def bulk(*names: str, unit_id: UUID | None = None) -> list[AcceptedOrder]:
    unit = (unit_id or new_id(), len(names))
    return [accepted(name=name, unit=unit) for name in names]


def changed(order: AcceptedOrder, **fields: object) -> AcceptedOrder:
    """Return the same identity with other content."""
    plain = order.order
    content = {
        "product_name": plain.product_name,
        "amount": plain.amount,
        "created_at": plain.created_at,
    } | fields
    return AcceptedOrder(
        Order(id=plain.id, **content),  # type: ignore[arg-type]
        order.accepted_at,
        order.unit_id,
        order.unit_size,
        order.created_at_given,
    )


def letter(order_id: UUID, payload: bytes = b"{}", stage: Stage = Stage.PERSIST) -> DeadLetter:
    return DeadLetter(order_id, order_id, payload, "because", stage, 1)


async def test_persisted_orders_stand_in_the_record_as_they_were_accepted(
    store: Record, tables: Tables
) -> None:
    """Every field survives exactly: the cents, the microseconds, the text."""
    order = accepted(0.000001, name="Käse „alt“ 🧀 O'Hara", amount="9999999999.99")
    zero = accepted(1.5, amount="0.00")
    before = datetime.now(UTC)
    persisted = await store.persist([order, zero])
    assert persisted.inserted == {order.order.id, zero.order.id}
    assert persisted.conflicts == {}
    assert set(persisted.stored) == persisted.inserted
    assert before - timedelta(seconds=5) <= persisted.stored[order.order.id].persisted_at
    assert await tables.orders() == [
        StoredOrder(one.order, one.accepted_at, persisted.stored[one.order.id].persisted_at)
        for one in (order, zero)
    ]
    assert (await store.find([zero.order.id])).orders == {
        zero.order.id: persisted.stored[zero.order.id]
    }
    assert str(persisted.stored[zero.order.id].order.amount) == "0.00"


async def test_redelivery_counts_nothing_twice(store: Record, tables: Tables) -> None:
    """A batch that comes again is stored, as it stands, and feeds neither rollup nor outbox."""
    batch = [accepted(second, amount=f"{second}.01") for second in range(20)]
    first = await store.persist(batch)
    again = await store.persist(batch)
    assert again.stored == first.stored
    assert (again.inserted, again.outbox_id, again.conflicts) == (frozenset(), None, {})
    await tables.assert_rollup_exact()
    assert len(await tables.orders()) == 20
    assert len(await tables.outbox()) == 1


async def test_only_new_rows_feed_rollup_and_outbox(store: Record, tables: Tables) -> None:
    """Of a batch that is partly there, the outbox row holds the rest, and so does the rollup."""
    old, new = [accepted() for _ in range(3)], [accepted(amount="0.05") for _ in range(4)]
    await store.persist(old)
    persisted = await store.persist([*old[:2], *new, old[2]])
    assert persisted.inserted == {one.order.id for one in new}
    assert len(persisted.stored) == 7
    assert persisted.outbox_id is not None
    assert set((await tables.outbox())[persisted.outbox_id]) == persisted.inserted
    await tables.assert_rollup_exact()


async def test_an_id_twice_in_a_batch_is_one_order(store: Record, tables: Tables) -> None:
    """The second is treated as if it came later: the same content counts once."""
    order, other = accepted(), accepted()
    persisted = await store.persist([order, other, order])
    assert persisted.inserted == {order.order.id, other.order.id}
    assert persisted.conflicts == {}
    await tables.assert_rollup_exact()
    assert len(await tables.orders()) == 2


async def test_an_id_twice_with_other_content_is_a_conflict_with_the_first(
    store: Record, tables: Tables
) -> None:
    """The first of the batch wins; the second is reported with the row that it met."""
    first = accepted(amount="1.00")
    persisted = await store.persist([first, changed(first, amount=Decimal("2.00"))])
    assert persisted.inserted == {first.order.id}
    assert persisted.conflicts == {first.order.id: persisted.stored[first.order.id]}
    assert [row.order.amount for row in await tables.orders()] == [Decimal("1.00")]
    await tables.assert_rollup_exact()


async def test_a_conflict_leaves_out_its_whole_unit(store: Record, tables: Tables) -> None:
    """Nothing of the unit is stored or counted; the rest of the batch is."""
    taken = accepted(name="taken")
    await store.persist([taken])
    unit = bulk("a", "b", "c")
    unit[1] = AcceptedOrder(
        changed(taken, product_name="b").order, unit[1].accepted_at, unit[1].unit_id, 3
    )
    single, other = accepted(name="single"), bulk("d", "e")
    persisted = await store.persist([single, *unit, *other])
    assert persisted.inserted == {single.order.id, *(one.order.id for one in other)}
    assert set(persisted.stored) == persisted.inserted
    assert persisted.conflicts.keys() == {taken.order.id}
    assert persisted.conflicts[taken.order.id].order == taken.order
    assert await tables.names() == [
        "d",
        "e",
        "single",
        "taken",
    ]
    await tables.assert_rollup_exact()
    assert len(await tables.outbox()) == 2


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 86_400.0])
@pytest.mark.parametrize("stored", [[0], [1, 2], [0, 2]], ids=["first", "rest", "two"])
async def test_a_keyed_bulk_of_which_a_part_is_stored(
    store: Record, tables: Tables, stored: Sequence[int], seconds: float
) -> None:
    """Its own part is completed; its first order from another moment is another bulk's."""
    first, other = new_id(), accepted(name="other")
    unit = [
        accepted(name=name, order_id=first if name == "a" else None, unit=(first, 3))
        for name in ("a", "b", "c")
    ]
    moment = unit[0].accepted_at + timedelta(seconds=seconds)
    await store.persist([AcceptedOrder(unit[n].order, moment, unit[n].order.id) for n in stored])
    persisted = await store.persist([*reversed(unit), other])
    if stored == [0] and seconds:
        assert persisted.inserted == {other.order.id}
        assert persisted.conflicts.keys() == {first}
        assert await tables.names() == ["a", "other"]
    else:
        assert persisted.conflicts == {}
        assert await tables.names() == ["a", "b", "c", "other"]
    await tables.assert_rollup_exact()


async def test_a_batch_of_conflicts_only_stores_nothing(store: Record, tables: Tables) -> None:
    """All left out: the rows as they stand, and no outbox row."""
    orders = [accepted() for _ in range(3)]
    first = await store.persist(orders)
    persisted = await store.persist([changed(one, product_name="other") for one in orders])
    assert persisted.stored == {}
    assert persisted.inserted == frozenset()
    assert persisted.outbox_id is None
    assert persisted.conflicts == first.stored
    assert len(await tables.outbox()) == 1


async def test_what_met_only_a_left_out_unit_is_stored(store: Record, tables: Tables) -> None:
    """A unit set aside for an earlier one is tried again once that one is left out itself."""
    taken = accepted(name="taken")
    await store.persist([taken])
    earlier = bulk("a", "b")
    earlier[1] = AcceptedOrder(
        changed(taken, product_name="b").order, earlier[1].accepted_at, earlier[1].unit_id, 2
    )
    later = AcceptedOrder(
        changed(earlier[0], product_name="later").order, earlier[0].accepted_at, new_id()
    )
    persisted = await store.persist([*earlier, later])
    assert persisted.inserted == {later.order.id}
    assert persisted.conflicts.keys() == {taken.order.id}
    assert await tables.names() == ["later", "taken"]
    await tables.assert_rollup_exact()


async def test_created_at_counts_only_where_it_was_given(store: Record) -> None:
    """A retried request has a new moment and is the same order; an imported one is not."""
    order = accepted()
    await store.persist([order])
    retried = changed(order, created_at=order.order.created_at + timedelta(hours=1))
    persisted = await store.persist([retried])
    assert persisted.stored[order.order.id].order == order.order
    imported = AcceptedOrder(
        retried.order, retried.accepted_at, retried.unit_id, created_at_given=True
    )
    assert (await store.persist([imported])).conflicts.keys() == {order.order.id}


async def test_a_unit_that_contradicts_itself_is_poison(store: Record, tables: Tables) -> None:
    """One id with two contents in one unit can never be stored whole."""
    unit = bulk("a", "b")
    unit[1] = changed(unit[0], product_name="b")
    with pytest.raises(PoisonError, match=str(unit[0].order.id)):
        await store.persist(unit)
    assert len(await tables.orders()) == 0


@pytest.mark.parametrize(
    "content",
    [
        {"product_name": ""},
        {"product_name": "x" * 201},
        {"product_name": "NUL \x00"},
        {"product_name": "lone \ud800"},
        {"amount": Decimal("-0.01")},
        {"amount": Decimal("10000000000.00")},
        {"amount": Decimal("NaN")},
        {"amount": Decimal("Infinity")},
        {"created_at": datetime.max.replace(tzinfo=UTC)},
    ],
    ids=str,
)
async def test_what_postgres_can_never_hold_is_poison(
    store: Record, tables: Tables, content: dict[str, object]
) -> None:
    """It is refused for good, its batch is rolled back, and the next call is served."""
    good = accepted()
    with pytest.raises(PoisonError):
        await store.persist([good, changed(accepted(), **content)])
    assert len(await tables.orders()) == 0
    assert (await store.persist([good])).inserted == {good.order.id}


async def test_persisting_removes_the_dead_letters_of_what_it_inserts(
    store: Record, tables: Tables
) -> None:
    """A replayed order is dead no longer; the letters of others stay."""
    replayed, other = accepted(), accepted()
    same = codec.encode_item(replayed, codec.encode_order(replayed.order))
    await store.bury([letter(replayed.order.id), letter(replayed.order.id, same)])
    await store.bury([letter(other.order.id)])
    await store.persist([replayed])
    assert [row.order_id for row in await tables.letters()] == [other.order.id]
    found = await store.find([replayed.order.id, other.order.id])
    assert found.orders.keys() == {replayed.order.id}
    assert found.dead.keys() == {other.order.id}


async def test_persisting_keeps_the_dead_letters_of_another_order_under_its_id(
    store: Record, tables: Tables
) -> None:
    """That one was accepted, too: it must not vanish because the first one is persisted."""
    first = accepted()
    others = [changed(first, product_name="another"), changed(first, amount=Decimal("9.99"))]
    payloads = [codec.encode_item(one, codec.encode_order(one.order)) for one in others]
    await store.bury([letter(first.order.id, payload) for payload in payloads])
    assert (await store.persist([first])).inserted == {first.order.id}
    kept = [row.payload for row in await tables.letters()]
    assert sorted(kept) == sorted(payloads)
    found = await store.find([first.order.id])
    assert found.orders.keys() == {first.order.id}
    assert not found.dead


async def test_a_refused_unit_keeps_its_dead_letters(store: Record, tables: Tables) -> None:
    """What is rolled back removes nothing."""
    taken = accepted()
    await store.persist([taken])
    unit = bulk("a", "b")
    unit[1] = AcceptedOrder(
        changed(taken, product_name="b").order, unit[1].accepted_at, unit[1].unit_id, 2
    )
    await store.bury([letter(unit[0].order.id)])
    await store.persist(unit)
    assert len(await tables.letters()) == 1


async def test_an_empty_batch_is_nothing(store: Record) -> None:
    """There is nothing to store, so nothing is."""
    persisted = await store.persist([])
    assert persisted == ({}, frozenset(), None, {})


async def test_overlapping_batches_at_once_neither_deadlock_nor_count_twice(
    store: Record, tables: Tables
) -> None:
    """Shuffled batches from six connections: every order goes in once, whoever brings it first."""
    random_numbers = random.Random(20_260_101)
    orders = [
        accepted(random_numbers.randrange(100_000), name=f"product {i % 40}", amount=f"{i % 90}.07")
        for i in range(400)
    ]

    async def bring(seed: int) -> Sequence[UUID]:
        order = random.Random(seed)
        inserted: list[UUID] = []
        for _ in range(6):
            inserted += (await store.persist(order.sample(orders, 150))).inserted
        return inserted

    brought = await asyncio.gather(*[bring(seed) for seed in range(6)])
    inserted = [order_id for one in brought for order_id in one]
    assert len(inserted) == len(set(inserted)) == len(await tables.orders())
    assert len(inserted) > 350
    await tables.assert_rollup_exact()


async def test_a_conflict_that_commits_meanwhile_is_still_seen(
    store: Record, seen: Onlooker, record_dsn: str
) -> None:
    """An id that another transaction was just inserting: its content decides, once it committed."""
    unit = bulk("a", "b")
    async with onlooker(record_dsn) as rival:
        await rival.execute("BEGIN")
        await rival.rows(
            "INSERT INTO orders (id, product_name, amount, created_at, accepted_at)"
            " VALUES ($1, 'rival', 1, now(), now())",
            max(one.order.id for one in unit),
        )
        task = asyncio.create_task(store.persist(unit))
        await seen.blocked()
        await rival.execute("COMMIT")
        persisted = await task
    assert persisted.stored == {}
    assert [row.order.product_name for row in persisted.conflicts.values()] == ["rival"]
    assert await seen.rows("SELECT product_name FROM orders") == [("rival",)]


async def test_the_rollback_of_a_rival_lets_the_order_in(
    store: Record, seen: Onlooker, record_dsn: str
) -> None:
    """An id that another transaction inserted and took back is new."""
    order = accepted()
    async with onlooker(record_dsn) as rival:
        await rival.execute("BEGIN")
        await rival.rows(
            "INSERT INTO orders (id, product_name, amount, created_at, accepted_at)"
            " VALUES ($1, 'rival', 1, now(), now())",
            order.order.id,
        )
        task = asyncio.create_task(store.persist([order]))
        await seen.blocked()
        await rival.execute("ROLLBACK")
        assert (await task).inserted == {order.order.id}
    await seen.assert_rollup_exact()


IDS = [UUID(int=number) for number in range(12)]
MICROS_MAX = to_micros(datetime(9998, 12, 31, tzinfo=UTC))
MOMENTS = st.integers(-MICROS_MAX // 5, MICROS_MAX) | st.integers(-20, 20).map(
    lambda halves: to_micros(datetime(2025, 1, 1, tzinfo=UTC)) + halves * 450_000_000 - halves % 2
)
"""Any moment, and many at the edges of one day's quarter hours."""
ORDERS = st.builds(
    Order,
    id=st.sampled_from(IDS) | st.uuids(),
    product_name=st.sampled_from(["tea", "Tea", "täa", " "]),
    amount=st.decimals(0, Decimal("9999999999.99"), places=2),
    created_at=MOMENTS.map(from_micros),
)
BATCHES = st.lists(
    st.builds(lambda order: AcceptedOrder(order, order.created_at, order.id), ORDERS), max_size=12
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=BATCHES)
async def test_the_rollup_is_the_sum_over_the_orders(
    store: Record, tables: Tables, batch: Sequence[AcceptedOrder]
) -> None:
    """Whatever comes, however often, before 1970 or far ahead: rollup and record agree."""
    persisted = await store.persist(batch)
    assert persisted.stored.keys() | persisted.conflicts.keys() == {one.order.id for one in batch}
    assert (await store.find(list(persisted.stored))).orders == persisted.stored
    await tables.assert_rollup_exact()


async def test_a_stored_order_is_what_a_later_reader_gets(store: Record) -> None:
    """What persist returns and what find returns are equal, type by type."""
    order = accepted()
    stored = (await store.persist([order])).stored[order.order.id]
    found = (await store.find([order.order.id])).orders[order.order.id]
    assert isinstance(found, StoredOrder)
    assert found == stored
    assert found.persisted_at.tzinfo is UTC
