"""Orders with an identity: replays, conflicts, and bulks that are all or nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest

from polyglot_persistence.config.limits import CommitLimits
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import (
    AcceptedOrder,
    Order,
    bulk_ids,
    derived_id,
    earlier_bulk_ids,
    new_id,
)
from polyglot_persistence.errors import ConflictError, InvalidError, UnavailableError
from polyglot_persistence.flows.intake.accept import AcceptFlow, ImportLine
from polyglot_persistence.flows.intake.group_commit import GroupCommit
from polyglot_persistence.flows.intake.reigns import Reigns
from polyglot_persistence.flows.reading.cold_cache import ColdMark
from polyglot_persistence.flows.reading.read import ReadFlow
from polyglot_persistence.flows.reading.recent import RecentOrders
from polyglot_persistence.ports.cache import PreparedOrder, Settled, Unit
from polyglot_persistence.ports.orders import Found
from polyglot_persistence.runtime.breaker import Breaker
from tests.support.scripted import FakeClock, ScriptedCache, ScriptedQueue
from tests.support.visible_record import VisibleRecord

ONE = Decimal("1.00")
TWO = Decimal("2.00")
ITEMS = [("a", ONE), ("b", ONE), ("c", ONE)]


class Rows(VisibleRecord):
    """The simulated record, which writes down what was looked up."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.error: Exception | None = None
        self.asked: list[Sequence[UUID]] = []

    async def find(self, ids: Sequence[UUID]) -> Found:
        self.asked.append(ids)
        if self.error is not None:
            raise self.error
        return await super().find(ids)

    async def condemn(self, order_id: UUID, payload: bytes) -> None:
        await self.bury([DeadLetter(order_id, order_id, payload, "because", Stage.PERSIST, 1)])


class Stand:
    """The accept flow over scripted stores."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache, self.queue, self.record = ScriptedCache(), ScriptedQueue(), Rows(self.clock)
        breaker = Breaker("cache", self._ping)
        reads = ReadFlow(
            self.cache,
            self.record,
            cast("Any", None),
            cache_breaker=breaker,
            clock=self.clock,
            recent=RecentOrders(self.clock, orders_max=0, seconds=0),
            record_timeout_seconds=0.2,
        )
        cold_mark = ColdMark(self.record, self.clock)
        self.commit = GroupCommit(
            self.cache,
            self.queue,
            cache_breaker=breaker,
            queue_breaker=Breaker("queue", self._ping),
            cold_mark=cold_mark,
            reigns=Reigns(self.cache, cold_mark, self.clock),
            clock=self.clock,
            limits=CommitLimits(100, 5000, 10_000, 1_000),
        )
        self.flow = AcceptFlow(self.commit, reads, self.clock)

    async def _ping(self) -> None:
        return None

    async def accept_as_earlier(self, key: str, items: Sequence[tuple[str, Decimal]]) -> list[UUID]:
        """Accept a keyed bulk under the ids that versions up to 0.1 gave."""
        ids, now = earlier_bulk_ids("", key, len(items)), self.clock.now()
        members = [
            AcceptedOrder(Order(i, name, amount, now), now, derived_id("", key), len(items))
            for i, (name, amount) in zip(ids, items, strict=True)
        ]
        unit = Unit([PreparedOrder(one, codec.encode_order(one.order)) for one in members])
        await self.commit.submit(unit, has_identity=True)
        self.clock.advance(5)
        return ids

    async def evict(self) -> None:
        """Persist everything and let the cache forget it."""
        await self.record.persist(self.queue.orders)
        self.cache.entries.clear()


@pytest.mark.parametrize("evicted", [False, True])
async def test_the_same_key_and_body_is_the_same_order(evicted: bool) -> None:
    """While it is dirty, and after every cache has forgotten it."""
    stand = Stand()
    first = await stand.flow.accept_keyed("", "k", ("x", ONE))
    if evicted:
        await stand.evict()
    stand.clock.advance(5)
    again = await stand.flow.accept_keyed("", "k", ("x", ONE))
    assert (first.ids, False, True) == (again.ids, first.replayed, again.replayed)
    assert len({one.order.created_at for one in stand.queue.orders}) == 1


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize(
    ("stored", "given"),
    [("Cre\u0300me", "Cr\u00e8me"), ("\u1100\u1161", "\uac00"), ("\ufeffTea", "Tea")],
)
async def test_a_name_stored_in_another_form_is_the_same(
    evicted: bool, stored: str, given: str
) -> None:
    """A retry after an upgrade: before it, names were stored as they came."""
    stand = Stand()
    first = await stand.flow.accept_keyed("", "k", (stored, ONE))
    if evicted:
        await stand.evict()
    again = await stand.flow.accept_keyed("", "k", (given, ONE))
    assert (first.ids, True) == (again.ids, again.replayed)


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize(("name", "amount"), [("x", TWO), ("y", ONE)])
async def test_the_same_key_with_another_body_is_a_conflict(
    evicted: bool, name: str, amount: Decimal
) -> None:
    """And nothing of it is stored or sent."""
    stand = Stand()
    await stand.flow.accept_keyed("", "k", ("x", ONE))
    if evicted:
        await stand.evict()
    published = len(stand.queue.orders)
    with pytest.raises(ConflictError):
        await stand.flow.accept_keyed("", "k", (name, amount))
    assert published == len(stand.queue.orders)


async def test_a_dead_order_is_still_what_its_key_stands_for() -> None:
    """The same again is a replay, not a second order; another body is a conflict."""
    stand = Stand()
    (order_id,) = (await stand.flow.accept_keyed("", "k", ("x", ONE))).ids
    (order,) = stand.queue.orders
    stand.cache.entries.clear()
    await stand.record.condemn(order_id, codec.encode_item(order, codec.encode_order(order.order)))
    assert (await stand.flow.accept_keyed("", "k", ("x", ONE))).replayed
    with pytest.raises(ConflictError):
        await stand.flow.accept_keyed("", "k", ("x", TWO))
    assert len(stand.queue.orders) == 1


async def test_a_dead_letter_that_cannot_be_read_is_no_obstacle() -> None:
    """The order is accepted once more, and persisting it removes the letter."""
    stand = Stand()
    order_id = derived_id("", "k")
    await stand.record.condemn(order_id, b"nonsense")
    acceptance = await stand.flow.accept_keyed("", "k", ("x", ONE))
    assert (acceptance.ids, acceptance.replayed) == ([order_id], False)
    assert [one.order.id for one in stand.queue.orders] == [order_id]


async def test_another_client_has_another_order_under_the_same_key() -> None:
    """A key is a client's own."""
    stand = Stand()
    one = await stand.flow.accept_keyed("alice", "k", ("x", ONE))
    other = await stand.flow.accept_keyed("bob", "k", ("y", TWO))
    assert one.ids != other.ids


async def test_what_cannot_be_checked_is_accepted() -> None:
    """The worker compares at persist, where a conflict becomes a dead letter."""
    stand = Stand()
    stand.record.error = UnavailableError("away")
    assert not (await stand.flow.accept_keyed("", "k", ("x", ONE))).replayed
    assert len(stand.queue.orders) == 1


async def test_an_order_without_identity_asks_nobody() -> None:
    """The hot path costs no look-up."""
    stand = Stand()
    order_id, accepted = stand.flow.accept_new(("x", ONE))
    await accepted
    assert stand.record.asked == []
    assert [order_id] == [one.order.id for one in stand.queue.orders]


async def test_a_bulk_is_one_unit_in_order() -> None:
    """All members share unit and time of acceptance, and travel in one message."""
    stand = Stand()
    accepted = await stand.flow.accept_bulk("", None, ITEMS)
    orders = stand.queue.orders
    assert list(accepted.ids) == [one.order.id for one in orders]
    assert [one.order.product_name for one in orders] == ["a", "b", "c"]
    assert len({(one.unit_id, one.unit_size, one.accepted_at) for one in orders}) == 1
    assert len(stand.queue.published) == 1


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_keyed_bulk_is_replayed_whole(evicted: bool) -> None:
    """The same key and body give the same ids, in order."""
    stand = Stand()
    first = await stand.flow.accept_bulk("", "k", ITEMS)
    if evicted:
        await stand.evict()
    stand.clock.advance(5)
    again = await stand.flow.accept_bulk("", "k", ITEMS)
    assert (list(first.ids), True) == (list(again.ids), again.replayed)


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize(
    "items",
    [ITEMS[:2], [*ITEMS, ("d", ONE)], [*ITEMS[:2], ("c", TWO)], [ITEMS[1], ITEMS[0], ITEMS[2]]],
    ids=["shorter", "longer", "changed", "reordered"],
)
async def test_a_keyed_bulk_with_another_body_is_a_conflict(
    evicted: bool, items: list[tuple[str, Decimal]]
) -> None:
    """Also where one is the beginning of the other; nothing of it is stored."""
    stand = Stand()
    await stand.flow.accept_bulk("", "k", ITEMS)
    if evicted:
        await stand.evict()
    entries, published = len(stand.cache.entries), len(stand.queue.orders)
    with pytest.raises(ConflictError):
        await stand.flow.accept_bulk("", "k", items)
    assert (entries, published) == (len(stand.cache.entries), len(stand.queue.orders))


async def test_a_bulk_of_which_the_cache_forgot_a_part_is_still_a_replay() -> None:
    """Clean entries are evicted one by one; the record has the rest."""
    stand = Stand()
    first = await stand.flow.accept_bulk("", "k", ITEMS)
    orders = stand.queue.orders
    await stand.record.persist(orders)
    await stand.cache.settle([Settled(EntryState.CLEAN, one) for one in orders])
    del stand.cache.entries[first.ids[1]]
    again = await stand.flow.accept_bulk("", "k", ITEMS)
    assert (list(first.ids), True) == (list(again.ids), again.replayed)


@pytest.mark.parametrize("size", [1, 2])
async def test_a_longer_bulk_under_the_key_of_a_dirty_one_is_a_conflict(size: int) -> None:
    """It would get ids of which only the first are stored."""
    stand = Stand()
    await stand.flow.accept_bulk("", "k", ITEMS[:size])
    with pytest.raises(ConflictError):
        await stand.flow.accept_bulk("", "k", ITEMS)
    assert len(stand.cache.entries) == size


@pytest.mark.parametrize("state", [EntryState.CLEAN, EntryState.DEAD])
async def test_a_part_of_a_bulk_is_refused_where_the_rest_cannot_be_asked(
    state: EntryState,
) -> None:
    """The record is away: it may be a shorter bulk's, or the rest of this one was evicted."""
    stand = Stand()
    first = await stand.flow.accept_bulk("", "k", ITEMS[:2])
    orders = stand.queue.orders
    await stand.cache.settle([Settled(state, one) for one in orders])
    stand.record.error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await stand.flow.accept_bulk("", "k", ITEMS)
    assert set(first.ids) == set(stand.cache.entries)
    del stand.cache.entries[first.ids[1]]
    with pytest.raises(UnavailableError):
        await stand.flow.accept_bulk("", "k", ITEMS[:2])


async def test_a_part_of_a_dirty_bulk_is_refused_until_it_is_whole_again() -> None:
    """The cache lost the rest, which the queue still has."""
    stand = Stand()
    first = await stand.flow.accept_bulk("", "k", ITEMS)
    del stand.cache.entries[first.ids[1]]
    with pytest.raises(UnavailableError):
        await stand.flow.accept_bulk("", "k", ITEMS)
    await stand.record.persist(stand.queue.orders)
    again = await stand.flow.accept_bulk("", "k", ITEMS)
    assert (list(first.ids), True) == (list(again.ids), again.replayed)


async def test_an_order_of_a_newer_version_is_refused_and_not_doubled() -> None:
    """Whether it is the same one cannot be said."""
    stand = Stand()
    first = await stand.flow.accept_keyed("", "k", ("a", ONE))
    stand.cache.entries[first.ids[0]] = b"Z1 2 3\n{}"
    with pytest.raises(UnavailableError):
        await stand.flow.accept_keyed("", "k", ("a", ONE))
    (outcome,) = await stand.flow.accept_lines([ImportLine(("a", ONE), first.ids[0])])
    assert isinstance(outcome.error, UnavailableError)


async def test_import_lines_are_answered_one_by_one() -> None:
    """New, unchanged and conflicting lines of one chunk do not disturb one another."""
    stand = Stand()
    past = datetime(2017, 3, 1, tzinfo=UTC)
    known, taken, new = new_id(), new_id(), new_id()
    await stand.flow.accept_lines(
        [ImportLine(("x", ONE), known, past), ImportLine(("y", ONE), taken, past)]
    )
    stand.clock.advance(5)
    outcomes = await stand.flow.accept_lines(
        [
            ImportLine(("x", ONE), known, past),
            ImportLine(("y", TWO), taken, past),
            ImportLine(("z", ONE), new, past),
            ImportLine(("free", ONE)),
            ImportLine(("z", TWO), new, past),
        ]
    )
    assert [one.unchanged for one in outcomes] == [True, False, False, False, False]
    assert [None, ConflictError, None, None, ConflictError] == [
        None if one.error is None else type(one.error) for one in outcomes
    ]
    assert [known, taken, new] == [one.id for one in outcomes[:3]]


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_given_created_at_belongs_to_the_content(evicted: bool) -> None:
    """The same id at another time is another order; without a given time it is the same."""
    stand = Stand()
    past = datetime(2017, 3, 1, tzinfo=UTC)
    order_id = derived_id("", "line", 1)
    await stand.flow.accept_lines([ImportLine(("x", ONE), order_id, past)])
    if evicted:
        await stand.evict()
    other = datetime(2018, 3, 1, tzinfo=UTC)
    outcomes = await stand.flow.accept_lines([ImportLine(("x", ONE), order_id, other)])
    assert isinstance(outcomes[0].error, ConflictError)
    outcomes = await stand.flow.accept_lines([ImportLine(("x", ONE), order_id)])
    assert outcomes[0].unchanged


# --- ids that keys stand for -------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a", "b", "c", "invoice-1001"])
async def test_a_keyed_bulk_ends_in_one_byte(key: str) -> None:
    """Its orders and its unit do, so that it stays whole wherever ids are divided by that."""
    stand = Stand()
    accepted = await stand.flow.accept_bulk("shop", key, ITEMS)
    units = {one.unit_id for one in stand.queue.orders}
    assert {i.bytes[-1] for i in (*accepted.ids, *units)} == {accepted.ids[0].bytes[-1]}
    assert len(set(accepted.ids)) == len(ITEMS)


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_bulk_and_an_import_of_one_key_share_nothing(evicted: bool) -> None:
    """Nor with a single order; each is new, and each is there again."""
    stand = Stand()
    lines = [
        ImportLine((name, amount), derived_id("", "k", number))
        for number, (name, amount) in enumerate(ITEMS, 1)
    ]
    ids: set[UUID] = set()
    for is_there in (False, True):
        bulk = await stand.flow.accept_bulk("", "k", ITEMS)
        outcomes = await stand.flow.accept_lines(lines)
        single = await stand.flow.accept_keyed("", "k", ITEMS[0])
        assert [bulk.replayed, single.replayed] == [is_there, is_there]
        assert [(one.unchanged, one.error) for one in outcomes] == [(is_there, None)] * 3
        ids |= {*bulk.ids, *single.ids, *(one.id for one in outcomes)}
        stand.clock.advance(5)
        if evicted:
            await stand.evict()
    assert {one.order.id for one in stand.queue.orders} == ids
    assert len(ids) == 7


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_bulk_from_before_the_upgrade_is_replayed(size: int, evicted: bool) -> None:
    """Under the ids that it was given then; nothing is stored or sent a second time."""
    stand = Stand()
    ids = await stand.accept_as_earlier("k", ITEMS[:size])
    if evicted:
        await stand.evict()
    entries, published = len(stand.cache.entries), len(stand.queue.orders)
    again = await stand.flow.accept_bulk("", "k", ITEMS[:size])
    assert (list(again.ids), again.replayed) == (ids, True)
    assert (entries, published) == (len(stand.cache.entries), len(stand.queue.orders))


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize(
    "items",
    [ITEMS[:2], [*ITEMS, ("d", ONE)], [*ITEMS[:2], ("c", TWO)], [ITEMS[1], ITEMS[0], ITEMS[2]]],
    ids=["shorter", "longer", "changed", "reordered"],
)
async def test_another_bulk_than_before_the_upgrade_is_a_conflict(
    evicted: bool, items: list[tuple[str, Decimal]]
) -> None:
    """As it was then."""
    stand = Stand()
    await stand.accept_as_earlier("k", ITEMS)
    if evicted:
        await stand.evict()
    published = len(stand.queue.orders)
    with pytest.raises(ConflictError):
        await stand.flow.accept_bulk("", "k", items)
    assert published == len(stand.queue.orders)


@pytest.mark.parametrize("size", [1, 3])
async def test_a_bulk_from_before_shares_its_first_id_where_nobody_can_be_asked(size: int) -> None:
    """The record is away and the cache forgot it: by that id the worker finds it out."""
    stand = Stand()
    ids = await stand.accept_as_earlier("k", ITEMS[:size])
    await stand.evict()
    stand.record.error = UnavailableError("away")
    again = await stand.flow.accept_bulk("", "k", ITEMS[:size])
    assert again.ids[0] == ids[0]
    stand.record.error = None
    stand.clock.advance(5)
    assert (await stand.flow.accept_bulk("", "k", ITEMS[:size])).replayed


@pytest.mark.parametrize("dead", [1, 3])
async def test_a_bulk_that_was_condemned_as_doubled_is_answered_as_what_is_stored(
    dead: int,
) -> None:
    """Of the bulk under its present ids only dead letters are left."""
    stand = Stand()
    ids = await stand.accept_as_earlier("k", ITEMS)
    await stand.evict()
    for order_id in bulk_ids("", "k", 3)[1:dead]:
        await stand.record.condemn(order_id, b"nonsense")
    again = await stand.flow.accept_bulk("", "k", ITEMS)
    assert (list(again.ids), again.replayed) == (ids, True)


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_line_that_must_be_there_only_repeats(evicted: bool) -> None:
    """The same id, content and time is unchanged; nothing else says what is stored."""
    stand = Stand()
    stored = (await stand.flow.accept_keyed("shop", "invoice-1001", ("x", ONE))).ids[0]
    at = stand.queue.orders[0].order.created_at
    if evicted:
        await stand.evict()
    lines = [
        ImportLine(("x", ONE), stored, at, must_be_there=True),
        ImportLine(("x", ONE), stored, must_be_there=True),
        ImportLine(("y", ONE), stored, at, must_be_there=True),
        ImportLine(
            ("x", ONE), stored, at.replace(microsecond=at.microsecond ^ 1), must_be_there=True
        ),
        ImportLine(("x", ONE), derived_id("shop", "invoice-1002"), at, must_be_there=True),
    ]
    published = len(stand.queue.orders)
    for line in lines[1:]:
        (outcome,) = await stand.flow.accept_lines([line])
        assert isinstance(outcome.error, InvalidError), line
        assert "version 8" in str(outcome.error)
    (outcome,) = await stand.flow.accept_lines(lines[:1])
    assert (outcome.unchanged, outcome.error) == (True, None)
    assert published == len(stand.queue.orders)


async def test_a_line_that_must_be_there_waits_for_the_record() -> None:
    """While it is away, what the cache does not hold is refused for now, not for good."""
    stand = Stand()
    stored = (await stand.flow.accept_keyed("shop", "invoice-1001", ("x", ONE))).ids[0]
    at = stand.queue.orders[0].order.created_at
    await stand.evict()
    stand.record.error = UnavailableError("away")
    line = ImportLine(("x", ONE), stored, at, must_be_there=True)
    (outcome,) = await stand.flow.accept_lines([line])
    assert isinstance(outcome.error, UnavailableError)
    stand.record.error = None
    (outcome,) = await stand.flow.accept_lines([line])
    assert outcome.unchanged
