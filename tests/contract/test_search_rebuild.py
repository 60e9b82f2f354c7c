"""Building the search index anew: over every engine and the real record, with traffic flowing."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

import pytest

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.config import load
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.domain.search.terms import parse_query
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.behind.index import IndexFlow
from polyglot_persistence.flows.behind.persist import ToIndex
from polyglot_persistence.flows.projections.first_index import FirstIndex
from polyglot_persistence.flows.projections.rebuild import (
    OLD_INDEX_SECONDS,
    Phase,
    RebuildFlow,
    Step,
    VerificationError,
)
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import Progress, StoredOrder
from polyglot_persistence.ports.rebuild import RebuildRecord, RebuildTarget
from polyglot_persistence.worker.rebuilder import make_first, rebuild_forever
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.records import RecordEngine, Tables
from tests.support.scripted import FakeClock
from tests.support.search_indexes import REAL_ENGINES, SearchEngine, asked, visible

CLOCK = SystemClock()


class DiedError(Exception):
    """In the place of a kill -9: nothing after it is done."""


class System:
    """A record, an engine, and what several processes would have of them."""

    def __init__(self, engine: SearchEngine, record: RecordEngine) -> None:
        self.engine = engine
        self.store = record.store()
        self.record = record.rebuild()
        self.searching = engine.process()
        self.indexing = engine.process()
        self.index_flow = IndexFlow(self.store, self.indexing, CLOCK)

    def process(
        self, *, batch: int = 20, rate: float = 1e6, clock: Clock = CLOCK
    ) -> tuple[RebuildFlow, RebuildTarget]:
        """Return the flow of a new process."""
        target = self.engine.target()
        limits = replace(
            load({}).index, index_batch_orders=batch, search_rebuild_orders_per_second=int(rate)
        )
        return RebuildFlow(self.record, target, self.store, clock, limits), target

    def first_index(self) -> FirstIndex:
        """Return what makes the first index in a new process."""
        return FirstIndex(self.store, self.engine.process())

    async def persist(self, count: int, name: str = "Milk") -> ToIndex:
        """Persist orders, and return what is to be indexed of them."""
        orders = [Order(new_id(), name, Decimal("1.50"), START) for _ in range(count)]
        persisted = await self.store.persist([AcceptedOrder(o, START, o.id) for o in orders])
        assert persisted.outbox_id is not None
        return ToIndex(persisted.outbox_id, list(persisted.stored.values()))

    async def add(self, count: int, name: str = "Milk") -> None:
        """Persist orders and index them."""
        await self.index_flow.index([await self.persist(count, name)])

    async def total(self) -> int:
        """Return how many orders a search finds."""
        return (await self.searching.search(asked("milk", 1))).total


class PersistsAtTheFirstLook:
    """A record to which another process adds an order once it was seen empty."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._looked = False

    async def progress(self, *, dead_letters_max: int) -> Progress:
        progress = await self._system.store.progress(dead_letters_max=dead_letters_max)
        if not self._looked:
            self._looked = True
            await self._system.persist(1)
        return progress


@pytest.fixture
def system(engine: SearchEngine, record: RecordEngine) -> System:
    """A system whose index is missing."""
    return System(engine, record)


async def test_a_missing_index_is_refused_until_all_of_it_is_there(system: System) -> None:
    """Never answered with a part: the first answer is the whole."""
    for _ in range(5):
        await system.persist(30)
    flow, _ = system.process()
    seen: list[Phase] = []

    async def look(step: Step) -> None:
        seen.append(step.phase)
        with pytest.raises(UnavailableError):
            await system.total()

    assert await flow.is_needed()
    rebuilt = await flow.run(look)
    assert (rebuilt.orders, rebuilt.mended, rebuilt.resumed) == (150, 0, False)
    assert await system.total() == 150
    assert set(seen) == set(Phase)
    assert not await flow.is_needed()
    assert await system.index_flow.work_off_outbox(0, 1000) == 150  # their rows were left alone
    await visible(system.searching, 150)


async def test_an_empty_record_has_an_empty_index_at_once(system: System) -> None:
    """A fresh installation."""
    flow, _ = system.process()
    assert (await flow.run()).orders == 0
    assert await system.total() == 0
    await system.add(1)
    await visible(system.searching, 1)


async def test_the_first_index_is_made_without_a_rebuild(system: System) -> None:
    """Of an empty record: it answers at once, and no rebuild is begun for it."""
    flow, _ = system.process()
    await make_first(flow, system.first_index(), system.store, asyncio.Event())
    assert not await flow.is_needed()
    assert await system.total() == 0
    await system.add(1)
    await visible(system.searching, 1)


async def test_of_several_workers_one_makes_the_first_index_and_all_wait_for_it(
    system: System,
) -> None:
    """Each returns once a search is answered, and none replaces what another made."""
    workers = [(system.process()[0], system.first_index()) for _ in range(4)]

    async def start(flow: RebuildFlow, first: FirstIndex) -> None:
        await make_first(flow, first, system.store, asyncio.Event())
        await system.total()

    await asyncio.gather(*(start(*worker) for worker in workers))
    assert await system.engine.parts() == 1


async def test_no_order_waits_for_the_index_of_a_record_that_has_orders(system: System) -> None:
    """To build it may take long, and goes on beside them."""
    await system.persist(1)
    flow, _ = system.process()
    await make_first(flow, system.first_index(), system.store, asyncio.Event())
    assert await flow.is_needed()


async def test_orders_that_come_before_the_first_index_are_in_it(system: System) -> None:
    """Where a worker persisted while the index was made, the record is compared with it."""
    flow, _ = system.process()
    store = PersistsAtTheFirstLook(system)
    first = FirstIndex(store, system.indexing)  # type: ignore[arg-type]  # what it asks for
    stop = asyncio.Event()

    async def built() -> None:
        assert not await flow.is_needed()
        assert await system.total() == 1

    rebuilding = asyncio.create_task(
        rebuild_forever(flow, first, system.store, stop, interval_seconds=0.01)
    )
    try:
        await eventually(built, retried=(AssertionError, UnavailableError))
    finally:
        stop.set()
        await rebuilding


@pytest.mark.timeout(180)
async def test_nothing_found_before_is_missing_while_traffic_flows(system: System) -> None:
    """Searches see only more and more, through fill, verification and swap, several times over."""
    await system.process()[0].run()
    await system.add(100)
    await visible(system.searching, 100)
    added, stop = 100, asyncio.Event()
    totals: list[int] = []

    async def order() -> None:
        nonlocal added
        while not stop.is_set():
            batch = await system.persist(7)
            added += 7
            try:
                await system.index_flow.index([batch])
            except UnavailableError:  # the current index takes nothing now: the outbox has it
                continue

    async def search() -> None:
        while not stop.is_set():
            totals.append(await system.total())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(order())
        tasks.create_task(search())
        for _ in range(2):
            await system.process(batch=100)[0].run()
        stop.set()
    assert totals == sorted(totals)
    assert totals[-1] > 100
    while await system.index_flow.work_off_outbox(0, 1000):
        pass
    await visible(system.searching, added)
    assert await system.engine.parts() == 1


@pytest.mark.parametrize("engine", REAL_ENGINES, indirect=True)
async def test_an_index_of_version_0_1_answers_until_another_takes_its_place(
    system: System,
) -> None:
    """As it is: it takes no orders, and finds no more than its version did."""
    batches = [await system.persist(30, name) for name in ("Milk", "Wi-Fi Router", "Milk")]
    await system.engine.make_version_1([row.order for rows in batches for row in rows.orders])
    flow, _ = system.process(batch=15)
    assert await flow.is_needed()
    assert not await system.searching.exists()
    with pytest.raises(UnavailableError, match="wanted is"):
        await system.searching.index(batches[0].orders)
    seen: list[Phase] = []

    async def look(step: Step) -> None:
        seen.append(step.phase)
        for text, total in (("milk", 60), ("mil", 60), ("millk", 60), ("wi-fi", 30), ("wifi", 0)):
            found = await system.searching.search(asked(text, 10, facets=True))
            assert (found.total, len(found.hits)) == (total, min(total, 10)), text
        assert [one.orders for one in await system.searching.names(parse_query("rou"), 10)] == [30]
        assert await system.searching.indexed_at(batches[0].orders[0].order.id) is not None
        await system.searching.ping()

    await system.persist(15)
    rebuilt = await flow.run(look)
    assert rebuilt.orders == 105
    assert set(seen) == set(Phase)
    for text, total in (("milk", 75), ("wi-fi", 30), ("wifi", 30)):
        await eventually(partial(finds, system, text, total))
    assert not await flow.is_needed()
    assert await system.engine.parts() == 1


async def finds(system: System, text: str, total: int) -> None:
    assert (await system.searching.search(asked(text, 1))).total == total


async def test_the_first_index_leaves_nothing_when_it_is_replaced(system: System) -> None:
    """It was made by another way than those of rebuilds."""
    assert await system.indexing.ensure()
    await system.add(1)
    await system.process()[0].run()
    assert await system.engine.parts() == 1


@pytest.mark.parametrize("phase", Phase)
async def test_a_rebuild_that_died_is_taken_up_again(system: System, phase: Phase) -> None:
    """By another process, from where the record says; what was added meanwhile is in it."""
    await system.process()[0].run()
    for _ in range(5):
        await system.add(20)
    await visible(system.searching, 100)
    filled: list[int] = []

    async def die(step: Step) -> None:
        if step.phase is Phase.FILL:
            filled.append(step.done)
        if step.phase is phase and len(filled) >= 2:
            raise DiedError

    with pytest.raises(DiedError):
        await system.process()[0].run(die)
    await system.add(20)
    await visible(system.searching, 120)
    flow, _ = system.process()
    assert await flow.is_needed()
    again: list[int] = []

    async def watch(step: Step) -> None:
        if step.phase is Phase.FILL:
            again.append(step.done)

    rebuilt = await flow.run(watch)
    assert (rebuilt.orders, rebuilt.resumed) == (120, True)
    assert again[:1] == [filled[-1] + 20]  # nothing is filled twice; new ids come last
    assert await system.total() == 120
    assert await system.engine.parts() == 1


async def test_a_death_between_swap_and_end_is_ended(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new index is in use already; only the record has to forget the rebuild."""
    await system.process()[0].run()
    await system.add(30)
    flow, target = system.process()
    swap = target.swap

    async def swap_and_die() -> None:
        await swap()
        raise DiedError

    monkeypatch.setattr(target, "swap", swap_and_die)
    with pytest.raises(DiedError):
        await flow.run()
    assert await system.total() == 30
    flow, _ = system.process()
    assert await flow.is_needed()
    assert (await flow.run()).resumed
    assert not await flow.is_needed()
    await system.add(5)
    await visible(system.searching, 35)
    assert await system.engine.parts() == 1


async def test_what_differs_is_mended_before_the_swap(system: System) -> None:
    """Missing, changed and surplus documents of the new index."""
    for _ in range(3):
        await system.persist(20)
    flow, target = system.process()

    async def plant(step: Step) -> None:
        if step.phase is not Phase.FILL or step.done < 60:
            return
        rows = await system.record.orders_after(None, 60)
        await target.building.remove([rows[0].order.id, rows[59].order.id])
        changed = Order(rows[7].order.id, "Milk", Decimal("9.99"), START)
        surplus = [
            Order(order_id, "Milk", Decimal(1), START) for order_id in (new_id(), UUID(int=5))
        ]
        await target.building.index([StoredOrder(o, START, START) for o in (changed, *surplus)])

    rebuilt = await flow.run(plant)
    assert (rebuilt.orders, rebuilt.mended) == (60, 5)
    found = await system.searching.search(asked("milk", 100))
    assert found.total == 60
    assert {hit.order.amount for hit in found.hits} == {Decimal("1.50")}


async def test_an_index_that_cannot_be_mended_is_not_used(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It forgets an order each time: the old index stays."""
    await system.process()[0].run()
    await system.add(20)
    await visible(system.searching, 20)
    flow, target = system.process()
    index: Callable[[list[StoredOrder]], Awaitable[object]] = target.building.index

    async def forgetful(rows: list[StoredOrder]) -> object:
        return await index(rows[1:])

    monkeypatch.setattr(target.building, "index", forgetful)
    with pytest.raises(VerificationError, match="wrong about order"):
        await flow.run()
    assert await system.total() == 20
    await system.add(5)
    await visible(system.searching, 25)


async def test_what_the_new_index_can_never_take_is_a_dead_letter(
    system: System, monkeypatch: pytest.MonkeyPatch, tables: Tables
) -> None:
    """And it does not hold the rest up."""
    await system.persist(20)
    flow, target = system.process()
    bad = (await system.record.orders_after(None, 1))[0]
    unreadable = bad._replace(
        order=Order(bad.order.id, "Milk \ud800", bad.order.amount, bad.order.created_at)
    )
    index: Callable[[list[StoredOrder]], Awaitable[object]] = target.building.index

    async def spoilt(rows: list[StoredOrder]) -> object:
        return await index([unreadable if row == bad else row for row in rows])

    monkeypatch.setattr(target.building, "index", spoilt)
    await flow.run()
    assert await system.total() == 19
    assert [row.order_id for row in await tables.letters()] == [bad.order.id]


async def test_rows_are_kept_until_both_indexes_hold_them(system: System, tables: Tables) -> None:
    """Worked off by the current index, they arrive for the new one; without a rebuild they go."""
    await system.process()[0].run()
    record = system.record
    await system.add(3)
    assert await tables.arrivals() == 0
    rebuild = await record.begin("new")
    assert (rebuild.position, rebuild.filled, rebuild.total) == (None, 0, 3)
    await system.add(2)
    await system.persist(4)
    assert await system.index_flow.work_off_outbox(0, 100) == 4
    assert not await tables.outbox()
    with pytest.raises(DiedError):
        await die_while_indexing(record)
    async with record.claim_arrivals(3) as batch:
        assert len(batch) == 2
    async with record.claim_arrivals(3) as batch:
        assert len(batch) == 4
    await system.add(1)
    await record.end()
    assert await record.current() is None
    assert await tables.arrivals() == 0


async def die_while_indexing(record: RebuildRecord) -> None:
    """Claim six arrivals, and do not live to give them back."""
    async with record.claim_arrivals(100) as batch:
        assert len(batch) == 6
        raise DiedError


async def test_a_frozen_index_takes_nothing_and_is_searched(system: System) -> None:
    """What is written meanwhile waits or is refused, and is taken afterwards."""
    await system.process()[0].run()
    await system.add(3)
    await visible(system.searching, 3)
    _, target = system.process()
    batch = await system.persist(2)
    async with target.frozen():
        writing = asyncio.create_task(system.index_flow.index([batch]))
        for _ in range(20):
            assert await system.total() == 3
        assert not writing.done() or writing.exception() is not None
    await asyncio.wait([writing])
    if writing.exception() is not None:
        await system.index_flow.index([batch])
    await visible(system.searching, 5)


async def test_ranges_of_the_record_are_summed_as_the_index_does(
    system: System,
) -> None:
    """Any name, amount and moment has the same checksum in PostgreSQL and here."""
    random_ = random.Random(7)
    names = ["Milk", "Crème brûlée ½", "\U0001f353 x", "a  b", "%s 'quoted' \\"]
    orders = [
        Order(
            new_id(),
            random_.choice(names),
            Decimal(random_.choice([0, 1, 99, 123_456_789_012, 999_999_999_999])) / 100,
            START + timedelta(microseconds=random_.randrange(10**12)),
        )
        for _ in range(200)
    ]
    persisted = await system.store.persist([AcceptedOrder(o, START, o.id) for o in orders])
    await system.indexing.ensure()
    await system.indexing.index(list(persisted.stored.values()))
    await visible(system.searching, 200)
    record, contents = system.record, system.engine.contents()
    first, parts = UUID(int=0), 0
    while (part := await record.sum_from(first, 77)) is not None:
        assert await contents.sum_between(first, part.last) == part.sum
        first, parts = UUID(int=part.last.int + 1), parts + 1
    assert parts == 3


async def test_a_rebuild_keeps_to_its_rate(system: System) -> None:
    """So that it leaves room for traffic."""
    for _ in range(3):
        await system.persist(20)
    clock = FakeClock()
    flow, _ = system.process(rate=200, clock=clock)
    begun = clock.monotonic()
    await flow.run()
    assert clock.monotonic() - begun == pytest.approx(60 / 200 + OLD_INDEX_SECONDS)
