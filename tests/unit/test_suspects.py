"""Crash loops: whoever kills its workers is condemned, and nobody else."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.flows.behind.persist import SWEEP, PersistFlow
from polyglot_persistence.flows.behind.suspects import DEATHS_MAX, Suspects
from polyglot_persistence.ports.cache import Unit
from polyglot_persistence.ports.orders import Persisted
from tests.support.orders import prepared
from tests.support.scripted import FakeClock, ScriptedCache
from tests.support.visible_record import VisibleRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class DeathError(BaseException):
    """Ends everything that a worker was doing, as the end of its process would."""


class Record(VisibleRecord):
    """The simulated record, which outlives workers and kills those that bring it certain orders."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.killers: set[UUID] = set()
        self.killers_after_commit: set[UUID] = set()
        self.errors: dict[str, list[Exception]] = {}
        self.under_way = 0
        self.pause = asyncio.Event()
        self.pause.set()

    @contextmanager
    def _effect(self, method: str) -> Iterator[None]:
        """Fail as told: before the effect, or, where the outcome is unknown, after it."""
        errors = self.errors.get(method)
        error = errors.pop(0) if errors else None
        if isinstance(error, UnavailableError):
            raise error
        yield
        if error is not None:
            raise error

    @property
    def condemned(self) -> dict[UUID | None, str]:
        """The reason of each dead letter, by its order."""
        return {one.order_id: one.reason for one in self.letters}

    async def begin_attempts(self, subjects: Sequence[str]) -> Mapping[str, int]:
        with self._effect("begin_attempts"):
            return await super().begin_attempts(subjects)

    async def take_back_attempts(self, subjects: Sequence[str]) -> None:
        with self._effect("take_back_attempts"):
            await super().take_back_attempts(subjects)

    async def end_attempts(self, subjects: Sequence[str]) -> None:
        with self._effect("end_attempts"):
            await super().end_attempts(subjects)

    async def persist(self, batch: Sequence[AcceptedOrder]) -> Persisted:
        self.under_way += 1
        await self.pause.wait()
        self.under_way -= 1
        ids = {one.order.id for one in batch}
        if ids & self.killers:
            raise DeathError
        with self._effect("persist"):
            persisted = await super().persist(batch)
        if ids & self.killers_after_commit:
            raise DeathError
        return persisted


class Stand:
    """A record and a cache that workers die over."""

    def __init__(self) -> None:
        self.record, self.cache = Record(), ScriptedCache()

    def worker(self) -> PersistFlow:
        """Return a new worker's flow."""
        return PersistFlow(self.record, self.cache, FakeClock())

    async def lives(self, units: Sequence[Sequence[AcceptedOrder]]) -> int:
        """Let workers take the units one by one until one survives; return how many died."""
        await self.cache.accept([Unit([prepared(one) for one in unit]) for unit in units])
        deaths = 0
        while True:
            flow = self.worker()
            try:
                for unit in await flow.pass_over(units):
                    await flow.persist_suspect(unit, "queue")
            except DeathError:
                deaths += 1
                assert deaths < 50
            else:
                return deaths


def single() -> list[AcceptedOrder]:
    order = Order(new_id(), "x", Decimal("1.00"), NOW)
    return [AcceptedOrder(order, NOW, order.id)]


async def test_who_kills_five_workers_is_condemned_and_its_neighbours_are_persisted() -> None:
    """The five died while it was alone; the sixth buries it."""
    stand = Stand()
    units = [single() for _ in range(5)]
    killer = units[2][0].order.id
    stand.record.killers = {killer}
    assert await stand.lives(units) == DEATHS_MAX
    assert set(stand.record.rows) == {unit[0].order.id for unit in units} - {killer}
    assert stand.record.condemned == {killer: "5 workers died of it"}
    assert stand.record.attempts == {}
    states = {i: codec.entry_state(raw) for i, raw in stand.cache.entries.items()}
    assert states.pop(killer) is EntryState.DEAD
    assert set(states.values()) == {EntryState.CLEAN}


async def test_two_killers_in_a_message_cost_five_workers_each() -> None:
    """The first is not attempted again after its burial."""
    stand = Stand()
    units = [single() for _ in range(4)]
    stand.record.killers = {units[1][0].order.id, units[3][0].order.id}
    assert await stand.lives(units) == 2 * DEATHS_MAX
    assert set(stand.record.condemned) == stand.record.killers


async def test_whoever_was_persisted_before_the_deaths_is_not_condemned() -> None:
    """Workers that die after the commit leave an order of the record."""
    stand = Stand()
    unit = single()
    stand.record.killers_after_commit = {unit[0].order.id}
    for _ in range(DEATHS_MAX - 1):
        await stand.record.begin_attempts([str(unit[0].unit_id)])
    with pytest.raises(DeathError):
        await stand.worker().persist_suspect(unit, "queue")
    await stand.worker().persist_suspect(unit, "queue")
    assert stand.record.letters == []
    assert stand.record.attempts == {}
    assert codec.entry_state(stand.cache.entries[unit[0].order.id]) is EntryState.CLEAN


async def test_a_survived_attempt_wipes_out_all_suspicion() -> None:
    """Four deaths by chance, then a success."""
    stand = Stand()
    unit = single()
    for _ in range(DEATHS_MAX - 1):
        await stand.record.begin_attempts([str(unit[0].unit_id)])
    assert await stand.worker().persist_suspect(unit, "queue")
    assert stand.record.attempts == {}


@pytest.mark.parametrize("method", ["begin_attempts", "persist", "end_attempts"])
async def test_outages_of_the_record_are_no_deaths(method: str) -> None:
    """However often the same living worker tries, whatever the failure says."""
    stand = Stand()
    unit, flow = single(), stand.worker()
    for _ in range(2 * DEATHS_MAX):
        for error in (UnavailableError("away"), UnknownOutcomeError("lost")):
            stand.record.errors = {method: [error]}
            with pytest.raises(type(error)):
                await flow.persist_suspect(unit, "queue")
            assert stand.record.attempts.get(str(unit[0].unit_id), 0) <= 1
    await flow.persist_suspect(unit, "queue")
    assert stand.record.letters == []
    assert set(stand.record.rows) == {unit[0].order.id}
    assert stand.record.attempts == {}


async def test_what_was_cut_short_is_taken_back_once_the_record_is_there() -> None:
    """Also if that fails at first, and whatever is attempted next."""
    stand = Stand()
    unit, flow = single(), stand.worker()
    stand.record.errors = {"persist": [UnavailableError("away")]}
    with pytest.raises(UnavailableError):
        await flow.persist_suspect(unit, "queue")
    stand.record.errors = {"take_back_attempts": [UnavailableError("away")]}
    with pytest.raises(UnavailableError):
        await flow.persist_suspect(single(), "queue")
    await flow.persist_suspect(single(), "queue")
    assert stand.record.attempts == {str(unit[0].unit_id): 0}


async def test_a_killer_that_only_the_sweeper_sees_is_found_out() -> None:
    """Two sweeps die, then they go unit by unit; five more, and it is buried alone."""
    stand = Stand()
    batch = [one for _ in range(6) for one in single()]
    killer = batch[3].order.id
    stand.record.killers = {killer}
    deaths = 0
    while True:
        try:
            await stand.worker().persist_swept(batch)
        except DeathError:
            deaths += 1
            assert deaths < 50
        else:
            break
    assert deaths == 2 + DEATHS_MAX
    assert set(stand.record.condemned) == {killer}
    assert set(stand.record.rows) == {one.order.id for one in batch} - {killer}
    assert stand.record.attempts == {}


async def test_sweeps_of_a_living_worker_stay_whole() -> None:
    """Outages do not make it go unit by unit."""
    stand = Stand()
    flow = stand.worker()
    for _ in range(5):
        stand.record.errors = {"persist": [UnavailableError("away")]}
        with pytest.raises(UnavailableError):
            await flow.persist_swept(single())
    assert stand.record.attempts == {SWEEP: 1}
    assert await flow.persist_swept(single())
    assert stand.record.attempts == {}


async def test_what_came_again_and_again_is_persisted_together() -> None:
    """Without a death there is no suspicion, however long the record was away."""
    stand = Stand()
    flow = stand.worker()
    messages = {f"message {n}": [one for _ in range(3) for one in single()] for n in range(4)}
    for _ in range(2 * DEATHS_MAX):
        stand.record.errors = {"persist": [UnavailableError("away")]}
        with pytest.raises(UnavailableError):
            await flow.persist_redelivered(messages, "queue")
    done = await flow.persist_redelivered(messages, "queue")
    assert len(done.to_index) == 1  # one transaction
    assert done.deadly == frozenset()
    assert len(stand.record.rows) == 12
    assert stand.record.attempts == {}


async def test_a_killer_among_what_came_again_is_found_out_by_itself() -> None:
    """A death leaves its messages to go unit by unit; five more, and the killer is buried."""
    stand = Stand()
    messages = {f"message {n}": [one for _ in range(3) for one in single()] for n in range(4)}
    later = {"message later": single()}
    killer = messages["message 2"][1].order.id
    stand.record.killers = {killer}
    deaths = 0
    while True:
        flow = stand.worker()
        try:
            done = await flow.persist_redelivered(messages | (later if deaths else {}), "queue")
            for name in done.deadly:
                for unit in await flow.pass_over([[one] for one in messages[name]]):
                    await flow.persist_suspect(unit, "queue")
            await flow.forget_deadly(done.deadly)
        except DeathError:
            deaths += 1
            assert deaths < 50
        else:
            break
    assert deaths == 1 + DEATHS_MAX
    assert set(stand.record.condemned) == {killer}
    everything = {one.order.id for batch in (messages | later).values() for one in batch}
    assert set(stand.record.rows) == everything - {killer}
    assert stand.record.attempts == {}


async def test_nothing_else_is_persisted_beside_a_suspect() -> None:
    """It would be counted for a death that another order caused."""
    stand = Stand()
    flow = stand.worker()
    stand.record.pause.clear()
    waiting = [asyncio.create_task(flow.persist(single(), "queue")) for _ in range(2)]
    suspect = asyncio.create_task(flow.persist_suspect(single(), "queue"))
    later = asyncio.create_task(flow.persist(single(), "queue"))
    await _settled()
    assert (stand.record.under_way, stand.record.attempts) == (2, {})
    stand.record.pause.set()
    await asyncio.gather(*waiting)
    stand.record.pause.clear()
    await _settled()
    stand.record.pause.set()
    await asyncio.gather(suspect, later)
    assert len(stand.record.rows) == 4


async def test_who_is_alone_lets_nobody_in() -> None:
    """And those who work together do not hold each other up."""
    suspects = Suspects(cast("Any", None))
    order: list[str] = []

    async def work(name: str, *, alone: bool) -> None:
        async with suspects.alone() if alone else suspects.together():
            order.append(f"{name} in")
            await _settled()
            order.append(f"{name} out")

    await asyncio.gather(
        work("a", alone=False),
        work("b", alone=False),
        work("c", alone=True),
        work("d", alone=False),
    )
    assert order == ["a in", "b in", "a out", "b out", "c in", "c out", "d in", "d out"]


async def _settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)
