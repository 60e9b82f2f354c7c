"""What is replayed or discarded together, over the real record and cache."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.redis.keys import entry
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, LetterFilter, Stage
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.behind import dead_letter_units
from polyglot_persistence.flows.behind.dead_letters import Action, Handled, Outcome
from polyglot_persistence.flows.reading.read import Read
from tests.support.addresses import BUNDLED
from tests.support.dead_letters import ALL, ME, Stand, bulk, outcomes, payload, standing
from tests.support.orders import accepted, single
from tests.support.record import Onlooker
from tests.support.servers import redis_done

pytestmark = BUNDLED


@pytest_asyncio.fixture
async def stand(pool: PostgresPool, redis_url: str) -> AsyncIterator[Stand]:
    async with standing(pool, redis_url) as stand:
        yield stand


def under_one_key(size: int, unit: AcceptedOrder, seconds: float) -> list[AcceptedOrder]:
    """Return a bulk under the unit id of another unit, as the same key gives it."""
    return [
        accepted(seconds, name=f"k{number}", unit=(unit.unit_id, size)) for number in range(size)
    ]


@pytest.mark.parametrize("action", ["replay", "discard"])
@pytest.mark.parametrize("in_slices", [False, True])
async def test_a_single_order_and_bulks_of_one_key_are_units_of_their_own(
    stand: Stand, action: Action, in_slices: bool
) -> None:
    """They share their unit id; named by one letter, each goes alone and whole."""
    alone = accepted(1.0, name="alone")
    bulks = [under_one_key(3, alone, 2.0), under_one_key(3, alone, 3.0), under_one_key(2, alone, 3)]
    await stand.bury([alone, *bulks[0]], reason="one of them")
    await stand.bury([*bulks[1], *bulks[2]])
    done = Outcome.PERSISTED if action == "replay" else Outcome.DISCARDED
    for unit in ([alone], *bulks):
        left = set(await stand.ids())
        chosen = LetterFilter(order_id=unit[0].order.id)
        (row,) = await stand.letters.page(chosen, None, 10)
        if in_slices:
            handled: Sequence[Handled] = await stand.whole_run(action, chosen)
        else:
            handled = await stand.flow.act(action, row.id, ME)
        assert outcomes(handled) == [done] * len(unit)
        assert {one.order_id for one in handled} == {one.order.id for one in unit}
        assert set(await stand.ids()) == left - {one.letter_id for one in handled}
    assert await stand.ids() == []


async def test_all_units_of_one_key_are_handled_once_in_a_slice(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is passed over because another of its unit id was seen."""
    monkeypatch.setattr(dead_letter_units, "PART_UNITS", 1)
    alone = accepted(1.0, name="alone")
    orders = [alone, *under_one_key(2, alone, 2.0), accepted(), *under_one_key(3, alone, 3.0)]
    await stand.bury(orders)
    handled = await stand.whole_run("discard", ALL)
    assert outcomes(handled) == [Outcome.DISCARDED] * len(orders)
    assert await stand.ids() == []


async def test_a_dirty_entry_holds_up_its_own_unit_only(stand: Stand) -> None:
    """Not what else came under the key."""
    alone = accepted(1.0, name="alone")
    first, second = under_one_key(2, alone, 2.0), under_one_key(2, alone, 3.0)
    await stand.store.bury(
        [
            DeadLetter(one.order.id, one.unit_id, payload(one), "because", Stage.PERSIST, 1)
            for one in (alone, *first, *second)
        ]
    )
    await stand.cache.accept([single(first[0])])
    handled = await stand.whole_run("discard", ALL)
    kept = {one.order_id for one in handled if one.outcome is Outcome.KEPT}
    assert kept == {one.order.id for one in first}


async def test_an_entry_of_a_newer_version_holds_up_its_unit_and_no_other(
    stand: Stand, redis_url: str
) -> None:
    """It may yet be persisted, for all that this version knows."""
    newer, other = accepted(), accepted()
    await stand.bury([newer, other])
    raw = (await stand.cache.read([newer.order.id])).entries[0]
    assert raw is not None
    await redis_done(redis_url, "SET", entry(newer.order.id).decode(), "Z" + raw[1:].decode())
    handled = await stand.whole_run("discard", ALL)
    assert {one.order_id: one.outcome for one in handled} == {
        newer.order.id: Outcome.KEPT,
        other.order.id: Outcome.DISCARDED,
    }


async def test_an_unreadable_letter_goes_with_the_bulk_of_its_unit(stand: Stand) -> None:
    """And never with a single order that the same key stands for; named itself, likewise."""
    alone = accepted(1.0, name="alone")
    members = under_one_key(3, alone, 2.0)
    for named in (0, 2):
        await stand.bury([alone, *members[:2]], stage=Stage.DECODE)
        await stand.store.bury(
            [DeadLetter(members[2].order.id, alone.unit_id, b"{}", "no amount", Stage.DECODE, 1)]
        )
        (row,) = await stand.letters.page(LetterFilter(order_id=members[named].order.id), None, 10)
        handled = await stand.flow.act("discard", row.id, ME)
        assert {one.order_id for one in handled} == {one.order.id for one in members}
        (left,) = await stand.letters.page(ALL, None, 10)
        assert left.letter.order_id == alone.order.id


async def test_a_unit_in_vain_leaves_the_letters_of_others_of_its_orders(stand: Stand) -> None:
    """Sent twice under one key and condemned twice: replaying one does not remove the other's."""
    order = accepted(1.0, name="tea")
    again = accepted(2.0, order_id=order.order.id, name="tea")
    await stand.store.persist([accepted(order_id=order.order.id, name="coffee")])
    await stand.store.bury(
        [DeadLetter(order.order.id, order.unit_id, payload(order), "raw", Stage.DECODE, 1)]
    )
    await stand.bury([again])
    later, earlier = await stand.ids()
    (handled,) = await stand.flow.act("replay", earlier, ME)
    assert handled.outcome is Outcome.KEPT
    left = await stand.letters.page(ALL, None, 10)
    assert {codec.decode_item(row.letter.payload) for row in left} == {order, again}
    assert later in [row.id for row in left]


@pytest.mark.parametrize("action", ["replay", "discard"])
async def test_a_letter_of_a_newer_version_harms_nobody_beside_it(
    stand: Stand, seen: Onlooker, action: Action
) -> None:
    """It is listed and kept, with its unit; others are listed, read and handled as ever."""
    members, other, gone = bulk(2), accepted(), accepted()
    await stand.bury([*members, other, gone])
    await stand.cache.forget_dead([one.order.id for one in (*members, other, gone)])
    await seen.execute("ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_stage_check")
    try:
        await seen.execute(
            "UPDATE dead_letters SET stage = 'archive'"
            f" WHERE order_id IN ('{members[0].order.id}', '{gone.order.id}')"
        )
        reads = [stand.reads.get(one.order.id) for one in (*members, other, gone)]
        assert len(await asyncio.gather(*reads)) == 4
        assert (await stand.reads.status(gone.order.id)).dead is not None
        assert (await stand.flow.count(ALL)).letters == 4
        stages = {row.letter.stage.value for row in await stand.flow.page(ALL, None, 10)}
        assert stages == {"archive", "persist"}
        handled = await stand.whole_run(action, ALL)
    finally:
        await seen.execute(
            "DELETE FROM dead_letters WHERE stage = 'archive';"
            "ALTER TABLE dead_letters ADD CONSTRAINT dead_letters_stage_check"
            " CHECK (stage IN ('decode', 'persist', 'index'))"
        )
    done = Outcome.PERSISTED if action == "replay" else Outcome.DISCARDED
    assert {one.order_id: one.outcome for one in handled} == {
        members[0].order.id: Outcome.KEPT,
        members[1].order.id: Outcome.KEPT,
        gone.order.id: Outcome.KEPT,
        other.order.id: done,
    }


async def test_a_payload_that_cannot_be_read_harms_nobody_beside_it(stand: Stand) -> None:
    """Its order is neither given nor denied; its status is told, and others are as ever."""
    strange, other = accepted(), accepted()
    await stand.store.bury(
        [
            DeadLetter(strange.order.id, strange.unit_id, b'{"v": 2}', "new", Stage.PERSIST, 1),
            DeadLetter(other.order.id, other.unit_id, payload(other), "old", Stage.PERSIST, 1),
        ]
    )
    answers = await asyncio.gather(
        *[stand.reads.get(one.order.id) for one in (strange, other)], return_exceptions=True
    )
    assert isinstance(answers[0], UnavailableError)
    assert answers[1] == Read(codec.encode_order(other.order), hit=False)
    assert (await stand.reads.status(strange.order.id)).dead is not None
    handled = await stand.whole_run("replay", ALL)
    assert {one.order_id: one.outcome for one in handled} == {
        strange.order.id: Outcome.KEPT,
        other.order.id: Outcome.PERSISTED,
    }
