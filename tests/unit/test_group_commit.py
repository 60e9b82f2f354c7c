"""The outcomes of a commit: what two stores answer decides what the client hears."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from polyglot_persistence.config.limits import CommitLimits
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.errors import PolyglotError, UnavailableError, UnknownOutcomeError
from polyglot_persistence.flows.intake.group_commit import GroupCommit
from polyglot_persistence.flows.intake.reigns import FORMER_SECONDS_MAX, PAUSE_SECONDS, Reigns
from polyglot_persistence.flows.reading.cold_cache import (
    COMMIT_SECONDS_MAX,
    MARK_INTERVAL_SECONDS,
    ColdMark,
)
from polyglot_persistence.ports.cache import AcceptReply, PreparedOrder, Settled, Unit
from polyglot_persistence.runtime.breaker import Breaker
from tests.support.eventually import eventually_true
from tests.support.scripted import FakeClock, ScriptedCache, ScriptedQueue
from tests.support.visible_record import VisibleRecord

REFUSED = UnavailableError("refused")
UNKNOWN = UnknownOutcomeError("unknown")


class Stand:
    """A group commit over scripted stores."""

    def __init__(self, *, durable: bool = True, dirty_orders_max: int = 1000) -> None:
        self.cache = ScriptedCache(durable=durable)
        self.queue = ScriptedQueue()
        self.clock = FakeClock()
        self.record = VisibleRecord(self.clock)
        self.cache_breaker = Breaker("cache", self._ping)
        self.queue_breaker = Breaker("queue", self._ping)
        cold_mark = ColdMark(self.record, self.clock)
        self.reigns = Reigns(self.cache, cold_mark, self.clock)
        self.commit = GroupCommit(
            self.cache,
            self.queue,
            cache_breaker=self.cache_breaker,
            queue_breaker=self.queue_breaker,
            cold_mark=cold_mark,
            reigns=self.reigns,
            clock=self.clock,
            limits=CommitLimits(100, 1000, dirty_orders_max, queue_messages_max=3),
        )

    async def _ping(self) -> None:
        return None

    async def outcome(
        self, unit: Unit, *, has_identity: bool = False
    ) -> type[PolyglotError] | None:
        try:
            await self.commit.submit(unit, has_identity=has_identity)
        except PolyglotError as error:
            return type(error)
        return None


START = datetime(2026, 1, 1, tzinfo=UTC)


def one_order(name: str = "Laptop", **fields: Any) -> AcceptedOrder:
    now = datetime.now(UTC)
    order = Order(fields.pop("id", new_id()), name, Decimal("1.00"), now)
    return AcceptedOrder(order, now, order.id, **fields)


def unit_of(*members: AcceptedOrder) -> Unit:
    return Unit([PreparedOrder(one, codec.encode_order(one.order)) for one in members])


@pytest.mark.parametrize("has_identity", [False, True])
@pytest.mark.parametrize(
    ("cache", "durable", "queue", "expected", "epochs"),
    [
        (None, True, None, None, 0),
        (None, True, REFUSED, None, 0),
        (None, True, UNKNOWN, None, 0),
        (None, False, None, None, 0),
        (None, False, REFUSED, UnknownOutcomeError, 0),
        (None, False, UNKNOWN, UnknownOutcomeError, 0),
        (REFUSED, True, None, None, 1),
        (REFUSED, True, REFUSED, UnavailableError, 0),
        (REFUSED, True, UNKNOWN, UnknownOutcomeError, 0),
        (UNKNOWN, True, None, None, 1),
        (UNKNOWN, True, REFUSED, UnknownOutcomeError, 0),
        (UNKNOWN, True, UNKNOWN, UnknownOutcomeError, 0),
    ],
)
async def test_outcome(
    *,
    has_identity: bool,
    cache: Exception | None,
    durable: bool,
    queue: Exception | None,
    expected: type[PolyglotError] | None,
    epochs: int,
) -> None:
    """Each cell of the table, for orders with and without an identity of their own."""
    stand = Stand(durable=durable)
    stand.cache.error, stand.queue.error = cache, queue
    assert expected == await stand.outcome(unit_of(one_order()), has_identity=has_identity)
    if expected is None:
        assert epochs == stand.record.epochs_raised


@pytest.mark.parametrize("cache", [REFUSED, UNKNOWN])
async def test_what_only_the_queue_has_is_not_acknowledged_unless_readers_are_told(
    cache: Exception,
) -> None:
    """Without a cold mark another process could answer 404 for it."""
    stand = Stand()
    stand.cache.error, stand.record.epoch_error = cache, REFUSED
    assert UnknownOutcomeError == await stand.outcome(unit_of(one_order()))
    assert len(stand.queue.published) == 1


async def test_an_identity_that_comes_twice_in_a_batch_is_published_once() -> None:
    """The second finds what the first has stored; the first is published all the same."""
    stand, order_id = Stand(), new_id()
    units = [unit_of(one_order(id=order_id)) for _ in range(2)]
    outcomes = [stand.outcome(unit, has_identity=True) for unit in units]
    assert await asyncio.gather(*outcomes) == [None, None]
    [message] = stand.queue.published
    assert (message.orders, order_id.hex[:8] in message.body.decode()) == (1, True)


async def test_a_shorter_bulk_of_the_same_key_does_not_hide_the_first() -> None:
    """In one batch it finds a part of what the first stored, which is new all the same."""
    stand, ids = Stand(), [new_id() for _ in range(3)]
    orders = [one_order(id=order_id).order for order_id in ids]
    long, short = (
        unit_of(*(AcceptedOrder(one, START, ids[0], size) for one in orders[:size]))
        for size in (3, 2)
    )
    submitted = [stand.commit.submit(unit, has_identity=True) for unit in (long, short)]
    first, second = await asyncio.gather(*submitted)
    assert first == ()
    assert [entry.accepted.order.id for entry in second] == ids[:2]
    [message] = stand.queue.published
    assert message.orders == 3


async def test_an_order_with_identity_is_not_even_published_without_a_cold_mark() -> None:
    """It has not been sent anywhere yet, so it can still be refused."""
    stand = Stand()
    stand.cache.error, stand.record.epoch_error = REFUSED, REFUSED
    assert UnavailableError == await stand.outcome(unit_of(one_order()), has_identity=True)
    assert stand.queue.published == []


async def test_with_the_cache_known_away_the_epoch_is_raised_before_the_first_publish() -> None:
    """And again every second while it goes on, not with every batch."""
    stand = Stand()
    stand.cache_breaker.failed(REFUSED)
    epochs_at_publish: list[int] = []
    stand.queue.before_publish = lambda: epochs_at_publish.append(stand.record.epochs_raised)
    for seconds in (0.0, 0.5, 0.6):
        stand.clock.advance(seconds)
        assert await stand.outcome(unit_of(one_order())) is None
    assert epochs_at_publish == [1, 1, 2]
    stand.record.epoch_error = REFUSED
    stand.clock.advance(2)
    assert UnavailableError == await stand.outcome(unit_of(one_order()))
    assert len(stand.queue.published) == 3


async def test_with_both_known_away_nothing_is_marked_cold() -> None:
    """What is refused anyway is no reason to doubt the cache when it is back."""
    stand = Stand()
    stand.cache_breaker.failed(REFUSED)
    stand.queue_breaker.failed(REFUSED)
    assert await stand.outcome(unit_of(one_order())) is UnavailableError
    assert stand.record.epochs_raised == 0


async def test_an_open_breaker_is_not_asked() -> None:
    """One failure is enough to stop waiting for a store, until a probe finds it well."""
    stand = Stand()
    stand.queue.error = UNKNOWN
    assert await stand.outcome(unit_of(one_order())) is None
    stand.queue.error = None
    assert await stand.outcome(unit_of(one_order())) is None
    assert stand.queue.published == []
    await stand.queue_breaker.probe()
    assert await stand.outcome(unit_of(one_order())) is None
    assert len(stand.queue.published) == 1


async def test_a_batch_with_both_kinds_answers_each_by_its_own_outcome() -> None:
    """What was published counts although what was not yet published is refused."""
    stand = Stand()
    stand.cache.error = REFUSED

    def mark_fails_from_now_on() -> None:
        stand.queue.before_publish = lambda: setattr(stand.queue, "error", REFUSED)

    stand.queue.before_publish = mark_fails_from_now_on
    outcomes = await asyncio.gather(
        stand.outcome(unit_of(one_order())),
        stand.outcome(unit_of(one_order()), has_identity=True),
    )
    assert list(outcomes) == [None, UnavailableError]


def retry_of(first: AcceptedOrder) -> AcceptedOrder:
    return AcceptedOrder(
        Order(first.order.id, "Laptop", Decimal("1.00"), datetime.now(UTC)),
        datetime.now(UTC),
        first.order.id,
    )


async def test_an_identity_is_published_as_the_cache_has_it() -> None:
    """A retry brings another created_at; the first stored entry wins."""
    stand = Stand(durable=False)
    stand.queue.error = UNKNOWN
    first = one_order()
    assert UnknownOutcomeError == await stand.outcome(unit_of(first), has_identity=True)
    stand.queue.error = None
    await stand.queue_breaker.probe()
    before = await stand.commit.submit(unit_of(retry_of(first)), has_identity=True)
    assert [first] == [entry.accepted for entry in before]
    assert [first] == stand.queue.orders


@pytest.mark.parametrize("cache", ["safe", "not durable", "not replicated"])
async def test_retries_of_a_dirty_order_are_not_published_without_bound(cache: str) -> None:
    """A safe cache needs no second message; any other gets one a minute."""
    stand = Stand(durable=cache != "not durable")
    stand.cache.is_replicated = cache != "not replicated"
    first = one_order()
    await stand.commit.submit(unit_of(first), has_identity=True)
    for _ in range(100):
        await stand.commit.submit(unit_of(retry_of(first)), has_identity=True)
        stand.clock.advance(1)
    assert len(stand.queue.published) <= (1 if cache == "safe" else 4)


async def test_a_retry_is_not_acknowledged_by_a_cache_that_is_not_safe() -> None:
    """The first attempt was not either: a failover would lose both."""
    stand = Stand()
    stand.cache.is_replicated, stand.queue.error = False, REFUSED
    first = one_order()
    for one in (first, retry_of(first)):
        assert UnknownOutcomeError == await stand.outcome(unit_of(one), has_identity=True)
    stand.cache.is_replicated = True
    assert await stand.outcome(unit_of(retry_of(first)), has_identity=True) is None


async def test_an_order_of_a_bulk_that_is_asked_for_alone_is_published_alone() -> None:
    """As a line of an import: nothing says that the bulk was published, or else was safe."""
    stand = Stand(durable=False)
    stand.queue.error = UNKNOWN
    bulk_id, now = new_id(), datetime.now(UTC)
    bulk = [AcceptedOrder(one.order, now, bulk_id, 2) for one in (one_order(), one_order())]
    assert UnknownOutcomeError == await stand.outcome(unit_of(*bulk), has_identity=True)
    line = AcceptedOrder(bulk[0].order, bulk[0].accepted_at, bulk[0].order.id)
    stand.queue.error = None
    await stand.queue_breaker.probe()
    assert await stand.outcome(unit_of(line), has_identity=True) is None
    assert [line] == stand.queue.orders
    again = [AcceptedOrder(one.order, datetime.now(UTC), bulk_id, 2) for one in bulk]
    assert await stand.outcome(unit_of(*again), has_identity=True) is None
    assert [line, *bulk] == stand.queue.orders  # the other one was in no message


async def test_a_retry_has_replicas_asked_no_more_often_than_it_is_published() -> None:
    """To ask them holds up all that passes over the connection, while one lags."""
    stand = Stand()
    stand.cache.is_replicated = False
    first = one_order()
    for _ in range(20):
        await stand.commit.submit(unit_of(retry_of(first)), has_identity=True)
    assert stand.cache.times_asked_to_survive == 1


async def test_an_order_that_is_accepted_anew_is_published_anew() -> None:
    """Its first life ended as a dead letter that was discarded, within the minute."""
    stand = Stand(durable=False)
    first = one_order()
    for _ in range(2):
        await stand.commit.submit(unit_of(retry_of(first)), has_identity=True)
    del stand.cache.entries[first.order.id]
    published = len(stand.queue.published)
    stand.queue.error = REFUSED
    assert UnknownOutcomeError == await stand.outcome(unit_of(retry_of(first)), has_identity=True)
    stand.queue.error = None
    await stand.queue_breaker.probe()
    assert await stand.outcome(unit_of(retry_of(first)), has_identity=True) is None
    assert len(stand.queue.published) > published


@pytest.mark.parametrize("has_identity", [False, True])
async def test_a_commit_that_took_long_marks_the_cache_cold(has_identity: bool) -> None:
    """The process stood still: the cache may have been emptied, and be warm again, since then."""
    stand = Stand()
    stand.queue.before_publish = lambda: stand.clock.advance(COMMIT_SECONDS_MAX + 1)
    assert await stand.outcome(unit_of(one_order()), has_identity=has_identity) is None
    assert stand.record.epochs_raised == 1
    stand.record.epoch_error = REFUSED
    outcome = await stand.outcome(unit_of(one_order()), has_identity=has_identity)
    assert outcome is UnknownOutcomeError


async def test_an_entry_of_a_newer_version_harms_nobody_beside_it() -> None:
    """Its own order is refused; the others of the batch are accepted."""
    stand = Stand()
    newer, neighbour, free = one_order(), one_order(), one_order()
    stand.cache.entries[newer.order.id] = b"Z1 2 3\n{}"
    outcomes = await asyncio.gather(
        stand.outcome(unit_of(newer), has_identity=True),
        stand.outcome(unit_of(neighbour), has_identity=True),
        stand.outcome(unit_of(free)),
    )
    assert list(outcomes) == [UnavailableError, None, None]
    assert {one.order.id for one in stand.queue.orders} == {neighbour.order.id, free.order.id}


@pytest.mark.parametrize("state", [EntryState.CLEAN, EntryState.DEAD])
async def test_an_identity_whose_fate_is_known_is_not_published(state: EntryState) -> None:
    """It is answered from what is there."""
    stand = Stand()
    first = one_order()
    await stand.cache.accept([unit_of(first)])
    await stand.cache.settle([Settled(state, first)])
    before = await stand.commit.submit(unit_of(first), has_identity=True)
    assert [state] == [entry.state for entry in before]
    assert stand.queue.published == []


async def test_an_identity_with_other_content_is_not_published() -> None:
    """The caller sees what is there and refuses it as a conflict."""
    stand = Stand()
    first = one_order("Laptop")
    await stand.commit.submit(unit_of(first), has_identity=True)
    await stand.commit.submit(unit_of(one_order("Mouse", id=first.order.id)), has_identity=True)
    assert [first] == stand.queue.orders


async def test_concurrent_orders_share_one_commit() -> None:
    """One message for all that arrived together."""
    stand = Stand()
    orders = [one_order() for _ in range(50)]
    await asyncio.gather(*[stand.commit.submit(unit_of(o), has_identity=False) for o in orders])
    assert [message.orders for message in stand.queue.published] == [50]
    assert orders == stand.queue.orders


async def test_a_cancelled_caller_cancels_nothing() -> None:
    """Its order is committed with the batch, and so are its neighbours'."""
    stand = Stand()
    orders = [one_order(), one_order()]
    waiting: Sequence[asyncio.Future[Any]] = [
        stand.commit.submit(unit_of(one), has_identity=False) for one in orders
    ]
    waiting[0].cancel()
    await waiting[1]
    assert orders == stand.queue.orders


async def test_above_the_watermark_an_order_is_refused_with_a_time_to_come_again() -> None:
    """Nothing accepted is dropped to make room; the backlog that is seen to shrink opens again."""
    stand = Stand(dirty_orders_max=2)
    for _ in range(2):
        await stand.commit.submit(unit_of(one_order()), has_identity=False)
    with pytest.raises(UnavailableError) as caught:
        stand.commit.submit(unit_of(one_order()), has_identity=False)
    assert caught.value.retry_after_seconds > 0
    assert "2 orders wait to be persisted" in caught.value.public
    stand.commit.backlog_seen(1)
    assert await stand.outcome(unit_of(one_order())) is None


async def test_without_the_cache_the_queue_is_the_bound() -> None:
    """What was known of the cache's backlog counts no more, and the queue's depth does."""
    stand = Stand(dirty_orders_max=2)
    stand.commit.backlog_seen(2)
    stand.cache_breaker.failed(UnavailableError("away"))
    stand.commit.backlog_seen(None)
    stand.commit.queue_depth_seen(2)
    assert await stand.outcome(unit_of(one_order())) is None
    stand.commit.queue_depth_seen(3)
    with pytest.raises(UnavailableError, match="3 messages wait in the queue") as caught:
        stand.commit.submit(unit_of(one_order()), has_identity=False)
    assert caught.value.public == str(caught.value)
    stand.commit.queue_depth_seen(None)
    assert await stand.outcome(unit_of(one_order())) is None


async def test_a_client_reads_no_word_of_a_store() -> None:
    """Drivers name addresses and users; the log may have them."""
    stand = Stand()
    stand.cache.error = UnavailableError("Redis at 10.0.0.7:6379 is away")
    stand.queue.error = UnavailableError("RabbitMQ at 10.0.0.8:5672 is away")
    with pytest.raises(UnavailableError, match=r"10\.0\.0\.7.*10\.0\.0\.8") as caught:
        await stand.commit.submit(unit_of(one_order()), has_identity=False)
    assert caught.value.public == "neither the cache nor the queue can hold an order now"


# --- the first order under a reign -----------------------------------------------------------


@pytest.mark.parametrize("has_identity", [False, True])
@pytest.mark.parametrize("copy", [None, "of another time", "of now"])
@pytest.mark.parametrize("has_replica", [False, True])
async def test_a_first_order_leaves_no_other_server_that_counts(
    *, has_replica: bool, copy: str | None, has_identity: bool
) -> None:
    """The server is alone, or warm, or the epoch is raised: once for each reign."""
    stand = Stand()
    epoch, _ = await stand.record.found_epoch()
    if has_replica:
        stand.cache.be_replicated()
    for reigns in range(1, 4):
        stand.cache.epoch = epoch if copy == "of now" else copy
        for _ in range(3):
            assert await stand.outcome(unit_of(one_order()), has_identity=has_identity) is None
        raised = reigns if has_replica and copy != "of now" else 0
        assert stand.record.epochs_raised == raised
        stand.cache.begin_reign()
        stand.clock.advance(MARK_INTERVAL_SECONDS)


async def test_no_order_is_acknowledged_before_the_epoch_is_raised() -> None:
    """Neither of the batch that raises it, nor of one beside it."""
    stand = Stand()
    stand.cache.be_replicated()
    stand.record.raises_epochs.clear()
    batches = []
    for published in (1, 2):
        batches.append(asyncio.create_task(stand.outcome(unit_of(one_order()))))
        await eventually_true(lambda n=published: len(stand.queue.published) == n)  # type: ignore[misc]
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(batch.done() for batch in batches)
    stand.record.raises_epochs.set()
    assert await asyncio.gather(*batches) == [None, None]
    assert stand.record.epochs_raised == 1


@pytest.mark.parametrize("error", [REFUSED, UNKNOWN])
async def test_a_record_that_is_away_holds_orders_up_while_a_reader_may_be_elsewhere(
    error: Exception,
) -> None:
    """So long they could be denied; a retry is safe. After that they are acknowledged."""
    stand = Stand()
    stand.cache.be_replicated()
    stand.record.epoch_error = error
    for _ in range(4):
        assert await stand.outcome(unit_of(one_order())) is UnknownOutcomeError
        stand.clock.advance(FORMER_SECONDS_MAX / 4)
    assert await stand.outcome(unit_of(one_order())) is None
    stand.record.epoch_error = None
    stand.record.raises_epochs.clear()
    stand.clock.advance(PAUSE_SECONDS)
    looking = asyncio.create_task(stand.reigns.look())
    for _ in range(20):
        await asyncio.sleep(0)
    # Orders do not wait for a record that hangs.
    assert await asyncio.wait_for(stand.outcome(unit_of(one_order())), 5) is None
    stand.record.raises_epochs.set()
    await looking
    assert await stand.outcome(unit_of(one_order())) is None
    assert stand.record.epochs_raised == 1


async def test_a_process_that_was_just_started_is_as_careful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connection is renewed while it stores its first order, so the reign has no name."""
    stand = Stand()
    stand.cache.be_replicated()
    accept = stand.cache.accept

    async def renewed(units: Sequence[Unit]) -> AcceptReply:
        return (await accept(units))._replace(reign="")

    monkeypatch.setattr(stand.cache, "accept", renewed)
    stand.record.epoch_error = REFUSED
    assert await stand.outcome(unit_of(one_order())) is UnknownOutcomeError
    stand.record.epoch_error = None
    stand.clock.advance(PAUSE_SECONDS)
    assert await stand.outcome(unit_of(one_order())) is None
    assert stand.record.epochs_raised == 1
