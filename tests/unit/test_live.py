"""The live figures: who asks the stores and when, the rates, and what is said of a store away."""

import asyncio
import gc
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.flows.watch.live import FIGURES_KEPT, LiveFlow
from polyglot_persistence.flows.watch.system_state import SystemStateFlow
from polyglot_persistence.ports.cache import Backlog, CacheRead
from polyglot_persistence.ports.orders import Found
from polyglot_persistence.ports.record import Progress
from tests.support.scripted import FakeClock


class Stores:
    """Cache, queue and record in one, which say what the test tells them to."""

    def __init__(self) -> None:
        self.asked = 0
        self.persisted = 100
        self.outbox = 0
        self.dirty = 0
        self.oldest: datetime | None = None
        self.copy: str | None = "7"
        self.away: set[str] = set()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def backlog(self) -> Backlog:
        self._check("cache")
        return Backlog(self.dirty, self.oldest)

    async def progress(self, *, dead_letters_max: int) -> Progress:
        self.asked += 1
        await self.may_answer.wait()
        self._check("record")
        return Progress(self.persisted, self.outbox, None, dead_letters_max, 7, None)

    async def read(self, _ids: object) -> CacheRead:
        self._check("cache")
        return CacheRead([], self.copy, "reign")

    async def find(self, _ids: object) -> Found:
        self._check("record")
        return Found({}, {}, "7")

    async def ready(self) -> int:
        self._check("queue")
        return 3

    def _check(self, store: str) -> None:
        if store in self.away:
            raise UnavailableError("away")


class Setup:
    """A flow over such stores."""

    def __init__(self) -> None:
        self.stores = Stores()
        self.clock = FakeClock()
        stores = cast("Any", self.stores)
        state = SystemStateFlow(stores, stores, stores, HealthFlow({}))
        self.flow = LiveFlow(state, self.clock, watchers_max=2)

    async def look(self, seconds: float = 1.0) -> Any:
        self.clock.advance(seconds)
        await self.flow.look()
        return self.flow.since(None)[-1]


@pytest.fixture
def setup() -> Setup:
    """A fresh flow."""
    return Setup()


async def test_nobody_is_asked_while_nobody_watches(setup: Setup) -> None:
    """The stores hear of it only between the first that comes and the last that goes."""
    await setup.flow.step()
    assert setup.stores.asked == 0
    news = setup.flow.watch()
    await setup.flow.step()
    assert setup.stores.asked == 1
    assert news.is_set()
    setup.flow.unwatch(news)
    setup.clock.advance(1)
    await setup.flow.step()
    assert setup.stores.asked == 1


async def test_all_who_watch_share_one_look(setup: Setup) -> None:
    """Whoever comes while the stores are being asked takes their answer."""
    setup.stores.may_answer.clear()
    looks = [asyncio.create_task(setup.flow.look()) for _ in range(5)]
    await asyncio.sleep(0)
    setup.stores.may_answer.set()
    await asyncio.gather(*looks)
    assert setup.stores.asked == 1
    assert len(setup.flow.since(None)) == 1


async def test_watchers_are_bounded(setup: Setup) -> None:
    """One too many is refused, and let in once another has gone."""
    first = setup.flow.watch()
    setup.flow.watch()
    with pytest.raises(UnavailableError, match="2 pages"):
        setup.flow.watch()
    setup.flow.unwatch(first)
    setup.flow.watch()


async def test_rates_are_means_of_the_last_seconds(setup: Setup) -> None:
    """Accepted is what is persisted or dirty, indexed what is persisted and not in the outbox."""
    first = await setup.look()
    assert first.accepted_per_second is None
    setup.stores.persisted, setup.stores.dirty, setup.stores.outbox = 130, 10, 20
    second = await setup.look()
    assert (second.accepted, second.persisted, second.indexed) == (140, 130, 110)
    rates = (second.accepted_per_second, second.persisted_per_second, second.indexed_per_second)
    assert rates == (40.0, 30.0, 10.0)
    third = await setup.look()
    assert third.persisted_per_second == 15.0
    later = [await setup.look() for _ in range(3)]
    assert later[-1].persisted_per_second == 0.0


async def test_a_rate_is_never_negative(setup: Setup) -> None:
    """An index that is filled anew takes the whole record back, which is no negative speed."""
    await setup.look()
    setup.stores.outbox = 90
    assert (await setup.look()).indexed_per_second == 0.0


async def test_no_rate_spans_a_pause(setup: Setup) -> None:
    """After a time without watchers a rate begins anew."""
    await setup.look()
    setup.stores.persisted = 1_000
    assert (await setup.look(60)).persisted_per_second is None


async def test_the_oldest_has_an_age(setup: Setup) -> None:
    """None below zero, whatever the clocks of the stores say."""
    setup.stores.oldest = setup.clock.now()
    assert (await setup.look(2.5)).dirty_age_seconds == 2.5
    setup.stores.oldest = setup.clock.now() + timedelta(minutes=1)
    assert (await setup.look()).dirty_age_seconds == 0.0
    setup.stores.oldest = None
    assert (await setup.look()).dirty_age_seconds == 0.0


async def test_what_a_store_that_is_away_would_say_is_not_known(setup: Setup) -> None:
    """And the others are told all the same."""
    await setup.look()
    setup.stores.away = {"cache"}
    without_cache = await setup.look()
    assert (without_cache.dirty, without_cache.accepted) == (None, None)
    assert without_cache.accepted_per_second is None
    assert (without_cache.persisted, without_cache.queue_messages) == (100, 3)
    setup.stores.away = {"record", "queue"}
    without_record = await setup.look()
    assert (without_record.persisted, without_record.outbox, without_record.indexed) == (None,) * 3
    assert (without_record.dead_letters, without_record.queue_messages) == (None, None)
    assert without_record.dirty == 0


@pytest.mark.parametrize(("copy", "cold"), [("7", False), ("6", True), (None, True)])
async def test_a_cold_cache_is_told(setup: Setup, copy: str | None, cold: bool) -> None:
    """It is cold while its copy of the epoch is not that of the record."""
    setup.stores.copy = copy
    assert (await setup.look()).cold is cold
    setup.stores.away = {"record"}
    assert (await setup.look()).cold is None


async def test_what_is_kept_is_bounded(setup: Setup) -> None:
    """The oldest figures go; whoever has seen some gets only the later ones."""
    for _ in range(FIGURES_KEPT + 5):
        await setup.look()
    kept = setup.flow.since(None)
    assert len(kept) == FIGURES_KEPT
    assert setup.flow.since(kept[-3].at) == kept[-2:]


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_a_look_that_is_cancelled_early_leaves_nothing_unawaited(
    setup: Setup, steps: int
) -> None:
    """Also before its questions have been asked; a coroutine that was never awaited is an error."""
    setup.stores.may_answer.clear()
    looking = asyncio.ensure_future(setup.flow.look())
    for _ in range(steps):
        await asyncio.sleep(0)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    gc.collect()
