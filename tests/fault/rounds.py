"""One round after the other: clients at work, a fault, and then every store is looked at.

Rounds of one series share their stores, and every check is of the whole series: what is lost later
is noticed as well.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from tests.fault.checkers import Verdict, check
from tests.fault.faults import Fault, Scene
from tests.fault.history import History, events
from tests.fault.load import Load
from tests.fault.systems import DIRTY_ORDERS_MAX, System
from tests.support.eventually import look_again
from tests.support.patience import NOT_WELL, patiently

ACKED_BEFORE = 400
ACKED_AFTER = 200
ACKED_DURING = 100
"""Fewer in a fault that can be survived, and the round proves nothing."""
PAUSE_SECONDS = 0.008
ORDERS_PER_SECOND = 1_300
ROUND_CENTS = 10_000_000


@dataclass
class Totals:
    """Of all rounds of a run."""

    acknowledged: int = 0
    reads: int = 0
    lost: int = 0
    doubled: int = 0
    false_404: int = 0
    other: int = 0
    rounds: int = 0
    void: int = 0
    done: list[int] = field(default_factory=list)
    """Numbers of the rounds that count."""
    rates: list[int] = field(default_factory=list)
    """Orders acknowledged a second, of each round; its fault is in that."""
    whole_seconds: dict[str, float] = field(default_factory=dict)
    """Longest time without a write that got both copies, by fault."""
    died_at: dict[str, int] = field(default_factory=dict)
    """How often a process, or a server, died at which point."""

    @property
    def violated(self) -> bool:
        """Whether anything was as it must not be."""
        return bool(self.lost or self.doubled or self.false_404 or self.other)

    def line(self, seed: int) -> str:
        """Return what a run has come to, in one line."""
        return (
            f"acknowledged {self.acknowledged}, lost {self.lost}, doubled {self.doubled}, "
            f"false 404 {self.false_404}, rounds {self.rounds}, seed {seed}"
        )

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Totals":
        """Return what the file says, or nothing yet."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()


class Series:
    """Rounds on one system, which goes on between them."""

    def __init__(self, system: System, *, seed: int, totals: Totals) -> None:
        self._system = system
        self._seed = seed
        self._totals = totals
        self._history_path = system.directory / "history"
        self._acknowledged = 0
        self._reads = 0

    async def play(self, number: int, fault: Fault) -> Verdict:
        """Play a round and check; the verdict is of all rounds so far."""
        system, rng = self._system, Random(f"{self._seed}/{number}")
        deaths_before = [len(member.died_at) for member in system.members]
        with History(self._history_path) as history:
            load = Load(
                system.port,
                history,
                seed=f"{self._seed}/{number}",
                first_cents=number * ROUND_CENTS + 1,
                pause_seconds=PAUSE_SECONDS,
                orders_per_second=ORDERS_PER_SECOND,
            )
            scene = Scene(system, history, rng)
            began = time.monotonic()
            async with load.going_on(), self._looking(history):
                await scene.more_acked(ACKED_BEFORE)
                print(f"round {number}: {fault.name}", end="", flush=True)
                before, fault_began = len(history.ids), time.monotonic()
                await fault.happen(scene)
                during = len(history.ids) - before
                fault_seconds = time.monotonic() - fault_began
                await scene.more_acked(ACKED_AFTER)
            acked, seconds = len(history.ids), time.monotonic() - began
        settle_began = time.monotonic()
        left = await settled(system)
        settled_seconds = time.monotonic() - settle_began
        verdict = await self._check(left)
        points = [
            point.rpartition(":")[0]
            for member, before_it in zip(system.members, deaths_before, strict=True)
            for point in member.died_at[before_it:]
        ]
        is_void = fault.survivable and during < ACKED_DURING
        self._count(number, verdict, points, is_void=is_void)
        self._totals.rates.append(round(acked / seconds))
        whole_seconds = self._totals.whole_seconds
        whole_seconds[fault.name] = max(
            whole_seconds.get(fault.name, 0.0), history.whole_seconds_max
        )
        print(
            f"{' at ' + ', '.join(points) if points else ''}: "
            f"{acked} acknowledged in {seconds:.1f} s ({acked / seconds:.0f}/s), "
            f"{during} in the {fault_seconds:.1f} s of the fault, "
            f"at most {history.whole_seconds_max:.1f} s without a write with two copies, "
            f"settled after {settled_seconds:.1f} s"
            f"{', VOID' if is_void else ''}{''.join(f'; {v}' for v in verdict.violations[:20])}",
            flush=True,
        )
        return verdict

    async def _check(self, left: str) -> Verdict:
        held = await patiently(self._system.held)
        verdict = await asyncio.to_thread(
            check,
            events(self._history_path),
            held,
            backlog_max=DIRTY_ORDERS_MAX + self._system.orders_in_flight_max,
        )
        return verdict.after(left, self._system.tracebacks())

    def _count(
        self, number: int, verdict: Verdict, points: Sequence[str], *, is_void: bool
    ) -> None:
        totals = self._totals
        totals.acknowledged += verdict.acknowledged - self._acknowledged
        totals.reads += verdict.reads - self._reads
        self._acknowledged, self._reads = verdict.acknowledged, verdict.reads
        totals.lost += verdict.count("lost")
        totals.doubled += verdict.count("doubled")
        totals.false_404 += verdict.count("false 404")
        totals.other += len(verdict.violations) - sum(
            verdict.count(kind) for kind in ("lost", "doubled", "false 404")
        )
        for point in points:
            totals.died_at[point] = totals.died_at.get(point, 0) + 1
        if is_void:
            totals.void += 1
        else:
            totals.rounds += 1
        totals.done.append(number)

    def _looking(self, history: History) -> "_Looking":
        return _Looking(self._system, history)


async def settled(system: System) -> str:
    """Wait until nothing is left to do, as long as something moves; return what is left."""
    moved_at, before = time.monotonic(), None
    while left := await system.unsettled():
        if left != before:
            moved_at, before = time.monotonic(), left
        if time.monotonic() - moved_at > system.settle_seconds:
            return left
        await look_again()
    return ""


class _Looking:
    """Notes the backlog now and then."""

    def __init__(self, system: System, history: History) -> None:
        self._system = system
        self._history = history
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._look_on())

    async def __aexit__(self, *_error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            try:
                self._history.backlog(await self._system.dirty())
            except NOT_WELL:
                continue  # it is away


def deck(faults: Sequence[Fault], seed: int, number: int) -> Fault:
    """Return the fault of a round: all of them in an order by the seed, then again in another."""
    turn, place = divmod(number, len(faults))
    shuffled = list(faults)
    Random(f"{seed} {turn}").shuffle(shuffled)
    return shuffled[place]
