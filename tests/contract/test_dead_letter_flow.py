"""Replaying and discarding over the real record and cache: alone, by units, all at once, twice."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, LetterFilter, Stage
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.errors import NotFoundError, UnavailableError
from polyglot_persistence.flows.behind import dead_letter_units
from polyglot_persistence.flows.behind import dead_letters as module
from polyglot_persistence.flows.behind.dead_letters import (
    DeadLetterFlow,
    Handled,
    Operator,
    Outcome,
)
from polyglot_persistence.flows.behind.persist import PersistFlow
from tests.support.addresses import BUNDLED
from tests.support.dead_letters import ALL, ME, Stand, bulk, outcomes, payload, standing
from tests.support.orders import accepted, prepared, single
from tests.support.record import Onlooker

pytestmark = BUNDLED


@pytest_asyncio.fixture
async def stand(pool: PostgresPool, redis_url: str) -> AsyncIterator[Stand]:
    async with standing(pool, redis_url) as stand:
        yield stand


async def test_a_replayed_order_is_persisted_and_its_letter_gone(
    stand: Stand, seen: Onlooker
) -> None:
    """It is clean in the cache, waits for the index, and is counted in the sales, once."""
    order = accepted()
    await stand.bury([order])
    assert (await stand.reads.status(order.order.id)).dead is not None
    (letter_id,) = await stand.ids()
    handled = await stand.flow.act("replay", letter_id, ME)
    assert handled == [Handled(letter_id, order.order.id, Outcome.PERSISTED)]
    assert await stand.ids() == []
    status = await stand.reads.status(order.order.id)
    assert (status.persisted, status.dead) == (True, None)
    entry = (await stand.cache.read([order.order.id])).entries[0]
    assert entry is not None
    assert codec.entry_state(entry) is EntryState.CLEAN
    assert (await stand.store.progress(dead_letters_max=1)).outbox_orders == 1
    await seen.assert_rollup_exact()
    with pytest.raises(NotFoundError):
        await stand.flow.act("replay", letter_id, ME)
    await seen.assert_rollup_exact()


async def test_what_fails_again_is_buried_again(stand: Stand) -> None:
    """Attempts count up, the reason is the one of now, and the order reads as before."""
    order = accepted(name="tea")
    await stand.store.persist([accepted(order_id=order.order.id, name="coffee")])
    await stand.bury([order])
    (letter_id,) = await stand.ids()
    for attempts in (2, 3):
        (handled,) = await stand.flow.act("replay", letter_id, ME)
        assert handled.outcome is Outcome.KEPT
        assert "the record holds another order under this id" in handled.detail
        row = await stand.flow.get(letter_id)
        assert row.letter.attempts == attempts
        assert row.letter.reason == handled.detail
        assert row.last_at > row.first_at
    read = await stand.reads.get(order.order.id)
    assert b"coffee" in read.body


async def test_a_conflict_can_only_be_discarded(stand: Stand) -> None:
    """The order of the record stays readable as it is."""
    order = accepted(name="tea")
    await stand.store.persist([accepted(order_id=order.order.id, name="coffee")])
    await stand.persist.persist([order], "queue")
    (letter_id,) = await stand.ids()
    assert outcomes(await stand.flow.act("discard", letter_id, ME)) == [Outcome.DISCARDED]
    assert await stand.ids() == []
    assert b"coffee" in (await stand.reads.get(order.order.id)).body


async def test_a_discarded_order_is_unknown(stand: Stand) -> None:
    """Before, it could be read and its status told why; then it is 404, with certainty."""
    order = accepted()
    await stand.bury([order], reason="too heavy")
    (letter_id,) = await stand.ids()
    assert (await stand.reads.get(order.order.id)).hit
    handled = await stand.flow.act("discard", letter_id, ME)
    assert handled == [Handled(letter_id, order.order.id, Outcome.DISCARDED)]
    for ask in (stand.reads.get, stand.reads.status):
        with pytest.raises(NotFoundError):
            await ask(order.order.id)
    with pytest.raises(NotFoundError):
        await stand.flow.act("discard", letter_id, ME)


async def test_a_dead_order_is_read_from_its_letter_when_its_entry_is_gone(stand: Stand) -> None:
    """The entry expires, the letter does not."""
    order = accepted()
    await stand.bury([order], reason="too heavy")
    await stand.cache.forget_dead([order.order.id])
    read = await stand.reads.get(order.order.id)
    assert (read.hit, read.body) == (False, codec.encode_order(order.order))
    status = await stand.reads.status(order.order.id)
    assert status.dead is not None
    assert status.dead.letter.reason == "too heavy"
    (letter_id,) = await stand.ids()
    assert outcomes(await stand.flow.act("replay", letter_id, ME)) == [Outcome.PERSISTED]


async def test_a_bulk_goes_as_a_whole(stand: Stand, seen: Onlooker) -> None:
    """Named by one of its letters, replayed in one transaction, or discarded together."""
    first, second, other = bulk(3), bulk(4), accepted()
    await stand.bury([*first, *second, other])
    ids = list(reversed(await stand.ids()))
    assert outcomes(await stand.flow.act("replay", ids[1], ME)) == [Outcome.PERSISTED] * 3
    assert await seen.value("SELECT count(DISTINCT persisted_at) FROM orders") == 1
    assert outcomes(await stand.flow.act("discard", ids[5], ME)) == [Outcome.DISCARDED] * 4
    assert await stand.ids() == [ids[7]]
    assert (await stand.store.find([one.order.id for one in second])).orders == {}


async def test_a_bulk_with_a_poisoned_member_stays_whole(stand: Stand, seen: Onlooker) -> None:
    """Also among others of the same batch, which are persisted."""
    members, others = bulk(3), [accepted() for _ in range(5)]
    taken = members[1].order.id
    await stand.store.persist([accepted(order_id=taken, name="taken")])
    await stand.bury([*members, *others])
    handled = await stand.whole_run("replay", ALL)
    assert sorted(outcomes(handled), key=str) == [Outcome.KEPT] * 3 + [Outcome.PERSISTED] * 5
    assert len(await stand.ids()) == 3
    assert await seen.value("SELECT count(*) FROM orders") == 6
    assert await seen.rows("SELECT attempts FROM dead_letters") == [(2,)] * 3


async def test_a_part_of_a_bulk_says_what_is_missing(stand: Stand) -> None:
    """It can be discarded, and not be replayed."""
    members = bulk(3)
    await stand.bury(members[:2], stage=Stage.DECODE)
    letter_id, _ = await stand.ids()
    handled = await stand.flow.act("replay", letter_id, ME)
    assert outcomes(handled) == [Outcome.KEPT] * 2
    assert "2 of 3 orders" in handled[0].detail
    assert (await stand.flow.get(letter_id)).letter.attempts == 2
    assert outcomes(await stand.flow.act("discard", letter_id, ME)) == [Outcome.DISCARDED] * 2


async def test_unreadable_payloads_stay_and_say_so(stand: Stand) -> None:
    """With and without an id; discarding removes them."""
    order_id = new_id()
    unreadable = [
        DeadLetter(None, None, b"\xff nonsense", "no message", Stage.DECODE, 1),
        DeadLetter(order_id, order_id, b"{}", "no amount", Stage.DECODE, 1),
    ]
    await stand.store.bury(unreadable)
    handled = await stand.whole_run("replay", ALL)
    assert outcomes(handled) == [Outcome.KEPT] * 2
    assert all("not an item of a message" in one.detail for one in handled)
    rows = await stand.letters.read(await stand.ids())
    assert {(row.letter.attempts, row.letter.reason) for row in rows} == {
        (2, "no message"),
        (2, "no amount"),
    }
    handled = await stand.whole_run("discard", ALL)
    assert outcomes(handled) == [Outcome.DISCARDED] * 2
    assert await stand.ids() == []


async def test_an_item_that_can_be_read_by_now_is_persisted(stand: Stand) -> None:
    """Whether or not its id was known before."""
    known, unknown = accepted(), accepted()
    await stand.bury([known], stage=Stage.DECODE)
    await stand.store.bury(
        [DeadLetter(None, None, payload(unknown), "no field", Stage.DECODE, attempts=1)]
    )
    handled = await stand.whole_run("replay", ALL)
    assert outcomes(handled) == [Outcome.PERSISTED] * 2
    assert await stand.ids() == []
    assert len((await stand.store.find([known.order.id, unknown.order.id])).orders) == 2


async def test_an_item_that_can_be_read_by_now_and_not_be_persisted(stand: Stand) -> None:
    """A letter of the later stage takes the place of the earlier one."""
    order = accepted()
    await stand.store.persist([accepted(order_id=order.order.id, name="other")])
    # The same item, written with a blank more than this version writes.
    raw = payload(order).replace(b'{"accepted_at":', b'{"accepted_at": ', 1)
    await stand.store.bury(
        [DeadLetter(order.order.id, order.unit_id, raw, "no field", Stage.DECODE, attempts=1)]
    )
    (handled,) = await stand.whole_run("replay", ALL)
    assert handled.outcome is Outcome.KEPT
    (row,) = await stand.letters.page(ALL, None, 10)
    assert row.id == handled.letter_id
    assert row.letter.stage is Stage.PERSIST
    assert row.letter.reason == handled.detail


async def test_two_contents_under_one_id_cannot_both_be_persisted(stand: Stand) -> None:
    """The first that was condemned wins; the other is a conflict from now on."""
    first = accepted(name="first")
    second = accepted(order_id=first.order.id, name="second")
    await stand.bury([first])
    await stand.bury([second])
    handled = await stand.flow.act("replay", (await stand.ids())[0], ME)
    assert sorted(outcomes(handled), key=str) == [Outcome.KEPT, Outcome.PERSISTED]
    (row,) = await stand.letters.page(ALL, None, 10)
    kept = next(one for one in handled if one.outcome is Outcome.KEPT)
    assert (kept.letter_id, kept.detail) == (row.id, row.letter.reason)
    assert codec.decode_item(row.letter.payload) == second


async def test_a_letter_of_an_order_that_is_there_already_is_removed(stand: Stand) -> None:
    """Persisted from elsewhere before it was condemned: nothing is inserted, nothing is wrong."""
    order = accepted()
    await stand.store.persist([order])
    await stand.bury([order])
    handled = await stand.whole_run("replay", ALL)
    assert outcomes(handled) == [Outcome.PERSISTED]
    assert await stand.ids() == []


async def test_a_letter_of_the_index_is_indexed_again(stand: Stand) -> None:
    """By the worker, from the outbox; discarding leaves the order as it is."""
    orders = [accepted(), accepted()]
    persisted = await stand.store.persist(orders)
    assert persisted.outbox_id is not None
    await stand.store.outbox_done([persisted.outbox_id])
    await stand.bury(orders, stage=Stage.INDEX)
    later, earlier = await stand.ids()
    assert outcomes(await stand.flow.act("replay", later, ME)) == [Outcome.REINDEXED]
    assert (await stand.store.progress(dead_letters_max=1)).outbox_orders == 1
    assert outcomes(await stand.flow.act("discard", earlier, ME)) == [Outcome.DISCARDED]
    assert await stand.ids() == []
    assert len((await stand.store.find([one.order.id for one in orders])).orders) == 2


async def test_a_dirty_entry_holds_up_its_discard(stand: Stand) -> None:
    """Else the sweeper would bring it again; with its bulk, and with nothing else."""
    members, other = bulk(2), accepted()
    await stand.cache.accept([single(members[0])])
    await stand.store.bury(
        [
            DeadLetter(one.order.id, one.unit_id, payload(one), "because", Stage.PERSIST, 1)
            for one in (*members, other)
        ]
    )
    handled = await stand.whole_run("discard", ALL)
    assert {one.order_id: one.outcome for one in handled} == {
        members[0].order.id: Outcome.KEPT,
        members[1].order.id: Outcome.KEPT,
        other.order.id: Outcome.DISCARDED,
    }
    assert "not yet persisted" in next(h.detail for h in handled if h.outcome is Outcome.KEPT)
    assert len(await stand.ids()) == 2
    assert (await stand.cache.backlog()).orders == 1
    assert prepared(members[0]).body in (
        (await stand.cache.read([members[0].order.id])).entries[0] or b""
    )


async def test_all_that_match_are_handled_in_slices(
    stand: Stand, seen: Onlooker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, units whole across the ends of slices, whatever comes meanwhile."""
    monkeypatch.setattr(module, "SLICE_LETTERS", 7)
    monkeypatch.setattr(dead_letter_units, "PART_UNITS", 3)
    monkeypatch.setattr(dead_letter_units, "BATCH_ORDERS", 4)
    orders = [accepted() for _ in range(9)]
    for size in (5, 2, 9, 3):
        orders += bulk(size)
        orders.append(accepted())
    conflict = orders[12]
    await stand.store.persist([accepted(order_id=conflict.order.id, name="taken")])
    await stand.bury(orders)
    untouched = accepted()
    await stand.bury([untouched], stage=Stage.DECODE)
    handled = await stand.whole_run("replay", LetterFilter(stage=Stage.PERSIST))
    in_vain = {one.order.id for one in orders if one.unit_id == conflict.unit_id}
    assert {one.order_id for one in handled if one.outcome is Outcome.KEPT} == in_vain
    persisted = [one.order_id for one in handled if one.outcome is Outcome.PERSISTED]
    assert len(persisted) == len(set(persisted)) == len(orders) - len(in_vain)
    assert len(await stand.ids()) == len(in_vain) + 1
    assert await seen.rows("SELECT DISTINCT attempts FROM dead_letters ORDER BY 1") == [(1,), (2,)]
    await seen.assert_rollup_exact()


async def test_two_operators_at_once_do_everything_once(
    stand: Stand, seen: Onlooker, pool: PostgresPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One replays and one discards, both in other processes' stead: each order has one fate."""
    monkeypatch.setattr(module, "SLICE_LETTERS", 20)
    orders = [accepted() for _ in range(200)]
    await stand.bury(orders)
    other = DeadLetterFlow(
        PostgresDeadLetters(pool), PostgresRecord(pool), stand.cache, stand.persist
    )
    replayed, discarded = await asyncio.gather(
        stand.whole_run("replay", ALL),
        stand.whole_run("discard", ALL, other),
    )
    assert set(outcomes(replayed)) <= {Outcome.PERSISTED}
    assert set(outcomes(discarded)) <= {Outcome.DISCARDED}
    fates = [one.order_id for one in (*replayed, *discarded)]
    assert sorted(fates, key=str) == sorted((one.order.id for one in orders), key=str)
    assert await seen.value("SELECT count(*) FROM orders") == len(replayed)
    for one in discarded:
        assert one.order_id is not None
        with pytest.raises(NotFoundError):
            await stand.reads.get(one.order_id)


async def test_two_replays_at_once_count_nothing_twice(stand: Stand, seen: Onlooker) -> None:
    """The second finds nothing left, or waits and then finds nothing left."""
    orders = [accepted() for _ in range(50)]
    await stand.bury(orders)
    runs = await asyncio.gather(*[stand.whole_run("replay", ALL) for _ in range(3)])
    assert sorted(len(run) for run in runs) == [0, 0, 50]
    await seen.assert_rollup_exact()


async def test_every_action_is_logged(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    """What was done to which letters and orders, by whom."""
    order = accepted()
    await stand.bury([order])
    (letter_id,) = await stand.ids()
    with caplog.at_level(logging.INFO):
        await stand.flow.act("replay", letter_id, Operator("request", "10.1.2.3"))
    (line,) = [record for record in caplog.records if record.msg == "dead_letters_handled"]
    fields = line.fields  # type: ignore[attr-defined]
    assert fields == {
        "component": "dead_letters",
        "operation": "replay",
        "outcome": "persisted",
        "trigger": "request",
        "who": "10.1.2.3",
        "count": 1,
        "letters": [letter_id],
        "orders": [order.order.id],
    }


async def test_a_cache_that_is_away_forbids_discarding(
    stand: Stand, pool: PostgresPool, caplog: pytest.LogCaptureFixture
) -> None:
    """It could not be forgotten there; the letter stays, the try is logged, and replay works."""
    order = accepted()
    await stand.bury([order])
    (letter_id,) = await stand.ids()

    class Away:
        async def read(self, _ids: object) -> None:
            raise UnavailableError("away")

        async def settle(self, _settled: object) -> None:
            raise UnavailableError("away")

    away = cast("Any", Away())
    persist = PersistFlow(stand.store, away, SystemClock())
    flow = DeadLetterFlow(PostgresDeadLetters(pool), stand.store, away, persist)
    with pytest.raises(UnavailableError):
        await flow.act("discard", letter_id, ME)
    (line,) = [record for record in caplog.records if record.msg == "dead_letters_failed"]
    assert line.fields["letters"] == [letter_id]  # type: ignore[attr-defined]
    assert await stand.ids() == [letter_id]
    assert outcomes(await flow.act("replay", letter_id, ME)) == [Outcome.PERSISTED]
    assert (await stand.reads.status(order.order.id)).persisted


async def test_listing_and_counting(stand: Stand) -> None:
    """What the port gives, and an error for a letter that is not there."""
    await stand.bury([accepted(), accepted()])
    assert len(await stand.flow.page(ALL, None, 1)) == 1
    counts = await stand.flow.count(LetterFilter(since=datetime(2020, 1, 1, tzinfo=UTC)))
    assert counts.letters == 2
    with pytest.raises(NotFoundError):
        await stand.flow.get(10**12)
