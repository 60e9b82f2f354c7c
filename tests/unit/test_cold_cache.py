"""When a 404 may be said: the cache epoch and the end of a cold time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest

from polyglot_persistence.domain.order import new_id
from polyglot_persistence.errors import NotFoundError, UnavailableError
from polyglot_persistence.flows.reading.cold_cache import (
    COMMIT_SECONDS_MAX,
    EPOCH_SECONDS_MAX,
    FOUNDER_SECONDS_MAX,
    TIDY_SECONDS_MAX,
    ColdMark,
    Warming,
    end_warming,
    found_epoch,
)
from polyglot_persistence.flows.reading.read import ReadFlow
from polyglot_persistence.flows.reading.recent import RecentOrders
from polyglot_persistence.ports.cache import CacheRead
from polyglot_persistence.ports.leadership import Lead
from polyglot_persistence.ports.orders import Found
from polyglot_persistence.runtime.breaker import Breaker
from tests.support.orders import accepted, single
from tests.support.scripted import FakeClock, ScriptedCache, ScriptedQueue
from tests.support.visible_record import VisibleRecord

WARM_SECONDS = 60
"""Of looks before the one that ends a cold time."""


class HangingRecord(VisibleRecord):
    """The simulated record, which can also hang, be away, and be founded by another process."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.find_error: Exception | None = None
        self.hangs = False
        self.leads_denied = 0
        self.before_found: Callable[[], object] = lambda: None

    async def found_epoch(self) -> tuple[str, bool]:
        self.before_found()
        return await super().found_epoch()

    @asynccontextmanager
    async def lead(self, role: str) -> AsyncIterator[Lead | None]:
        self.leads_denied -= 1
        if self.leads_denied >= 0:
            yield None
            return
        async with super().lead(role) as lead:
            yield lead

    async def find(self, ids: Sequence[UUID]) -> Found:
        if self.hangs:
            await asyncio.Event().wait()
        if self.find_error is not None:
            raise self.find_error
        return await super().find(ids)


class Stand:
    """Reads and the warming over one scripted cache, queue and record."""

    def __init__(self, *, is_fresh: bool = False) -> None:
        self.clock = FakeClock()
        self.cache, self.queue, self.record = (
            ScriptedCache(),
            ScriptedQueue(),
            HangingRecord(self.clock),
        )
        self.cache.epoch = None if is_fresh else self.record.begin_epochs(1)
        self.breaker = Breaker("cache", self._ping)
        self.reads = ReadFlow(
            self.cache,
            self.record,
            cast("Any", None),
            cache_breaker=self.breaker,
            clock=self.clock,
            recent=RecentOrders(self.clock, orders_max=10, seconds=5),
            record_timeout_seconds=0.2,
        )
        self.warming = self.new_warming()

    def new_warming(self) -> Warming:
        return Warming(
            self.record,
            self.cache,
            self.queue,
            self.clock,
            quiet_seconds=60,
            hold_seconds_max=30,
        )

    async def found(self) -> None:
        await found_epoch(self.record, self.cache, self.queue, self.clock)

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
    stand.record.find_error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await stand.reads.get(new_id())


async def test_a_record_that_hangs_costs_a_reader_its_own_deadline_only() -> None:
    """A batch may wait longer for PostgreSQL than a person for an answer."""
    stand = Stand()
    stand.record.hangs = True
    with pytest.raises(UnavailableError):
        await stand.reads.get(new_id())
    assert not (await stand.reads.known([new_id()])).checked


@pytest.mark.parametrize("change", ["reign", "policy"])
async def test_unknown_is_503_if_the_cache_is_another_than_the_one_that_was_read(
    change: str,
) -> None:
    """A promoted replica may lack orders although it has the copy; one that evicts may lack any."""
    stand = Stand()
    if change == "reign":
        read = stand.cache.read
        stand.cache.begin_reign()

        async def read_before(ids: Sequence[UUID]) -> CacheRead:
            return (await read(ids))._replace(reign="the one before")

        stand.cache.read = read_before  # type: ignore[method-assign]
    else:
        stand.cache.evicts_dirty = True
    with pytest.raises(UnavailableError):
        await stand.reads.get(new_id())
    with pytest.raises(UnavailableError):
        await stand.reads.status(new_id())


# --- a fresh installation --------------------------------------------------------------------


def fresh() -> Stand:
    return Stand(is_fresh=True)


async def test_a_fresh_installation_is_warm() -> None:
    """Nothing was accepted before there was an epoch."""
    stand = fresh()
    await stand.found()
    with pytest.raises(NotFoundError):
        await stand.reads.get(new_id())


async def test_a_second_process_waits_for_the_one_that_creates_the_epoch() -> None:
    """Two at once would take each other's token."""
    stand = fresh()
    stand.record.leads_denied = 3
    await stand.found()
    assert stand.cache.epoch == await stand.record.epoch()


async def test_a_second_process_waits_for_the_copy_of_the_epoch_but_not_for_ever() -> None:
    """Else its worker would take the cache of a fresh installation for a cold one."""
    stand = Stand()  # the epoch is there, and whoever created it may be about to copy it
    stand.record.leads_denied = 3
    await stand.found()
    assert stand.record.leads_denied == -1
    stand.record.leads_denied = 1_000_000
    begun = stand.clock.monotonic()
    await stand.found()
    assert stand.clock.monotonic() - begun == pytest.approx(FOUNDER_SECONDS_MAX, abs=0.1)


async def test_a_founder_that_stands_still_holds_nobody_up_for_long() -> None:
    """It may be stopped before it creates the epoch: then the cache is cold, and workers work."""
    stand = fresh()
    stand.record.leads_denied = 10**6
    begun = stand.clock.monotonic()
    await stand.found()
    assert await stand.record.epoch() is not None
    assert stand.cache.epoch is None
    assert stand.clock.monotonic() - begun == pytest.approx(EPOCH_SECONDS_MAX, abs=0.1)


@pytest.mark.parametrize("before", ["queued", "dirty", "uncountable", "cache away", "created"])
async def test_an_installation_that_took_orders_before_it_had_an_epoch_is_cold(
    before: str,
) -> None:
    """They may be in the queue alone, or the cache may have been emptied since."""
    stand = fresh()
    if before == "queued":
        stand.queue.ready_messages = 1
    elif before == "dirty":
        order = accepted()
        await stand.cache.accept([single(order)])
    elif before == "uncountable":
        stand.queue.ready_messages = UnavailableError("no quorum")
    elif before == "cache away":
        stand.cache.error = UnavailableError("away")
    else:
        stand.record.before_found = lambda: stand.record.begin_epochs(5)
    await stand.found()
    assert await stand.record.epoch() is not None
    assert stand.cache.epoch is None


async def test_a_cache_that_is_emptied_while_the_epoch_is_created_is_cold() -> None:
    """The token, which is put there before, is gone."""
    stand = fresh()
    stand.record.before_found = lambda: setattr(stand.cache, "token", None)
    await stand.found()
    assert stand.cache.epoch is None


# --- the end of a cold time ------------------------------------------------------------------


async def test_a_cold_cache_is_warm_when_nothing_from_before_can_be_held_any_more() -> None:
    """And not one look earlier. The epoch was raised: an old copy may be on another server."""
    stand = Stand()
    stand.cache.epoch = None
    assert not await stand.look_for(WARM_SECONDS)
    assert stand.cache.epoch is None
    assert await stand.look_for(1)
    assert stand.cache.epoch == await stand.record.epoch()
    assert stand.record.epochs_raised == 1


@pytest.mark.parametrize("seen", [3, UnavailableError("away")])
async def test_only_looks_at_an_empty_queue_count(seen: int | Exception) -> None:
    """A queue that cannot be reached, or counted, proves nothing."""
    stand = Stand()
    stand.cache.epoch = None
    stand.queue.ready_messages = seen
    await stand.look_for(50)
    stand.queue.ready_messages = 0
    held = round(30 + TIDY_SECONDS_MAX)
    assert not await stand.look_for(held)
    stand.queue.ready_messages = seen
    assert not await stand.look_for(10)
    stand.queue.ready_messages = 0
    assert await stand.look_for(1)


async def test_ordinary_traffic_between_the_looks_keeps_no_cache_cold() -> None:
    """At any moment a message may have just come; what came later proves nothing about before."""
    stand = Stand()
    stand.cache.epoch = None
    warm = False
    for second in range(WARM_SECONDS + 3):
        stand.queue.ready_messages = 0 if second % 3 == 0 else 5
        warm = warm or await stand.look_for(1)
    assert warm


async def test_a_look_that_was_late_counts_from_its_end() -> None:
    """A process that is stopped on its way to the queue sees what is there when it goes on."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(round(COMMIT_SECONDS_MAX))
    ready = stand.queue.ready

    async def late() -> int:
        stand.clock.advance(600)
        return await ready()

    stand.queue.ready = late  # type: ignore[method-assign]
    assert not await stand.look_for(1)
    stand.queue.ready = ready  # type: ignore[method-assign]
    assert not await stand.look_for(round(30 + TIDY_SECONDS_MAX) - 1)
    assert await stand.look_for(1)


async def test_the_first_look_that_counts_is_after_every_commit_from_before() -> None:
    """A commit that was under way when the cache was emptied may publish until then."""
    stand = Stand()
    stand.cache.epoch = None
    stand.warming = Warming(
        stand.record,
        stand.cache,
        cast("Any", stand.queue),
        stand.clock,
        quiet_seconds=1,
        hold_seconds_max=5,
    )
    seconds = round(COMMIT_SECONDS_MAX + 5 + TIDY_SECONDS_MAX)
    assert not await stand.look_for(seconds)
    assert await stand.look_for(1)


async def test_a_silent_worker_of_the_broker_lengthens_the_quiet_time() -> None:
    """It holds what it has until the broker notices."""
    stand = Stand()
    stand.cache.epoch = None
    stand.queue.silence_seconds = 50
    stand.warming = stand.new_warming()
    assert not await stand.look_for(round(COMMIT_SECONDS_MAX + 30 + 50 + TIDY_SECONDS_MAX))
    assert await stand.look_for(1)


async def test_a_message_that_comes_again_begins_the_quiet_time_anew() -> None:
    """Between two looks it was handed back, unpersisted, and taken again."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(WARM_SECONDS - 1)
    await end_warming(stand.cache, stand.record)
    assert not await stand.look_for(WARM_SECONDS + 1)
    assert stand.cache.epoch is None
    assert await stand.look_for(10)


async def test_without_the_cache_the_epoch_ends_a_quiet_time() -> None:
    """The copy of an older epoch proves nothing; where both are away the caller must not go on."""
    stand = Stand()
    stand.cache.error = UnavailableError("away")
    await end_warming(stand.cache, stand.record)
    assert stand.record.epochs_raised == 1
    stand.record.epoch_error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await end_warming(stand.cache, stand.record)


async def test_a_new_epoch_begins_the_quiet_time_anew() -> None:
    """Somebody accepted past the cache meanwhile."""
    stand = Stand()
    stand.cache.epoch = "0"
    await stand.look_for(WARM_SECONDS - 1)
    await stand.record.new_epoch()
    assert not await stand.look_for(WARM_SECONDS)
    assert await stand.look_for(1)
    assert stand.cache.epoch == await stand.record.epoch()


async def test_a_new_reign_begins_the_quiet_time_anew() -> None:
    """A promoted replica has the token, and may lack what was accepted last."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(WARM_SECONDS - 1)
    stand.cache.begin_reign()
    assert not await stand.look_for(WARM_SECONDS)
    assert await stand.look_for(1)


async def test_a_cache_that_may_evict_dirty_orders_is_never_warm() -> None:
    """And has no copy left, should the policy be set back."""
    stand = Stand()
    stand.cache.evicts_dirty = True
    assert not await stand.look_for(200)
    assert stand.cache.epoch is None
    stand.cache.evicts_dirty = False
    assert not await stand.look_for(WARM_SECONDS)
    assert await stand.look_for(1)


async def test_a_second_wipe_takes_the_token_along() -> None:
    """What was in the cache before it says nothing about the cache after it."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(WARM_SECONDS - 1)
    stand.cache.token = None
    assert not await stand.look_for(WARM_SECONDS + 1)
    assert stand.cache.epoch is None
    assert await stand.look_for(10)


async def test_a_new_leader_begins_from_the_start() -> None:
    """It has seen nothing yet of the queue."""
    stand = Stand()
    stand.cache.epoch = None
    await stand.look_for(WARM_SECONDS - 1)
    stand.warming = stand.new_warming()
    assert not await stand.look_for(WARM_SECONDS)
    assert await stand.look_for(1)


async def test_a_mark_counts_for_a_second_of_a_clock_that_goes_on_while_suspended() -> None:
    """A bypass that goes on raises the epoch again and again."""
    stand = Stand()
    mark = ColdMark(stand.record, stand.clock)
    for _ in range(3):
        await mark.ensure()
    assert stand.record.epochs_raised == 1
    stand.clock.advance(1)
    await mark.ensure()
    assert stand.record.epochs_raised == 2
