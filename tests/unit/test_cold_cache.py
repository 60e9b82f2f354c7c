"""When a 404 may be said: the cache epoch and the end of a cold time."""

import asyncio
from typing import Any, cast

import pytest

from polyglot_persistence.domain.order import new_id
from polyglot_persistence.errors import NotFoundError, UnavailableError
from polyglot_persistence.flows.breaker import Breaker
from polyglot_persistence.flows.cold_cache import Warming, start_warm_if_fresh
from polyglot_persistence.flows.read import ReadFlow
from polyglot_persistence.flows.recent import RecentOrders
from polyglot_persistence.ports import Found
from tests.support.scripted import FakeClock, ScriptedCache, ScriptedQueue


class EpochRecord:
    """A record without orders."""

    def __init__(self) -> None:
        self.epoch = 1
        self.created = False
        self.error: Exception | None = None
        self.hangs = False

    async def found_epoch(self) -> tuple[str, bool]:
        return str(self.epoch), self.created

    async def find(self, ids: object) -> Found:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return Found({}, {}, str(self.epoch))


class Stand:
    """Reads and the warming over one scripted cache, queue and record."""

    def __init__(self) -> None:
        self.cache, self.queue, self.record = ScriptedCache(), ScriptedQueue(), EpochRecord()
        self.clock = FakeClock()
        self.breaker = Breaker("cache", self._ping)
        self.reads = ReadFlow(
            cast("Any", self.cache),
            cast("Any", self.record),
            cast("Any", None),
            cache_breaker=self.breaker,
            clock=self.clock,
            recent=RecentOrders(self.clock, orders_max=10, seconds=5),
            record_timeout_seconds=0.2,
        )
        self.warming = self.new_warming()

    def new_warming(self) -> Warming:
        return Warming(
            cast("Any", self.record),
            cast("Any", self.cache),
            cast("Any", self.queue),
            self.clock,
            quiet_seconds=60,
        )

    async def _ping(self) -> None:
        return None

    async def look_for(self, seconds: int) -> bool:
        """Look once a second; return what the last look said."""
        warm = False
        for _ in range(seconds):
            warm = await self.warming.look()
            self.clock.advance(1)
        return warm


async def test_unknown_is_404_only_if_both_epochs_are_equal() -> None:
    """Equal epochs prove that no order was accepted past this cache."""
    stand = Stand()
    with pytest.raises(NotFoundError):
        await stand.reads.get(new_id())


@pytest.mark.parametrize("copy", [None, "0"])
async def test_unknown_is_503_while_the_cache_is_cold(copy: str | None) -> None:
    """A wiped cache has no copy; a bypassed one has an old one."""
    stand = Stand()
    stand.cache.epoch = copy
    with pytest.raises(UnavailableError):
        await stand.reads.get(new_id())
    with pytest.raises(UnavailableError):
        await stand.reads.status(new_id())


async def test_unknown_is_503_while_either_store_is_away() -> None:
    """Both must have been read."""
    stand = Stand()
    stand.cache.error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await stand.reads.get(new_id())
    assert stand.breaker.is_open
    stand.cache.error = None
    with pytest.raises(UnavailableError):
        await stand.reads.get(new_id())
    await stand.breaker.probe()
    stand.record.error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await stand.reads.get(new_id())


async def test_a_record_that_hangs_costs_a_reader_its_own_deadline_only() -> None:
    """A batch may wait longer for PostgreSQL than a person for an answer."""
    stand = Stand()
    stand.record.hangs = True
    with pytest.raises(UnavailableError):
        await stand.reads.get(new_id())
    assert not (await stand.reads.known([new_id()])).checked


async def test_only_the_creator_of_the_epoch_starts_warm() -> None:
    """A second process finds the row there and proves nothing."""
    stand = Stand()
    stand.cache.epoch = None
    await start_warm_if_fresh(cast("Any", stand.record), cast("Any", stand.cache))
    assert stand.cache.epoch is None
    stand.record.created = True
    await start_warm_if_fresh(cast("Any", stand.record), cast("Any", stand.cache))
    assert stand.cache.epoch == "1"


async def test_a_cold_cache_is_warm_after_sixty_quiet_seconds() -> None:
    """And not one look earlier."""
    stand = Stand()
    stand.cache.epoch = None
    assert not await stand.look_for(60)
    assert stand.cache.epoch is None
    assert await stand.look_for(1)
    assert stand.cache.epoch == "1"


@pytest.mark.parametrize("seen", [3, UnavailableError("away")])
async def test_work_in_the_queue_begins_the_quiet_time_anew(seen: int | Exception) -> None:
    """So does a queue that cannot be reached: it proves nothing."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(50)
    stand.queue.ready_messages = seen
    await stand.look_for(1)
    stand.queue.ready_messages = 0
    assert not await stand.look_for(59)
    assert await stand.look_for(2)


async def test_a_new_epoch_begins_the_quiet_time_anew() -> None:
    """Somebody accepted past the cache meanwhile."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(59)
    stand.record.epoch += 1
    assert not await stand.look_for(60)
    assert await stand.look_for(1)
    assert stand.cache.epoch == "2"


async def test_a_second_wipe_takes_the_token_along() -> None:
    """What was in the cache before it says nothing about the cache after it."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(59)
    stand.cache.token = None
    assert not await stand.look_for(60)
    assert stand.cache.epoch is None
    assert await stand.look_for(10)


async def test_a_new_leader_begins_from_the_start() -> None:
    """It has seen nothing yet of the queue."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(59)
    stand.warming = stand.new_warming()
    assert not await stand.look_for(60)
    assert await stand.look_for(1)
