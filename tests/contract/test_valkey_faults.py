"""Faults of a Valkey as cache and queue meet them: simulated exactly as they are."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.cache import Cache, CacheRead, Settled
from tests.support.addresses import REDIS, SIMULATED, bundled_or_real
from tests.support.cache import AWAY, dirty_ids, entry_of
from tests.support.eventually import eventually
from tests.support.orders import accepted, message, single
from tests.support.valkey_faults import FaultyValkey, faulty_valkey

BACK_SECONDS = 5.0


@pytest_asyncio.fixture(params=[*bundled_or_real(REDIS), SIMULATED])
async def valkey(request: pytest.FixtureRequest) -> AsyncIterator[FaultyValkey]:
    async with faulty_valkey(request.param) as valkey:
        yield valkey


async def made_warm(cache: Cache) -> str:
    """Store a copy of the epoch; return the reign that it is for."""
    reign = (await cache.read([])).reign
    await cache.begin_warming("token")
    assert await cache.copy_epoch("7", "token", reign)
    return reign


async def back(cache: Cache) -> CacheRead:
    """Read once the server is reached again."""
    return await eventually(lambda: cache.read([]), within_seconds=BACK_SECONDS, retried=AWAY)


async def test_a_log_that_lost_its_tail_ends_the_reign(valkey: FaultyValkey) -> None:
    """What was before is there, what came after is not, and no copy says that all is there."""
    cache, queue = await valkey.cache(), await valkey.queue()
    kept, lost = accepted(), accepted(1)
    await cache.accept([single(kept)])
    reign = await made_warm(cache)
    valkey.mark()
    await cache.accept([single(lost)])
    await queue.publish(message([lost]))
    await valkey.restart_from_mark()
    read = await back(cache)
    assert read.epoch is None
    assert read.reign != reign
    assert not await cache.reigns(reign, "7")
    assert await cache.reigns(read.reign, None)
    entries = (await cache.read([kept.order.id, lost.order.id])).entries
    assert entries == [entry_of(kept), None]
    assert await dirty_ids(cache) == [kept.order.id]
    assert await eventually(queue.ready, within_seconds=BACK_SECONDS, retried=AWAY) == 0
    assert await cache.copy_epoch("8", "token", read.reign)  # the token was before the mark


async def test_a_delivery_that_the_log_lost_was_one_all_the_same(valkey: FaultyValkey) -> None:
    """Its next consumer is told that it may have been; of a new message it is certain."""
    queue = await valkey.queue()
    async with queue.consume(orders_max=10) as consumer:
        assert list(await consumer.receive(0)) == []
    await queue.publish(message([accepted()]))
    valkey.mark()
    async with queue.consume(orders_max=10) as consumer:
        [first] = await consumer.receive(2)
        assert first.redeliveries == 0
        await valkey.restart_from_mark()
    queue = await valkey.queue()
    async with queue.consume(orders_max=10) as consumer:
        [again] = await consumer.receive(2)
        assert again.redeliveries >= 1
        await consumer.ack([again])
        await queue.publish(message([accepted(1)]))
        [new] = await consumer.receive(2)
        assert new.redeliveries == 0


async def test_a_replica_that_lags_lacks_the_latest_and_has_a_reign_of_its_own(
    valkey: FaultyValkey,
) -> None:
    """The primary says that it is not held elsewhere; who is still connected to it sees no end."""
    await valkey.follow()
    cache, other = await valkey.cache(), await valkey.cache()
    kept, lost = accepted(), accepted(1)
    first = await cache.accept([single(kept)])
    reign = await made_warm(cache)
    assert await cache.survives_failover(first.reign)
    await valkey.cut_off()
    reply = await cache.accept([single(lost)])
    assert not await cache.survives_failover(reply.reign)
    await valkey.promote()
    new = await valkey.cache()
    read = await new.read([kept.order.id, lost.order.id])
    assert read[:2] == ([entry_of(kept), None], None)
    assert read.reign != reign
    assert await new.reigns(read.reign, None)
    assert not await new.reigns(reign, "7")
    assert not await new.survives_failover(read.reign)  # it may have a replica by its backlog
    assert not await new.survives_failover(reign)
    assert (await other.read([lost.order.id]))[:2] == ([entry_of(lost)], "7")
    assert await other.reigns(reign, "7")


async def test_the_first_replica_begins_another_reign(valkey: FaultyValkey) -> None:
    """Whoever met the server before is not deceived: its reign is over, and its copy with it."""
    cache = await valkey.cache()
    reign = await made_warm(cache)
    await valkey.follow()
    assert (await cache.read([]))[:3] == ([], "7", reign)
    assert not await cache.reigns(reign, "7")
    assert not await cache.survives_failover(reign)
    assert (await (await valkey.cache()).read([])).epoch is None


async def test_a_replica_that_is_in_step_has_everything(valkey: FaultyValkey) -> None:
    """What it has confirmed outlives the primary."""
    await valkey.follow()
    cache = await valkey.cache()
    order = accepted()
    reply = await cache.accept([single(order)])
    assert await cache.survives_failover(reply.reign)
    await valkey.promote()
    new = await valkey.cache()
    assert (await new.read([order.order.id])).entries == [entry_of(order)]
    assert await dirty_ids(new) == [order.order.id]


async def test_a_primary_that_was_demoted_is_no_cache(valkey: FaultyValkey) -> None:
    """It has no say, takes nothing, and is left for the new one at the first refusal."""
    cache = await valkey.cache()
    reign = await made_warm(cache)
    await valkey.follow()
    await valkey.promote()
    await valkey.demote()
    assert not await cache.reigns(reign, "7")
    assert not await cache.survives_failover(reign)
    order = accepted()
    with pytest.raises((UnavailableError, UnknownOutcomeError)):
        await cache.accept([single(order)])
    read = await back(cache)
    assert read.epoch is None
    assert read.reign != reign
    assert (await cache.accept([single(order)])).found == {}
    new = await valkey.cache()
    assert (await new.read([order.order.id])).entries == [entry_of(order)]


async def test_a_wipe_leaves_no_copy_and_no_token_under_the_same_reign(
    valkey: FaultyValkey,
) -> None:
    """The server goes on; nothing proves anything of it any more."""
    cache, queue = await valkey.cache(), await valkey.queue()
    reign = await made_warm(cache)
    order = accepted()
    await cache.accept([single(order)])
    await queue.publish(message([order]))
    await valkey.wipe()
    assert (await cache.read([order.order.id]))[:3] == ([None], None, reign)
    assert await cache.reigns(reign, None)
    assert not await cache.reigns(reign, "7")
    assert not await cache.copy_epoch("8", "token", reign)
    assert await cache.backlog() == (0, None)
    assert await queue.ready() == 0


async def test_what_is_set_at_run_time_counts_from_the_next_ping(valkey: FaultyValkey) -> None:
    """How it fsyncs is asked at each ping; what it may evict also when a 404 is to be said."""
    cache = await valkey.cache()
    reign = (await cache.read([])).reign
    assert (await cache.accept([single(accepted())])).durable
    await valkey.set_fsync("everysec")
    await cache.ping()
    assert not (await cache.accept([single(accepted(1))])).durable
    assert await cache.reigns(reign, None)
    await valkey.set_fsync("always")
    await cache.begin_warming("token")
    assert await cache.copy_epoch("7", "token", reign)
    await valkey.set_policy("allkeys-lru")
    assert not await cache.reigns(reign, "7")
    await cache.ping()
    assert (await cache.read([])).epoch is None
    assert not await cache.copy_epoch("7", "token", reign)
    assert not (await cache.accept([single(accepted(2))])).durable
    await valkey.set_policy("volatile-ttl")
    assert not await cache.reigns(reign, "7")  # who read the copy before is told
    await cache.ping()
    assert (await cache.accept([single(accepted(3))])).durable


async def test_at_the_memory_limit_only_what_takes_none_works(valkey: FaultyValkey) -> None:
    """Clean entries give way and dirty ones do not; nothing new is taken; draining goes on."""
    cache, queue = await valkey.cache(), await valkey.queue()
    dirty, clean = accepted(), accepted(1)
    reign = (await cache.read([])).reign
    await cache.accept([single(dirty)])
    await cache.settle([Settled(EntryState.CLEAN, clean)])
    await queue.publish(message([dirty]))
    await valkey.fill()
    for refused in (
        cache.accept([single(accepted(2))]),
        cache.backfill([accepted(3)]),
        queue.publish(message([accepted(4)])),
    ):
        with pytest.raises(UnavailableError):
            await refused
    read = await cache.read([dirty.order.id, clean.order.id])
    assert read.entries == [entry_of(dirty), None]
    assert await dirty_ids(cache) == [dirty.order.id]
    await cache.begin_warming("token")
    assert await cache.copy_epoch("7", "token", reign)
    await cache.end_warming()
    async with queue.consume(orders_max=10) as consumer:
        await consumer.ack(await consumer.receive(2))
    assert await queue.ready() == 0
    await cache.settle([Settled(EntryState.CLEAN, dirty)])
    assert await cache.backlog() == (0, None)


async def test_a_server_that_refuses_writes_answers_reads(valkey: FaultyValkey) -> None:
    """Every write is refused before it begins, whatever it would do to memory."""
    cache, queue = await valkey.cache(), await valkey.queue()
    order = accepted()
    reign = await made_warm(cache)
    await cache.accept([single(order)])
    await queue.publish(message([order]))
    await valkey.refuse_writes()
    for refused in (
        cache.accept([single(accepted(1))]),
        cache.backfill([accepted(2)]),
        cache.settle([Settled(EntryState.CLEAN, order)]),
        cache.forget_dead([order.order.id]),
        cache.begin_warming("another"),
        cache.end_warming(),
        cache.copy_epoch("8", "token", reign),
        queue.publish(message([accepted(3)])),
    ):
        with pytest.raises(UnavailableError):
            await refused
    assert (await cache.read([order.order.id]))[:3] == ([entry_of(order)], "7", reign)
    assert await cache.reigns(reign, "7")
    assert await dirty_ids(cache) == [order.order.id]
    assert await queue.ready() == 1
    with pytest.raises(UnavailableError):
        async with queue.consume(orders_max=10) as consumer:
            await consumer.receive(2)
