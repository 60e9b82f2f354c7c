"""One run of a plan: begin, let things go wrong, wait until all is well again, check.

A run is over once everything is persisted, searchable and warm. That has to be so within
`CALM_SECONDS` after the last fault has ended (*liveness*).
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.simulation import checkers, determined
from tests.simulation.checkers import Checks, Holdings
from tests.simulation.clients import NEVER, Clients
from tests.simulation.history import History
from tests.simulation.loop import SimulatedLoop, running
from tests.simulation.network import Event
from tests.simulation.plan import FAULT_SECONDS_MAX, FAULTS_END, Plan
from tests.simulation.processes import COMMIT_ORDERS_MAX, WAITING_ORDERS_MAX
from tests.simulation.world import World

LOOK_SECONDS = 0.3
"""Between two looks of the simulator at the world."""

FAULTS_OVER = FAULTS_END + FAULT_SECONDS_MAX + 1.5
"""Whatever went wrong has ended by then."""

CALM_SECONDS = 30.0
"""Within so long after the last fault everything is well again."""

CERTAIN_SECONDS = 1.0
"""Twice as long as between two probes."""

ANSWER_SECONDS = 3.0
"""Within so long the last questions are answered."""

AT_RISK_MAX = 2
"""Orders that are asked for at each look because they are in neither cache nor record."""


@dataclass(slots=True)
class Result:
    """What became of a run."""

    plan: Plan
    violations: list[str]
    trace: list[Event]
    met: Counter[tuple[str, str]]
    steps: int
    seconds: float
    operations: int
    seen: set[str] = field(default_factory=set)
    """Kinds of steps that were made."""

    def digest(self) -> str:
        """Return a hash of the whole trace."""
        lines = "\n".join(f"{at:.9f} {who} {what}" for at, who, what in self.trace)
        return hashlib.sha256(lines.encode()).hexdigest()


def simulate(plan: Plan) -> Result:
    """Run a plan from beginning to end."""
    with running() as loop:
        determined.begin(plan.seed, loop)
        run = _Run(plan, loop)
        run.go()
        return run.result()


class _Run:
    def __init__(self, plan: Plan, loop: SimulatedLoop) -> None:
        self._plan = plan
        self._loop = loop
        self._world = World(plan, loop)
        self._clients = Clients(self._world)
        self._found: list[str] = []
        self._asks = 0
        self._known = 0
        """How many of the ids that clients know were looked at."""
        self._unpersisted: list[UUID] = []
        """Those of them that were not in the record."""

    def go(self) -> None:
        """Let everything happen."""
        world, loop = self._world, self._loop
        world.begin()
        self._clients.begin(self._plan.operations)
        calm_since: float | None = None
        while True:
            loop.run_until(loop.now + LOOK_SECONDS)
            self._look()
            if loop.failures or any(process.deaths for process in world.processes):
                break
            if calm_since is None:
                if loop.now >= FAULTS_OVER or (not world.faults_left and not self._clients.waiting):
                    calm_since = loop.now
                    world.heal_versions()
                    for process in world.processes:
                        process.start()
                continue
            if not self._clients.waiting and not self._unwell():
                break
            if loop.now - calm_since > CALM_SECONDS:
                unwell = ", ".join(self._unwell()) or "clients still wait"
                self._found.append(f"not well: {CALM_SECONDS:g} s after the last fault: {unwell}")
                break
        self._ask_everything()

    # --- while it runs -----------------------------------------------------------------------

    def _look(self) -> None:
        """Look at what is bounded, and ask for what only the queue holds."""
        world, plan = self._world, self._plan
        dirty = len(world.valkey_now.dirty)
        bound = plan.dirty_orders_max + plan.apis * (WAITING_ORDERS_MAX + 2 * COMMIT_ORDERS_MAX)
        if dirty > bound:
            self._found.append(f"bound: {dirty} dirty orders, {bound} may be")
        risky = self._at_risk()
        for n, order_id in enumerate(risky):
            self._asks += 1
            reading = self._clients.read(order_id, self._asks + n, status=self._asks % 3 == 0)
            self._loop.world_task(_ignored(reading))

    def _at_risk(self) -> list[str]:
        """Return a few orders that clients know, and that neither cache nor record has."""
        world, known = self._world, self._clients.history.acknowledged
        new = itertools.islice(known, self._known, None)
        self._known = len(known)
        valkey, orders = world.valkey_now, world.record.orders
        again = sorted(world.lost_rows) if world.lacks_rows else []
        looked_at = list(dict.fromkeys([*self._unpersisted, *again, *map(UUID, new)]))
        self._unpersisted = [i for i in looked_at if i not in orders]
        risky = [str(i) for i in self._unpersisted if valkey.entry(i) is None]
        if self._loop.now < world.stale_until and known:
            return [list(known)[-1], *risky][:AT_RISK_MAX]
        if not risky:
            strange = world.strange_ids
            return [str(strange[self._asks % len(strange)])] if strange else []
        first = self._asks % len(risky)
        return (risky * 2)[first : first + min(AT_RISK_MAX, len(risky))]

    def _unwell(self) -> list[str]:
        """Return what is not yet as it has to be at last."""
        world = self._world
        record, strange = world.record, set(world.strange_ids)
        unwell = []
        dirty = [i for i in world.valkey_now.dirty if i not in strange]
        if dirty:
            unwell.append(f"{len(dirty)} orders are dirty")
        if waiting := sum(1 for _ in world.queued()):
            unwell.append(f"{waiting} orders are in the queue")
        if world.lacks_rows:
            unwell.append(f"{len(world.lost_rows)} orders that the record lost are not back")
        if record.outbox:
            unwell.append(f"{len(record.outbox)} rows are in the outbox")
        shown = self._documents()
        if shown is None or len(shown) != len(record.orders):
            unwell.append("search does not find everything")
        if not self._is_warm():
            unwell.append("the cache is cold")
        return unwell

    def _is_warm(self) -> bool:
        valkey, record = self._world.valkey_now, self._world.record
        number = next(iter(record.epochs.values()), None)
        copy = valkey.copies.get(valkey.reign)
        return copy is not None and copy == f"{record.timeline}.{number}"

    def _documents(self) -> dict[UUID, Any] | None:
        engine = self._world.engine
        index = engine.opened("current") if engine.is_up else None
        return None if index is None else index.shown

    # --- at the end --------------------------------------------------------------------------

    def _ask_everything(self) -> None:
        """Ask each API process for known orders, and for one that never was."""
        history, loop = self._clients.history, self._loop
        known = list(history.acknowledged)
        if not self._found and not loop.failures:
            asking = []
            for n in range(self._plan.apis):
                some = known[n :: 7 * self._plan.apis]
                questions = [_ignored(self._clients.read(order_id, n)) for order_id in some]
                asking += [loop.world_task(one) for one in (*questions, self._never(n))]
            end = loop.now + ANSWER_SECONDS
            while loop.now < end and not all(task.done() for task in asking):
                loop.run_until(loop.now + 0.1)

    async def _never(self, api: int) -> None:
        """Ask until the answer is certain: a process may not have probed the cache again yet."""
        certain_by = self._loop.now + CERTAIN_SECONDS
        while (status := await self._clients.read(NEVER, api)) != 404:
            if self._loop.now > certain_by:
                self._found.append(f"cold: API {api} answers {status} for an order that never was")
                return
            await self._world.server_clock.sleep(LOOK_SECONDS)

    def result(self) -> Result:
        """Return what was found."""
        world, history = self._world, self._clients.history
        violations = [f"failure: {one}" for one in self._loop.failures]
        violations += [f"death: {one}" for process in world.processes for one in process.deaths]
        violations += self._found
        if not violations:
            violations += Checks(self._plan, history, self._holdings(history)).violations()
        else:
            violations += _seen_on_the_way(self._plan, history, self._holdings(history))
        network = world.network
        seen = {what.removesuffix(" !") for _, _, what in network.trace}
        return Result(
            self._plan,
            violations,
            network.trace,
            network.met,
            self._loop.steps,
            self._loop.now,
            len(history.attempts) + len(history.readings),
            seen,
        )

    def _holdings(self, history: History) -> Holdings:
        world = self._world
        record, valkey = world.record, world.valkey_now
        letters: dict[str, list[str]] = {}
        for row in record.letters.values():
            name = checkers.name_of_payload(row.letter.payload)
            letters.setdefault(str(row.letter.order_id), []).append(name)
        messages = valkey.messages if world.broker is None else world.broker.messages
        raws = [(i, valkey.entry(i)) for i in valkey.entries]
        excused = world.still_excused()
        published: Counter[str] = Counter()
        for (order_id, _), times in world.published.items():
            published[str(order_id)] += times
        return Holdings(
            rows={
                str(i): (row.order.product_name, row.order.amount)
                for i, row in record.orders.items()
            },
            letters=letters,
            reasons={str(r.letter.order_id): r.letter.reason for r in record.letters.values()},
            documents={
                str(i): (one.order.product_name, one.order.amount)
                for i, one in (self._documents() or {}).items()
            },
            entries={
                str(i): checkers.plain(raw)
                for i, raw in raws
                if raw is not None and i not in world.strange_ids
            },
            dirty={str(i) for i in valkey.dirty},
            queued=[
                name
                for message in messages.values()
                for name in checkers.names_of_message(message.body)
            ],
            quarter_hours=checkers.total_of(record.quarter_hours.values()),
            product_days=checkers.by_product(
                (name, *cell) for (_, name), cell in record.product_days.items()
            ),
            published=published,
            excused_ids={str(i) for i, _ in excused},
            excused_names={name for _, name in excused},
            excuses_answers=self._plan.durable or world.queue_lost,
            strange_ids={str(i) for i in world.strange_ids},
            doubts=world.doubts,
        )


def _seen_on_the_way(plan: Plan, history: History, holdings: Holdings) -> Iterator[str]:
    """Yield what is wrong whether or not the run came to its end."""
    yield from history.wrong
    yield from Checks(plan, history, holdings).denied()


async def _ignored(reading: Any) -> None:
    await reading


def summary(results: Sequence[Result]) -> str:
    """Return a line about runs."""
    operations = sum(result.operations for result in results)
    return f"{len(results)} runs, {operations} requests"
