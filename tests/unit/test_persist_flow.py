"""Isolation of what can never be persisted, by halving, without harm to its neighbours."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import Stage
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.errors import PoisonError, UnavailableError, UnexplainedError
from polyglot_persistence.flows.behind.persist import REPLAY, PersistFlow
from polyglot_persistence.ports.orders import Persisted
from tests.support.scripted import FakeClock, ScriptedCache
from tests.support.visible_record import VisibleRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class PickyRecord(VisibleRecord):
    """The simulated record, which can never take some orders, and says of others only "no"."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.poison: set[UUID] = set()
        self.disliked: set[UUID] = set()
        self.error: Exception | None = None
        self.calls = 0

    async def persist(self, batch: Sequence[AcceptedOrder]) -> Persisted:
        self.calls += 1
        if self.error is not None:
            raise self.error
        if any(one.order.id in self.poison for one in batch):
            raise PoisonError("value out of range")
        if any(one.order.id in self.disliked and one.order.id not in self.rows for one in batch):
            raise UnexplainedError("no")
        return await super().persist(batch)


class Stand:
    """The persist flow over a picky record and a scripted cache."""

    def __init__(self) -> None:
        self.record, self.cache = PickyRecord(), ScriptedCache()
        self.flow = PersistFlow(self.record, self.cache, FakeClock())


def single(name: str = "x", order_id: UUID | None = None) -> AcceptedOrder:
    order = Order(order_id or new_id(), name, Decimal("1.00"), NOW)
    return AcceptedOrder(order, NOW, order.id)


def bulk(size: int) -> list[AcceptedOrder]:
    unit_id = new_id()
    return [
        AcceptedOrder(Order(new_id(), f"b{i}", Decimal("1.00"), NOW), NOW, unit_id, size)
        for i in range(size)
    ]


async def test_one_poisonous_order_goes_alone() -> None:
    """All its neighbours are persisted, clean and to be indexed."""
    stand = Stand()
    batch = [single() for _ in range(100)]
    bad = batch[37].order.id
    stand.record.poison = {bad}
    to_index = await stand.flow.persist(batch, "queue")
    assert {one.order.id for one in batch} - {bad} == set(stand.record.rows)
    assert [bad] == [letter.order_id for letter in stand.record.letters]
    assert "value out of range" in stand.record.letters[0].reason
    assert batch[37] == codec.decode_item(stand.record.letters[0].payload)
    states = {s.accepted.order.id: s.state for s in stand.cache.settled}
    assert states.pop(bad) is EntryState.DEAD
    assert {EntryState.CLEAN} == set(states.values())
    indexed = [row.order.id for batch in to_index for row in batch.orders]
    assert sorted(stand.record.rows) == sorted(indexed)


async def test_a_bulk_is_persisted_or_buried_whole() -> None:
    """One poisonous member takes its bulk along, and nobody else."""
    stand = Stand()
    members, others = bulk(5), bulk(4)
    stand.record.poison = {members[2].order.id}
    await stand.flow.persist([single(), *members, *others, single()], "queue")
    assert {m.order.id for m in members} == {letter.order_id for letter in stand.record.letters}
    assert {members[0].unit_id} == {letter.unit_id for letter in stand.record.letters}
    assert len(stand.record.rows) == 6


async def test_a_conflict_is_buried_and_its_entry_becomes_what_the_record_has() -> None:
    """The first stored order wins, and a reader of the cache sees it."""
    stand = Stand()
    first = single("first")
    await stand.flow.persist([first], "queue")
    await stand.flow.persist([single("second", first.order.id), single()], "queue")
    assert [first.order.id] == [letter.order_id for letter in stand.record.letters]
    assert stand.record.letters[0].stage == Stage.PERSIST
    entry = codec.decode_entry(stand.cache.entries[first.order.id])
    assert (entry.state, entry.accepted.order.product_name) == (EntryState.CLEAN, "first")


async def until_persisted(stand: Stand, batch: Sequence[AcceptedOrder], attempts: int) -> None:
    """Persist as a worker does: again, as long as the record says "not now"."""
    for _ in range(attempts):
        try:
            await stand.flow.persist(batch, "queue")
        except UnexplainedError:
            continue
        return
    pytest.fail("it holds up its batch")


@pytest.mark.parametrize("at", [0, 37, 99])
async def test_an_order_that_is_refused_without_a_known_reason_goes_alone(at: int) -> None:
    """Since the record takes its neighbours at the same time."""
    stand = Stand()
    batch = [single() for _ in range(100)]
    stand.record.disliked = {batch[at].order.id}
    await until_persisted(stand, batch, attempts=1)
    assert {one.order.id for one in batch} - stand.record.disliked == set(stand.record.rows)
    assert [batch[at].order.id] == [letter.order_id for letter in stand.record.letters]
    assert [letter.attempts for letter in stand.record.letters] == [1]


async def test_many_refused_orders_go_alone_and_a_bulk_whole() -> None:
    """All of a batch but its last unit may be what a trigger refuses."""
    stand = Stand()
    good, bad, members = single(), [single() for _ in range(40)], bulk(3)
    stand.record.disliked = {*(one.order.id for one in bad), members[1].order.id}
    await until_persisted(stand, [*bad[:20], *members, *bad[20:], good], attempts=8)
    assert set(stand.record.rows) == {good.order.id}
    expected = sorted(one.order.id for one in [*bad, *members])
    assert sorted(letter.order_id or UUID(int=0) for letter in stand.record.letters) == expected


async def test_a_record_that_refuses_every_order_condemns_none() -> None:
    """However often: and each attempt costs a few statements, not two for each order."""
    stand = Stand()
    batch = [single() for _ in range(2_000)]
    stand.record.disliked = {one.order.id for one in batch}
    for _ in range(10):
        with pytest.raises(UnexplainedError):
            await stand.flow.persist(batch, "queue")
    assert stand.record.letters == []
    assert stand.record.calls < 10 * 20
    stand.record.disliked = set()
    await stand.flow.persist(batch, "queue")
    assert len(stand.record.rows) == 2_000


async def test_an_order_alone_is_condemned_once_the_record_takes_others() -> None:
    """A batch of one has no neighbour; those of other batches show the same."""
    stand = Stand()
    bad = single()
    stand.record.disliked = {bad.order.id}
    for _ in range(3):
        with pytest.raises(UnexplainedError):
            await stand.flow.persist([bad], "queue")
    taken = single()
    await stand.flow.persist([taken], "queue")
    await stand.flow.persist([bad], "queue")
    assert [bad.order.id] == [letter.order_id for letter in stand.record.letters]


async def test_what_was_there_before_shows_nothing() -> None:
    """A redelivered order is found, not taken: a record may refuse each that is new."""
    stand = Stand()
    there, new = single(), single()
    await stand.flow.persist([there], "queue")
    stand.record.disliked = {new.order.id}
    for _ in range(5):
        with pytest.raises(UnexplainedError):
            await stand.flow.persist([there, new], "queue")
    assert stand.record.letters == []


async def test_a_replayed_letter_stays_one() -> None:
    """The operator is told the reason of now; the others of the replay are persisted."""
    stand = Stand()
    good, bad = single(), single()
    stand.record.disliked = {bad.order.id}
    await stand.flow.persist([bad, good], REPLAY)
    assert set(stand.record.rows) == {good.order.id}
    assert [letter.reason for letter in stand.record.letters] == ["no"]


async def test_a_record_that_is_away_buries_nothing() -> None:
    """The caller persists the same batch again."""
    stand = Stand()
    stand.record.error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await stand.flow.persist([single(), single()], "queue")
    assert (stand.record.letters, stand.record.calls) == ([], 1)


async def test_a_cache_that_is_away_holds_up_nothing() -> None:
    """What was inserted is still handed on to be indexed."""
    stand = Stand()
    stand.cache.error = UnavailableError("away")
    to_index = await stand.flow.persist([single()], "queue")
    assert len(to_index[0].orders) == 1


async def test_redelivery_is_indexed_once() -> None:
    """Only what a transaction inserted is handed on."""
    stand = Stand()
    one = single()
    assert len(await stand.flow.persist([one], "queue")) == 1
    assert await stand.flow.persist([one], "queue") == []


def test_units_keep_their_members_together_in_order() -> None:
    """A bulk that was delivered twice is two units."""
    one, members = single(), bulk(3)
    units = whole_units([members[0], one, *members[1:], *members])
    assert [members, [one], members] == units
