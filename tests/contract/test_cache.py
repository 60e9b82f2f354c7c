"""What the cache port promises, held against Redis's adapter and against the simulated cache."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.history import Position
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.ports.cache import Cache, Settled
from tests.support.addresses import EVERY_CACHE
from tests.support.cache import (
    LATER,
    TTL_SECONDS,
    dirty_ids,
    entry_of,
    ids_of,
)
from tests.support.caches import CacheServer, cache_server
from tests.support.eventually import eventually
from tests.support.orders import START, accepted, bulk, prepared, single

pytestmark = EVERY_CACHE


@pytest_asyncio.fixture
async def server(redis_url: str) -> AsyncIterator[CacheServer]:
    """An empty server."""
    server = cache_server(redis_url)
    yield server
    await server.close()


@pytest_asyncio.fixture
async def cache(server: CacheServer) -> Cache:
    return await server.process()


# --- accept ----------------------------------------------------------------------------------


async def test_an_accepted_order_is_readable_dirty_and_never_expires(
    cache: Cache, server: CacheServer
) -> None:
    """Accept stores the entry as codec writes it, marks it dirty, and gives it no TTL."""
    order = accepted()
    reply = await cache.accept([single(order)])
    assert reply[:3] == ({}, 1, True)
    assert [entry_of(order)] == (await cache.read([order.order.id])).entries
    assert [order.order.id] == await dirty_ids(cache)
    assert await server.ttl_seconds(order.order.id) is None


async def test_a_batch_of_singles_and_bulks_is_stored_whole(cache: Cache) -> None:
    """Every member of every unit of a batch is readable and dirty, in whatever order they come."""
    units = [bulk(3), single(accepted(1)), bulk(1000, 2), single(accepted(3)), bulk(2, 4)]
    reply = await cache.accept(units)
    assert reply.found == {}
    assert reply.backlog == 1007
    entries = (await cache.read(ids_of(*units))).entries
    members = [member.accepted for unit in units for member in unit.members]
    assert [entry_of(member) for member in members] == entries
    assert set(ids_of(*units)) == set(await dirty_ids(cache))


async def test_accepting_again_gives_back_what_is_there_and_changes_nothing(cache: Cache) -> None:
    """The first entry wins; a second accept of its id hears it and stores nothing."""
    first = accepted()
    other = accepted(5, order_id=first.order.id, name="another")
    await cache.accept([single(first)])
    reply = await cache.accept([single(other), single(neighbour := accepted(6))])
    assert {first.order.id: entry_of(first)} == reply.found
    assert reply.backlog == 2
    read = await cache.read([first.order.id, neighbour.order.id])
    assert [entry_of(first), entry_of(neighbour)] == read.entries


async def test_a_bulk_with_a_member_that_is_there_is_not_stored_at_all(cache: Cache) -> None:
    """One found member refuses its unit; the neighbours of the batch are stored."""
    unit = bulk(4)
    taken = unit.members[2].accepted
    await cache.accept([single(taken)])
    neighbour = bulk(2)
    reply = await cache.accept([unit, neighbour])
    assert {taken.order.id: entry_of(taken)} == reply.found
    assert reply.backlog == 3
    entries = (await cache.read(ids_of(unit))).entries
    assert [entry is not None for entry in entries] == [False, False, True, False]
    assert None not in (await cache.read(ids_of(neighbour))).entries


async def test_an_id_twice_in_a_batch_is_stored_once_and_found_once(cache: Cache) -> None:
    """The second of two units with the same id finds what the first stored."""
    first = accepted()
    second = accepted(1, order_id=first.order.id)
    reply = await cache.accept([single(first), single(second)])
    assert {first.order.id: entry_of(first)} == reply.found
    assert reply.backlog == 1


async def test_accept_after_settle_finds_the_entry_and_does_not_soil_it(cache: Cache) -> None:
    """A worker may persist a message before its accept arrives: the entry stays as settled."""
    order = accepted()
    await cache.settle([Settled(EntryState.CLEAN, order)])
    reply = await cache.accept([single(order)])
    assert {order.order.id: entry_of(order, EntryState.CLEAN)} == reply.found
    assert reply.backlog == 0
    assert await dirty_ids(cache) == []


async def test_a_dead_lettered_entry_is_made_only_of_a_dirty_one(cache: Cache) -> None:
    """A worker may be late: the letter is discarded by now, or the order persisted after all."""
    absent, clean = accepted(), accepted(1)
    await cache.settle([Settled(EntryState.CLEAN, clean)])
    for _ in range(2):
        await cache.settle([Settled(EntryState.DEAD, order) for order in (absent, clean)])
        entries = (await cache.read([absent.order.id, clean.order.id])).entries
        assert [None, entry_of(clean, EntryState.CLEAN)] == entries


@pytest.mark.parametrize("state", [EntryState.CLEAN, EntryState.DEAD])
async def test_settle_leaves_a_dirty_entry_of_another_order_alone(
    cache: Cache, state: EntryState
) -> None:
    """It was accepted as well, and nothing else may hold it: it stays dirty until its own fate."""
    waiting = accepted()
    recorded = accepted(5, order_id=waiting.order.id, name="another")
    await cache.accept([single(waiting)])
    await cache.settle([Settled(state, recorded)])
    assert [entry_of(waiting)] == (await cache.read([waiting.order.id])).entries
    assert [waiting.order.id] == await dirty_ids(cache)
    await cache.settle([Settled(EntryState.CLEAN, recorded, decided=waiting)])
    assert [entry_of(recorded, EntryState.CLEAN)] == (await cache.read([waiting.order.id])).entries
    assert await cache.backlog() == (0, None)


async def test_an_entry_of_a_newer_version_is_left_alone_with_its_mark(
    cache: Cache, server: CacheServer
) -> None:
    """It is read as it is, passed over by sweeps, and neither settled nor taken for a stray."""
    newer, order = accepted(), accepted(1)
    await cache.accept([single(newer), single(order)])
    raw = b"Z" + entry_of(newer)[1:]
    await server.put(newer.order.id, raw)
    await cache.settle([Settled(EntryState.CLEAN, newer)])
    assert [order.order.id] == await dirty_ids(cache)
    await cache.settle([Settled(EntryState.CLEAN, order)])
    assert await dirty_ids(cache) == []
    assert (await cache.backlog()).orders == 1
    read = await cache.read([newer.order.id, order.order.id])
    assert [raw, entry_of(order, EntryState.CLEAN)] == read.entries
    reply = await cache.accept([single(newer)])
    assert {newer.order.id: raw} == reply.found


async def test_concurrent_accepts_of_one_id_store_it_once(cache: Cache) -> None:
    """Of many concurrent accepts of one id exactly one finds nothing."""
    order_id = new_id()
    orders = [accepted(n, order_id=order_id) for n in range(20)]
    replies = await asyncio.gather(*[cache.accept([single(order)]) for order in orders])
    assert [order_id not in reply.found for reply in replies].count(True) == 1
    assert {reply.backlog for reply in replies} == {1}


async def test_one_accept_stores_thousands_of_units(cache: Cache) -> None:
    """More than a script hands over at a time; only units with a member that was there are not."""
    singles = [single(accepted(n)) for n in range(2_500)]
    bulks = [bulk(1_000, n) for n in range(3)]
    member = bulks[1].members[-1].accepted.order.id
    before = [singles[7], singles[-1], single(accepted(order_id=member))]
    await cache.accept(before)
    reply = await cache.accept([*singles, *bulks])
    assert set(ids_of(*before)) == reply.found.keys()
    assert reply.backlog == len(singles) + 2_000 + 1
    stored = [*singles, bulks[0], bulks[2]]
    wanted = [entry_of(one.accepted) for unit in stored for one in unit.members]
    assert wanted == (await cache.read(ids_of(*stored))).entries
    ids = {*ids_of(*stored), member}
    assert ids == set(await dirty_ids(cache))


async def test_a_cancelled_accept_still_happens_and_disturbs_nobody(cache: Cache) -> None:
    """Cancelling a caller neither undoes the batch nor shifts replies."""
    orders = [accepted(n) for n in range(3)]
    calls = [asyncio.create_task(cache.accept([single(order)])) for order in orders]
    await asyncio.sleep(0)
    calls[1].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    await eventually(lambda: _backlog_is(cache, 3))


async def _backlog_is(cache: Cache, orders: int) -> None:
    assert (await cache.backlog()).orders == orders


# --- read, backfill, settle, forget ----------------------------------------------------------


async def test_read_gives_entries_in_order_and_the_epoch(cache: Cache) -> None:
    """Missing entries and a missing epoch are None; ids may repeat; no ids is the epoch alone."""
    order = accepted()
    await cache.accept([single(order)])
    ids = [new_id(), order.order.id, new_id(), order.order.id]
    read = await cache.read(ids)
    assert [None, entry_of(order), None, entry_of(order)] == read.entries
    assert read.epoch is None
    await cache.begin_warming("token")
    assert await cache.copy_epoch("7", "token", read.reign)
    assert (await cache.read([]))[:3] == ([], "7", read.reign)


async def test_backfill_sets_only_what_is_absent(cache: Cache, server: CacheServer) -> None:
    """A backfill stores clean entries with a TTL and leaves entries that are there alone."""
    dirty, absent = accepted(), accepted(1)
    await cache.accept([single(dirty)])
    await cache.backfill([dirty, absent])
    read = await cache.read([dirty.order.id, absent.order.id])
    assert [entry_of(dirty), entry_of(absent, EntryState.CLEAN)] == read.entries
    assert 0 < (await server.ttl_seconds(absent.order.id) or 0) <= TTL_SECONDS
    assert await server.ttl_seconds(dirty.order.id) is None
    await cache.backfill([])


@pytest.mark.parametrize("state", [EntryState.CLEAN, EntryState.DEAD])
async def test_settle_overwrites_and_unmarks(
    cache: Cache, server: CacheServer, state: EntryState
) -> None:
    """A settled entry says what the record has, expires, and is dirty no more; again alike."""
    order = accepted()
    await cache.accept([single(order)])
    as_recorded = accepted(9, order_id=order.order.id)
    for _ in range(2):
        await cache.settle([Settled(state, as_recorded, decided=order)])
        read = await cache.read([order.order.id])
        assert [entry_of(as_recorded, state)] == read.entries
        assert 0 < (await server.ttl_seconds(order.order.id) or 0) <= TTL_SECONDS
        assert await cache.backlog() == (0, None)


async def test_settle_takes_any_number_and_none(cache: Cache) -> None:
    """Thousands of orders are settled by one call, also those that are not there."""
    units = [bulk(1000, n) for n in range(3)]
    for unit in units:
        await cache.accept([unit])
    absent = accepted()
    orders = [member.accepted for unit in units for member in unit.members]
    await cache.settle([Settled(EntryState.CLEAN, order) for order in [*orders, absent]])
    assert await cache.backlog() == (0, None)
    entries = (await cache.read([*ids_of(*units), absent.order.id])).entries
    assert {EntryState.CLEAN} == {codec.entry_state(entry) for entry in entries if entry}
    assert None not in entries
    await cache.settle([])


async def test_forget_dead_removes_only_the_dead(cache: Cache) -> None:
    """Dirty and clean entries stay, dead-lettered ones go, absent ones do not matter."""
    dirty, clean, dead = accepted(), accepted(1), accepted(2)
    await cache.accept([single(dirty)])
    await cache.settle([Settled(EntryState.CLEAN, clean), Settled(EntryState.DEAD, dead)])
    ids = [dirty.order.id, clean.order.id, dead.order.id]
    await cache.forget_dead([*ids, new_id()])
    await cache.forget_dead([])
    entries = (await cache.read(ids)).entries
    assert [entry_of(dirty), entry_of(clean, EntryState.CLEAN), None] == entries


# --- the dirty set ---------------------------------------------------------------------------


async def test_dirty_before_gives_the_oldest_first_and_nothing_at_the_bound(cache: Cache) -> None:
    """Order is by acceptance, not by arrival; an entry accepted at the bound itself is left."""
    orders = [accepted(second) for second in (3, 1, 2, 0)]
    await cache.accept([single(order) for order in orders])
    entries = await cache.dirty_before(START + timedelta(seconds=3), 100)
    expected = [orders[3], orders[1], orders[2]]
    assert [order.order.id for order in expected] == [e.accepted.order.id for e in entries]
    assert {EntryState.DIRTY} == {entry.state for entry in entries}
    assert [prepared(order) for order in expected] == [(e.accepted, e.body) for e in entries]


async def test_dirty_before_does_not_divide_a_unit(cache: Cache) -> None:
    """At the limit the unit that is begun comes whole, and no later one with it."""
    units = [single(accepted(0)), bulk(50, 1), bulk(50, 2), single(accepted(3))]
    await cache.accept(units)
    entries = await cache.dirty_before(LATER, 20)
    assert set(ids_of(*units[:2])) == {entry.accepted.order.id for entry in entries}
    assert len(entries) == 51


async def test_strays_are_taken_off_the_dirty_set(cache: Cache, server: CacheServer) -> None:
    """Ids whose entry is missing or not dirty go, even more than asked for, and hide none."""
    strays = [accepted(n) for n in range(10)]
    order = accepted(20)
    await cache.accept([single(one) for one in [*strays, order]])
    for stray in strays[:5]:
        await server.remove(stray.order.id)
    for stray in strays[5:]:
        clean = entry_of(stray, EntryState.CLEAN)
        await server.put(stray.order.id, clean)
    entries = await cache.dirty_before(LATER, 3)
    assert [order.order.id] == [entry.accepted.order.id for entry in entries]
    assert (1, order.accepted_at) == await cache.backlog()


async def test_an_unreadable_dirty_entry_hides_no_other_and_is_kept(
    cache: Cache, server: CacheServer
) -> None:
    """An entry of a form that this version cannot read is passed over and stays dirty."""
    foreign, order = accepted(0), accepted(1)
    await cache.accept([single(foreign), single(order)])
    await server.put(foreign.order.id, b"D2 something newer")
    entries = await cache.dirty_before(LATER, 1)
    assert [order.order.id] == [entry.accepted.order.id for entry in entries]
    assert (await cache.backlog()).orders == 2


async def test_backlog_says_how_many_and_since_when(cache: Cache) -> None:
    """The oldest is told to the microsecond; an empty set has none."""
    assert await cache.backlog() == (0, None)
    orders = [accepted(2), accepted(1.000001), accepted(3)]
    await cache.accept([single(order) for order in orders])
    assert (3, orders[1].accepted_at) == await cache.backlog()


# --- the epoch -------------------------------------------------------------------------------


async def test_the_epoch_is_copied_only_if_the_token_survived(
    cache: Cache, server: CacheServer
) -> None:
    """Without the token, or with another one, nothing is stored; a wipe removes the token."""
    reign = (await cache.read([])).reign
    assert not await cache.copy_epoch("3", "token", reign)
    await cache.begin_warming("other")
    assert not await cache.copy_epoch("3", "token", reign)
    assert (await cache.read([])).epoch is None
    await cache.begin_warming("token")
    assert await cache.copy_epoch("3", "token", reign)
    assert (await cache.read([])).epoch == "3"
    await server.wipe()
    assert not await cache.copy_epoch("4", "token", reign)
    assert (await cache.read([])).epoch is None


async def test_a_quiet_time_that_begins_anew_has_no_copy_and_no_token(cache: Cache) -> None:
    """Beginning to warm removes the copy in the same step; ending it removes the token."""
    reign = (await cache.read([])).reign
    await cache.begin_warming("token")
    assert await cache.copy_epoch("3", "token", reign)
    await cache.begin_warming("next")
    assert (await cache.read([])).epoch is None
    await cache.end_warming()
    await cache.end_warming()
    assert not await cache.copy_epoch("3", "next", reign)


async def test_a_copy_belongs_to_the_reign_that_it_was_made_for(cache: Cache) -> None:
    """A copy for another reign is not read, and a reign that is not the present one has no say."""
    reign = (await cache.read([])).reign
    await cache.begin_warming("token")
    assert await cache.copy_epoch("3", "token", "another")
    assert (await cache.read([])).epoch is None
    assert await cache.reigns(reign, None)
    assert not await cache.reigns(reign, "3")
    assert not await cache.reigns("another", "3")
    assert not await cache.reigns("", None)


async def test_a_server_without_replicas_holds_what_it_accepted(cache: Cache) -> None:
    """Nothing can be promoted that lacks it; of another reign nothing is known."""
    reply = await cache.accept([single(accepted())])
    assert await cache.survives_failover(reply.reign)
    assert not await cache.survives_failover("another")


async def test_a_wiped_cache_is_empty_and_works(cache: Cache, server: CacheServer) -> None:
    """Entries, marks, scripts: all is gone, and every method works again by itself."""
    order = accepted()
    await cache.accept([single(order)])
    await server.wipe()
    assert (await cache.read([order.order.id]))[:2] == ([None], None)
    assert await cache.backlog() == (0, None)
    assert (await cache.accept([single(order)]))[:3] == ({}, 1, True)
    await cache.settle([Settled(EntryState.CLEAN, order)])
    await cache.forget_dead([order.order.id])
    assert await dirty_ids(cache) == []


@pytest.mark.parametrize(("before", "size"), [(0, 1_000), (499, 501), (1_200, 700)])
async def test_a_large_bulk_is_settled_whole(cache: Cache, before: int, size: int) -> None:
    """However many orders come before it, at whatever place it begins."""
    singles = [accepted() for _ in range(before)]
    unit = bulk(size)
    members = [member.accepted for member in unit.members]
    await cache.accept([*map(single, singles), unit])
    settled = [Settled(EntryState.CLEAN, one) for one in singles]
    await cache.settle([*settled, *(Settled(EntryState.DEAD, one) for one in members)])
    entries = (await cache.read([one.order.id for one in members])).entries
    assert {raw[:1] for raw in entries if raw is not None} == {EntryState.DEAD.value}
    assert await cache.backlog() == (0, None)


# --- the record that it was compared to ------------------------------------------------------


async def test_the_position_of_the_record_is_kept_as_long_as_the_entries(
    server: CacheServer,
) -> None:
    """Every process reads the latest one; an emptied cache has none."""
    contents = server.contents()
    assert await contents.compared_to() is None
    for position in (Position("16384.00000001", 7), Position("b", 0), Position("a b", 2**62)):
        await contents.keep_compared_to(position)
        assert await server.contents().compared_to() == position
    await server.wipe()
    assert await contents.compared_to() is None
