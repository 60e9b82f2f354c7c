"""The worker's persister and sweep: batches, suspects, newer schemas, outages."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest

from polyglot_persistence.config.limits import PersisterLimits
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.flows.behind.persist import Redelivered, ToIndex
from polyglot_persistence.flows.behind.sweep import QueueProgress, SweepFlow
from polyglot_persistence.ports.cache import Backlog
from polyglot_persistence.ports.queue import Delivery
from polyglot_persistence.worker.persister import Persister
from tests.support.scripted import FakeClock, ScriptedQueue

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def orders(count: int) -> list[AcceptedOrder]:
    made = [Order(new_id(), "x", Decimal("1.00"), NOW) for _ in range(count)]
    return [AcceptedOrder(order, NOW, order.id) for order in made]


def delivery(batch: Sequence[AcceptedOrder], **fields: Any) -> Delivery:
    body = codec.encode_message([[(one, codec.encode_order(one.order))] for one in batch])
    values = {"tag": new_id(), "body": body, "orders": len(batch), "accepted_at": NOW}
    return Delivery(**{**values, "schema": 1, "redeliveries": 0, **fields})


class Consumer:
    """Hands out what it is given, once; then stops the loop."""

    def __init__(self, deliveries: Sequence[Delivery], stop: asyncio.Event) -> None:
        self.waiting = list(deliveries)
        self.stop = stop
        self.acked: list[Delivery] = []
        self.released: list[Delivery] = []
        self.failures: list[Exception] = []

    async def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        if self.failures:
            raise self.failures.pop()
        taken, self.waiting = self.waiting, []
        if not taken:
            self.stop.set()
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked += deliveries

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self.released += deliveries
        self.stop.set()


class Flow:
    """A persist flow that writes down its batches, and fails as often as it is told."""

    def __init__(self) -> None:
        self.batches: list[list[UUID]] = []
        self.suspects: list[UUID] = []
        self.is_deadly = True
        """Whether workers died of what came again and again."""
        self.forgotten: set[str] = set()
        self.settled: set[UUID] = set()
        self.before_each: Callable[[], None] = lambda: None
        self.after_each: Callable[[], None] = lambda: None
        self.unreadable: list[codec.Reject] = []
        self.failures: list[Exception] = []
        self.called = asyncio.Event()

    async def persist(self, batch: Sequence[AcceptedOrder], source: str) -> Sequence[ToIndex]:
        self.called.set()
        self.before_each()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append([one.order.id for one in batch])
        return []

    async def persist_suspect(
        self, unit: Sequence[AcceptedOrder], source: str
    ) -> Sequence[ToIndex]:
        await self.persist(unit, source)
        self.suspects.append(unit[0].unit_id)
        self.after_each()
        return []

    async def persist_redelivered(
        self, messages: Mapping[str, Sequence[AcceptedOrder]], source: str
    ) -> Redelivered:
        deadly = frozenset(messages) if self.is_deadly else frozenset()
        rest = [one for name in messages if name not in deadly for one in messages[name]]
        return Redelivered(await self.persist(rest, source) if rest else [], deadly)

    async def forget_deadly(self, names: Collection[str]) -> None:
        self.forgotten |= set(names)

    async def persist_swept(self, batch: Sequence[AcceptedOrder]) -> Sequence[ToIndex]:
        return await self.persist(batch, "sweep")

    async def pass_over(
        self, units: Sequence[Sequence[AcceptedOrder]]
    ) -> Sequence[Sequence[AcceptedOrder]]:
        return [unit for unit in units if unit[0].unit_id not in self.settled]

    async def bury_unreadable(self, rejects: Sequence[codec.Reject]) -> None:
        self.unreadable += rejects


class Stand:
    """A persister over a scripted consumer."""

    def __init__(self, deliveries: Sequence[Delivery], *, hold_seconds: float = 20) -> None:
        self.stop = asyncio.Event()
        self.consumer = Consumer(deliveries, self.stop)
        self.channels = 0
        self.pings = 0
        self.warmings_ended = 0
        self.ended_at_hand_back: list[int] = []
        self.end_warming_now = self._end_warming
        self.flow = Flow()
        self.progress = QueueProgress()
        self.clock = FakeClock()
        self.persister = Persister(
            cast("Any", self.flow),
            queue=cast("Any", self),
            store=cast("Any", self),
            end_warming=self.end_warming,
            offer=lambda _: None,
            progress=self.progress,
            clock=self.clock,
            limits=PersisterLimits(100, 1000, hold_seconds),
        )

    @asynccontextmanager
    async def consume(self, *, orders_max: int) -> AsyncIterator[Consumer]:
        self.channels += 1
        try:
            yield self.consumer
        finally:
            self.ended_at_hand_back.append(self.warmings_ended)

    async def ping(self) -> None:
        self.pings += 1

    async def end_warming(self) -> None:
        await self.end_warming_now()

    async def _end_warming(self) -> None:
        self.warmings_ended += 1


async def test_messages_are_persisted_together_up_to_the_batch_size() -> None:
    """A message is never divided."""
    batches = [orders(40), orders(40), orders(40), orders(150), orders(1)]
    stand = Stand([delivery(batch) for batch in batches])
    await stand.persister.run(stand.stop)
    assert [len(batch) for batch in stand.flow.batches] == [80, 40, 150, 1]
    assert len(stand.consumer.acked) == 5
    assert stand.progress.passed == NOW


async def test_batches_are_persisted_side_by_side_until_one_fails() -> None:
    """While one is inserted another is decoded or settled; those after a failure come again."""
    stand = Stand([delivery(orders(100)) for _ in range(4)])
    both = asyncio.Barrier(2)

    async def persist(batch: Sequence[AcceptedOrder], source: str) -> Sequence[ToIndex]:
        stand.flow.batches.append([one.order.id for one in batch])
        await both.wait()
        if len(stand.flow.batches) == 2:
            stand.stop.set()
            raise UnavailableError("away")
        return []

    stand.flow.persist = persist  # type: ignore[method-assign]
    await stand.persister.run(stand.stop)
    assert len(stand.flow.batches) == 2
    assert stand.consumer.acked == []


async def test_a_suspect_message_is_persisted_order_by_order() -> None:
    """One of its orders may have killed workers; its neighbours in the queue are left alone."""
    suspect, innocent = orders(3), orders(5)
    stand = Stand([delivery(innocent), delivery(suspect, redeliveries=2), delivery(innocent)])
    await stand.persister.run(stand.stop)
    assert [len(batch) for batch in stand.flow.batches] == [5, 1, 1, 1, 5]
    assert [one.unit_id for one in suspect] == stand.flow.suspects
    assert len(stand.flow.forgotten) == 1


@pytest.mark.parametrize("messages", [6, 9, 12])
async def test_suspect_messages_are_taken_in_the_order_of_arrival(messages: int) -> None:
    """And not in that of a set of their names, which is another one in each process."""
    suspects = [orders(2) for _ in range(messages)]
    stand = Stand([delivery(one, redeliveries=2) for one in suspects])
    await stand.persister.run(stand.stop)
    assert stand.flow.suspects == [one.unit_id for suspect in suspects for one in suspect]


async def test_what_only_came_again_and_again_is_persisted_in_batches() -> None:
    """As all messages do that were held while the record was away for long."""
    again = [delivery(orders(40), redeliveries=n) for n in (2, 3, 9, 2)]
    stand = Stand([*again, delivery(orders(10))])
    stand.flow.is_deadly = False
    await stand.persister.run(stand.stop)
    assert [len(batch) for batch in stand.flow.batches] == [80, 80, 10]
    assert (stand.flow.suspects, len(stand.consumer.acked)) == ([], 5)


async def test_a_suspect_message_goes_on_where_the_last_worker_died() -> None:
    """What is in the record or in the dead letters by now is not attempted again."""
    suspect = orders(3)
    stand = Stand([delivery(suspect, redeliveries=7)])
    stand.flow.settled = {suspect[0].unit_id, suspect[1].unit_id}
    await stand.persister.run(stand.stop)
    assert [suspect[2].unit_id] == stand.flow.suspects
    assert len(stand.consumer.acked) == 1


async def test_a_suspect_message_is_not_held_for_too_long() -> None:
    """It is handed back by closing the channel, and what was done stays done."""
    stand = Stand([delivery(orders(5), redeliveries=2)], hold_seconds=20)
    stand.flow.after_each = lambda: stand.clock.advance(8)
    await stand.persister.run(stand.stop)
    assert len(stand.flow.suspects) == 3
    assert (stand.consumer.acked, stand.pings, stand.channels) == ([], 0, 2)


async def test_an_unreadable_item_is_buried_and_the_rest_persisted() -> None:
    """And then the message is acknowledged: it would never become better."""
    batch = orders(3)
    bad = delivery(batch)
    bad = bad._replace(body=bad.body.replace(b'"amount":1.00', b'"amount":-1', 1))
    stand = Stand([bad, delivery([], body=b"\xff nonsense", schema=0)])
    await stand.persister.run(stand.stop)
    assert [[one.order.id for one in batch[1:]]] == stand.flow.batches
    assert [batch[0].order.id, None] == [reject.order_id for reject in stand.flow.unreadable]
    assert len(stand.consumer.acked) == 2


async def test_a_message_that_comes_again_first_ends_a_quiet_time() -> None:
    """What was handed back may be unpersisted; a first delivery says nothing."""
    for redeliveries in (0, 1):
        stand = Stand([delivery(orders(1), redeliveries=redeliveries)])
        ended: list[int] = []
        stand.flow.before_each = lambda s=stand, e=ended: e.append(s.warmings_ended)  # type: ignore[misc]
        await stand.persister.run(stand.stop)
        assert ended == [redeliveries]


async def test_a_quiet_time_ends_before_anything_is_handed_back() -> None:
    """What a busy worker is given again it does not look at for as long as it is busy."""
    stand = Stand([delivery(orders(100)) for _ in range(9)], hold_seconds=20)
    stand.flow.before_each = lambda: stand.clock.advance(8)
    await stand.persister.run(stand.stop)
    assert stand.ended_at_hand_back[0] == 1


async def test_nothing_is_consumed_while_a_quiet_time_cannot_be_ended() -> None:
    """Cache and record are away: the message is handed back, and stays ready for all to see."""
    stand = Stand([delivery(orders(1), redeliveries=1)])
    failed = asyncio.Event()

    async def fail() -> None:
        if stand.channels == 1 and not failed.is_set():
            failed.set()
            raise UnavailableError("both are away")
        assert stand.flow.batches == []
        stand.warmings_ended += 1

    stand.end_warming_now = fail
    await stand.persister.run(stand.stop)
    assert failed.is_set()
    assert (stand.channels, stand.warmings_ended) == (2, 2)  # before it consumes, and at its end


async def test_what_is_held_for_too_long_is_handed_back_between_two_batches() -> None:
    """Also when every batch succeeds."""
    stand = Stand([delivery(orders(100)) for _ in range(9)], hold_seconds=20)
    stand.flow.before_each = lambda: stand.clock.advance(8)
    await stand.persister.run(stand.stop)
    assert stand.channels == 2
    assert 0 < len(stand.consumer.acked) < 9


async def test_a_newer_schema_waits_for_a_newer_worker() -> None:
    """It is handed back, neither acknowledged nor buried."""
    newer = delivery(orders(1), schema=codec.SCHEMA_VERSION + 1)
    stand = Stand([newer, delivery(orders(2))])
    await stand.persister.run(stand.stop)
    assert [newer] == stand.consumer.released
    assert [len(batch) for batch in stand.flow.batches] == [2]
    assert stand.flow.unreadable == []


async def test_a_newer_message_holds_up_none_of_this_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may stay for long: it is waited for only by a worker that has nothing else to do."""
    paused: list[float] = []

    async def pause(stop: asyncio.Event, seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr("polyglot_persistence.worker.persister.pause", pause)
    newer = delivery(orders(1), schema=codec.SCHEMA_VERSION + 1)
    stand = Stand([newer, delivery(orders(2))])
    await stand.persister.run(stand.stop)
    assert (len(stand.flow.batches), paused) == (1, [])
    stand = Stand([newer])
    await stand.persister.run(stand.stop)
    assert len(paused) == 1


@pytest.mark.parametrize("error", [UnavailableError("away"), UnknownOutcomeError("lost")])
async def test_a_failed_persist_is_repeated_before_the_acknowledgement(error: Exception) -> None:
    """The same batch again, until it is in."""
    stand = Stand([delivery(orders(2))])
    stand.flow.failures = [error]
    await stand.persister.run(stand.stop)
    assert (len(stand.flow.batches), len(stand.consumer.acked)) == (1, 1)


async def test_what_cannot_be_persisted_in_time_is_handed_back() -> None:
    """The channel is closed, the record is waited for, and then a new channel is opened."""
    stand = Stand([delivery(orders(2))], hold_seconds=5)
    stand.flow.before_each = lambda: stand.clock.advance(6)
    stand.flow.failures = [UnavailableError("away")]
    await stand.persister.run(stand.stop)
    assert (stand.consumer.acked, stand.pings, stand.channels) == ([], 1, 2)


async def test_no_pause_before_another_attempt_is_longer_than_a_delivery_may_be_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker gives back what a silent worker holds, but this one is not silent."""
    stand = Stand([delivery(orders(1))], hold_seconds=20)
    begun = stand.clock.monotonic()

    async def paused(stop: asyncio.Event, seconds: float) -> None:
        stand.clock.advance(seconds)

    monkeypatch.setattr("polyglot_persistence.runtime.repeat.pause", paused)
    stand.flow.failures = [UnavailableError("read-only")] * 1000
    handed_back_at: list[float] = []

    async def ping() -> None:
        handed_back_at.append(stand.clock.monotonic() - begun)
        stand.stop.set()

    stand.ping = ping  # type: ignore[method-assign]
    await stand.persister.run(stand.stop)
    assert handed_back_at == [pytest.approx(20)]


async def test_a_worker_that_is_to_stop_does_not_insist() -> None:
    """What it holds comes again, to whoever is there when the record is."""
    stand = Stand([delivery(orders(2))], hold_seconds=3600)
    stand.flow.failures = [UnavailableError("away")] * 1000
    running = asyncio.create_task(stand.persister.run(stand.stop))
    await stand.flow.called.wait()
    stand.stop.set()
    await running
    assert stand.consumer.acked == []


async def test_a_queue_that_ends_each_consumer_at_once_is_asked_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As RabbitMQ does whose quorum queue did not survive a full disk."""
    pauses: list[float] = []

    async def paused(stop: asyncio.Event, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("polyglot_persistence.runtime.repeat.pause", paused)
    stand = Stand([])
    stand.consumer.failures = [UnavailableError("the channel was closed")] * 8
    await stand.persister.run(stand.stop)
    assert stand.channels == 9
    assert pauses[:4] == sorted(pauses[:4])
    assert pauses[-1] > 10 * pauses[0]


class Sweeping:
    """A cache with a dirty set, for the sweep."""

    def __init__(self, accepted_at: datetime | None) -> None:
        self.accepted_at = accepted_at
        self.bounds: list[datetime] = []

    async def backlog(self) -> Backlog:
        return Backlog(0 if self.accepted_at is None else 1, self.accepted_at)

    async def dirty_before(self, bound: datetime, orders_max: int) -> Sequence[Entry]:
        self.bounds.append(bound)
        (one,) = orders(1)
        return [Entry(EntryState.DIRTY, one, b"")]


@pytest.mark.parametrize(
    ("age", "ready", "passed", "expected_bound_age"),
    [
        (60, 0, None, 10),
        (60, UnavailableError("away"), None, 10),
        (60, 5, None, None),
        (60, 5, 30, 30),
        (60, 5, 1, 10),
        (5, 0, None, None),
        (None, 0, None, None),
    ],
    ids=[
        "an empty queue has passed everything",
        "so has one that is away",
        "one that has passed nothing yet is waited for",
        "what it has not passed is left to it",
        "what is young is left alone",
        "nothing is old enough",
        "nothing is dirty",
    ],
)
async def test_only_what_the_queue_has_passed_is_swept(
    age: int | None, ready: int | Exception, passed: int | None, expected_bound_age: int | None
) -> None:
    """The bound is the older one of ten seconds ago and what the queue has passed."""
    clock, queue, flow, progress = FakeClock(), ScriptedQueue(), Flow(), QueueProgress()
    now = clock.now()
    cache = Sweeping(None if age is None else now - timedelta(seconds=age))
    queue.ready_messages = ready
    progress.passed = None if passed is None else now - timedelta(seconds=passed)
    sweep = SweepFlow(
        cast("Any", cache),
        cast("Any", queue),
        cast("Any", flow),
        progress,
        clock,
        age_seconds=10,
        batch_orders_max=100,
    )
    swept = await sweep.sweep()
    if expected_bound_age is None:
        assert (swept, cache.bounds, flow.batches) == (None, [], [])
    else:
        assert [now - timedelta(seconds=expected_bound_age)] == cache.bounds
        assert len(flow.batches) == 1


async def test_an_entry_that_stays_dirty_is_not_swept_again_at_once() -> None:
    """Another version's words for an order are not this one's, so that settling leaves it alone."""
    clock, flow = FakeClock(), Flow()
    cache = Sweeping(clock.now() - timedelta(minutes=1))
    entries = await cache.dirty_before(clock.now(), 1)

    async def the_same(bound: datetime, orders_max: int) -> Sequence[Entry]:
        return entries

    cache.dirty_before = the_same  # type: ignore[method-assign]
    sweep = SweepFlow(
        cast("Any", cache),
        cast("Any", ScriptedQueue()),
        cast("Any", flow),
        QueueProgress(),
        clock,
        age_seconds=10,
        batch_orders_max=100,
    )
    assert await sweep.sweep() == []
    assert await sweep.sweep() is None
