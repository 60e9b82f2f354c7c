"""Replays and discards beside a worker that stood still between its effects."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.redis import keys
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.redis.contents import RedisContents
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import NotFoundError
from polyglot_persistence.flows.behind.dead_letters import Outcome
from polyglot_persistence.flows.watch.audit_cache import CacheAudit
from polyglot_persistence.flows.watch.audit_tally import Tally
from polyglot_persistence.ports.cache import Settled, Unit
from tests.support.addresses import BUNDLED
from tests.support.cache import make_warm, new_client
from tests.support.dead_letters import ALL, ME, Stand, bulk, outcomes, payload, standing
from tests.support.orders import accepted, prepared
from tests.support.servers import flush

pytestmark = BUNDLED


@pytest_asyncio.fixture
async def stand(pool: PostgresPool, redis_url: str) -> AsyncIterator[Stand]:
    async with standing(pool, redis_url) as stand:
        yield stand


async def condemned(stand: Stand, unit: list[AcceptedOrder]) -> list[Settled]:
    """Accept and bury a unit, as a worker that then stands still; return what it is to settle."""
    await stand.cache.accept([Unit([prepared(one) for one in unit])])
    await stand.store.bury(
        [
            DeadLetter(one.order.id, one.unit_id, payload(one), "because", Stage.PERSIST, 1)
            for one in unit
        ]
    )
    return [Settled(EntryState.DEAD, one) for one in unit]


@asynccontextmanager
async def redis(url: str) -> AsyncIterator[RedisClient]:
    """Give a connection, to spoil something by hand."""
    client = new_client(url)
    try:
        yield client
    finally:
        await client.close()


async def audited(stand: Stand, redis_url: str) -> Tally:
    """Compare the cache with the record, and repair."""

    async def pace(_entries: int) -> bool:
        return True

    tally = Tally()
    async with redis(redis_url) as client:
        audit = CacheAudit(stand.cache, RedisContents(client), stand.store, stand.persist)
        await audit.run(tally, pace, repair=True)
    return tally


@pytest.mark.parametrize("size", [1, 3])
async def test_a_late_settle_does_not_undo_a_discard(
    stand: Stand, redis_url: str, size: int
) -> None:
    """The cache was emptied in between, so that nothing held the discard up."""
    unit = [accepted()] if size == 1 else bulk(size)
    late = await condemned(stand, unit)
    await flush(redis_url)
    await make_warm(stand.store, stand.cache)
    handled = await stand.whole_run("discard", ALL)
    assert outcomes(handled) == [Outcome.DISCARDED] * size
    await stand.cache.settle(late)
    assert (await audited(stand, redis_url)).found.total() == 0
    assert await stand.ids() == []
    for one in unit:
        for ask in (stand.reads.get, stand.reads.status):
            with pytest.raises(NotFoundError):
                await ask(one.order.id)


async def test_a_discard_waits_for_a_settle_that_is_due(stand: Stand) -> None:
    """The entry is dirty until then; afterwards the discard goes through, for good."""
    unit = bulk(2)
    late = await condemned(stand, unit)
    assert outcomes(await stand.whole_run("discard", ALL)) == [Outcome.KEPT] * 2
    await stand.cache.settle(late)
    handled = await stand.whole_run("discard", ALL)
    assert outcomes(handled) == [Outcome.DISCARDED] * 2
    await stand.cache.settle(late)
    for one in unit:
        with pytest.raises(NotFoundError):
            await stand.reads.get(one.order.id)


@pytest.mark.parametrize("is_emptied", [False, True])
async def test_a_late_settle_does_not_undo_a_replay(
    stand: Stand, redis_url: str, is_emptied: bool
) -> None:
    """A clean entry stays clean, and where there is none, none is made."""
    order = accepted()
    late = await condemned(stand, [order])
    (letter_id,) = await stand.ids()
    assert outcomes(await stand.flow.act("replay", letter_id, ME)) == [Outcome.PERSISTED]
    if is_emptied:
        await flush(redis_url)
    await stand.cache.settle(late)
    (raw,) = (await stand.cache.read([order.order.id])).entries
    state = None if raw is None else codec.entry_state(raw)
    assert state is (None if is_emptied else EntryState.CLEAN)
    assert (await stand.reads.status(order.order.id)).persisted
    assert (await audited(stand, redis_url)).found.total() == 0


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_a_discard_that_the_cache_lost_is_not_undone(
    stand: Stand, redis_url: str, size: int
) -> None:
    """A log that lost its end has the entries again: the letters come back, whole, and no order."""
    unit = [accepted()] if size == 1 else bulk(size)
    ids = [one.order.id for one in unit]
    await stand.cache.settle(await condemned(stand, unit))
    before = (await stand.cache.read(ids)).entries
    handled = await stand.whole_run("discard", ALL)
    assert outcomes(handled) == [Outcome.DISCARDED] * size
    async with redis(redis_url) as client:
        for order_id, raw in zip(ids, before, strict=True):
            assert raw is not None
            await client.execute("SET", keys.entry(order_id), raw, "EX", 60)
    assert (await audited(stand, redis_url)).repaired == {Drift.LOST_ORDER: size}
    found = await stand.store.find(ids)
    assert (set(found.orders), set(found.dead)) == (set(), set(ids))
    assert (await audited(stand, redis_url)).found.total() == 0
    handled = await stand.whole_run("replay", ALL)
    assert outcomes(handled) == [Outcome.PERSISTED] * size
