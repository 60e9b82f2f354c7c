"""The cache port against a dictionary: whatever is done in whatever order, both say the same."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.cache import Settled, Unit
from tests.support.addresses import EVERY_CACHE
from tests.support.caches import cache_server
from tests.support.orders import START, accepted, prepared, single

Result = TypeVar("Result")

IDS = [UUID(int=n) for n in range(1, 9)]
SECONDS = st.integers(0, 5)
AMOUNTS = st.sampled_from(["0.00", "1.25", "9999999999.99"])
SOME_IDS = st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True)
SETTLED_STATES = st.sampled_from([EntryState.CLEAN, EntryState.DEAD])


@st.composite
def units(draw: st.DrawFn) -> Unit:
    """A single order or a bulk, of ids that collide often."""
    ids = draw(SOME_IDS)
    second = draw(SECONDS)
    amount = draw(AMOUNTS)
    if len(ids) == 1:
        return single(accepted(second, order_id=ids[0], amount=amount))
    unit = (UUID(int=draw(st.integers(100, 10_000))), len(ids))
    orders = [accepted(second, order_id=i, amount=amount, unit=unit) for i in ids]
    return Unit([prepared(order) for order in orders])


class CacheAndDictionary(RuleBasedStateMachine):
    """Does the same to both."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.server = cache_server(self.url)
        self.wait(self.server.wipe())
        self.cache = self.wait(self.server.process())
        self.entries: dict[UUID, tuple[EntryState, AcceptedOrder]] = {}
        self.epoch: str | None = None
        self.token: str | None = None

    def wait(self, call: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(call)

    def raw(self, order_id: UUID) -> bytes | None:
        if order_id not in self.entries:
            return None
        state, order = self.entries[order_id]
        return codec.encode_entry(state, order, codec.encode_order(order.order))

    def dirty(self) -> list[AcceptedOrder]:
        orders = [order for state, order in self.entries.values() if state is EntryState.DIRTY]
        return sorted(orders, key=lambda order: (order.accepted_at, str(order.order.id)))

    @rule()
    def wipe(self) -> None:
        self.wait(self.server.wipe())
        self.entries.clear()
        self.epoch = self.token = None

    @rule(batch=st.lists(units(), max_size=4))
    def accept(self, batch: list[Unit]) -> None:
        batch.sort(key=lambda unit: len(unit.members) > 1)  # singles are stored first
        expected: dict[UUID, bytes] = {}
        for unit in batch:
            ids = [member.accepted.order.id for member in unit.members]
            found = {i: raw for i in ids if (raw := self.raw(i)) is not None}
            expected.update(found)
            if not found:
                for member in unit.members:
                    self.entries[member.accepted.order.id] = (EntryState.DIRTY, member.accepted)
        reply = self.wait(self.cache.accept(batch))
        assert expected == reply.found
        assert len(self.dirty()) == reply.backlog

    @rule(ids=SOME_IDS, state=SETTLED_STATES, second=SECONDS)
    def settle(self, ids: list[UUID], state: EntryState, second: int) -> None:
        orders = [
            self.entries[i][1] if i in self.entries else accepted(second, order_id=i) for i in ids
        ]
        self.wait(self.cache.settle([Settled(state, order) for order in orders]))
        self.settled(state, orders, orders)

    @rule(ids=SOME_IDS, state=SETTLED_STATES, second=SECONDS, decides=st.booleans())
    def settle_another(
        self, ids: list[UUID], state: EntryState, second: int, decides: bool
    ) -> None:
        """Settle orders that say something else than the entries, as the entries' fate or not."""
        orders = [accepted(second, order_id=i, name="another") for i in ids]
        decided = [self.entries[i][1] if i in self.entries and decides else None for i in ids]
        pairs = zip(orders, decided, strict=True)
        self.wait(self.cache.settle([Settled(state, order, one) for order, one in pairs]))
        self.settled(
            state, orders, [one or order for order, one in zip(orders, decided, strict=True)]
        )

    def settled(
        self, state: EntryState, orders: list[AcceptedOrder], decided: list[AcceptedOrder]
    ) -> None:
        for order, one in zip(orders, decided, strict=True):
            before, there = self.entries.get(order.order.id, (None, None))
            if before is EntryState.DIRTY and there is not None:
                overwritten = there.order in (order.order, one.order)
            elif before is EntryState.DEAD:
                overwritten = True
            else:  # a clean entry stays clean, and only a clean one is made
                overwritten = state is EntryState.CLEAN
            if overwritten:
                self.entries[order.order.id] = (state, order)

    @rule(ids=SOME_IDS, second=SECONDS)
    def backfill(self, ids: list[UUID], second: int) -> None:
        orders = [accepted(second, order_id=i) for i in ids]
        self.wait(self.cache.backfill(orders))
        for order in orders:
            self.entries.setdefault(order.order.id, (EntryState.CLEAN, order))

    @rule(ids=SOME_IDS)
    def forget_dead(self, ids: list[UUID]) -> None:
        self.wait(self.cache.forget_dead(ids))
        for i in ids:
            if i in self.entries and self.entries[i][0] is EntryState.DEAD:
                del self.entries[i]

    @rule(bound=SECONDS, orders_max=st.integers(1, 8))
    def dirty_before(self, bound: int, orders_max: int) -> None:
        moment = START + timedelta(seconds=bound)
        entries = self.wait(self.cache.dirty_before(moment, orders_max))
        older = [order for order in self.dirty() if order.accepted_at < moment]
        last = older[:orders_max][-1].accepted_at if older else None
        expected = [
            order for n, order in enumerate(older) if n < orders_max or order.accepted_at == last
        ]
        assert expected == [entry.accepted for entry in entries]

    @rule(epoch=st.sampled_from("123"), token=st.sampled_from("ab"))
    def copy_epoch(self, epoch: str, token: str) -> None:
        reign = self.wait(self.cache.read([])).reign
        copied = self.wait(self.cache.copy_epoch(epoch, token, reign))
        assert copied == (token == self.token)
        if copied:
            self.epoch = epoch

    @rule(token=st.sampled_from("ab"))
    def begin_warming(self, token: str) -> None:
        self.wait(self.cache.begin_warming(token))
        self.token, self.epoch = token, None

    @rule()
    def end_warming(self) -> None:
        self.wait(self.cache.end_warming())
        self.token = None

    @invariant()
    def both_say_the_same(self) -> None:
        read = self.wait(self.cache.read(IDS))
        assert [self.raw(i) for i in IDS] == read.entries
        assert self.epoch == read.epoch
        dirty = self.dirty()
        oldest = dirty[0].accepted_at if dirty else None
        assert (len(dirty), oldest) == self.wait(self.cache.backlog())

    def teardown(self) -> None:
        self.wait(self.server.close())
        self.runner.close()


@EVERY_CACHE
def test_the_cache_is_a_dictionary_with_states(redis_url: str) -> None:
    """Any sequence of calls leaves entries, dirty set and epoch as a dictionary would have them."""
    machine = type("CacheAndDictionaryHere", (CacheAndDictionary,), {"url": redis_url})
    run_state_machine_as_test(machine, settings=settings(max_examples=30, stateful_step_count=25))
