"""Many runs on several cores."""

import gc
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.pool import Pool
from typing import NamedTuple

from tests.simulation import determined
from tests.simulation.plan import KINDS, Cell, Plan, cell_text, cells, every_step
from tests.simulation.runs import simulate
from tests.simulation.scenario import make_plan
from tests.simulation.shrink import shrink

CHUNK_RUNS = 8

TOP_UP_RUNS = 80
TOP_UPS_MAX = 8
"""A rare step may not have come while a fault waited for it: so often others are aimed at it."""


class Aim(NamedTuple):
    """All that decides a run: its seed, and the one cell at which its faults aim, if it is one."""

    seed: int
    cell: Cell | None = None

    def plan(self) -> Plan:
        """Return the run's plan."""
        return make_plan(self.seed, cells() if self.cell is None else [self.cell])

    def __str__(self) -> str:
        return f"--seed {self.seed}" + (f" --aim '{cell_text(self.cell)}'" if self.cell else "")


class Outcome(NamedTuple):
    """What a process tells of one run."""

    aim: Aim
    violations: list[str]
    met: dict[Cell, int]
    operations: int
    faults: int
    simulated_seconds: float

    def __str__(self) -> str:
        return f"{self.aim}: {'; '.join(self.violations[:3])}"


class Campaign:
    """Runs with consecutive seeds, and what has become of them."""

    def __init__(self, first: int, runs: int, *, processes: int = 0) -> None:
        self._seeds = range(first, first + runs)
        self._processes = processes or os.cpu_count() or 1
        self._began = time.monotonic()
        self.met: Counter[Cell] = Counter()
        self.failures: list[Outcome] = []
        self.runs = 0
        self.operations_min = 1_000_000
        self.faults_min = 1_000_000
        self._simulated = 0.0

    def outcomes(self) -> Iterator[Outcome]:
        """Run all, in any order; then aim more runs at the cells that are still empty."""
        context = multiprocessing.get_context("spawn")
        with context.Pool(self._processes, initializer=_begin) as pool:
            yield from self._run(pool, [Aim(seed) for seed in self._seeds])
            for n in range(TOP_UPS_MAX):
                missing = empty_cells(self.met)
                if not missing or self.failures:
                    return
                first = self._seeds.stop + n * TOP_UP_RUNS
                yield from self._run(pool, top_up(first, missing))

    def _run(self, pool: Pool, runs: Sequence[Aim]) -> Iterator[Outcome]:
        for outcome in pool.imap_unordered(_run, runs, chunksize=CHUNK_RUNS):
            self._note(outcome)
            yield outcome

    def progress(self) -> str:
        """Return a line that says how far it is."""
        seconds = time.monotonic() - self._began
        each = 1_000 * seconds * self._processes / max(self.runs, 1)
        return (
            f"{self.runs} of {len(self._seeds)} runs, {len(self.failures)} failed, "
            f"{seconds:.0f} s, {each:.0f} ms a run and core, {self._simulated:,.0f} s simulated"
        )

    def shrunk(self, failure: Outcome) -> str:
        """Return the least of a failing plan that still fails, and how."""
        determined.install()
        plan = shrink(failure.aim.plan(), failure.violations)
        found = simulate(plan).violations
        return "\n".join([str(plan), *(f"  -> {one}" for one in found[:5])])

    def _note(self, outcome: Outcome) -> None:
        self.runs += 1
        self.met.update(outcome.met)
        self.operations_min = min(self.operations_min, outcome.operations)
        self.faults_min = min(self.faults_min, outcome.faults)
        self._simulated += outcome.simulated_seconds
        if outcome.violations:
            self.failures.append(outcome)


def _begin() -> None:
    """Prepare a process that does nothing but simulate."""
    determined.install()
    gc.collect()
    gc.freeze()


def top_up(first: int, missing: Sequence[Cell]) -> list[Aim]:
    """Return runs that aim at one cell after another, from a seed on."""
    return [Aim(first + n, missing[n % len(missing)]) for n in range(TOP_UP_RUNS)]


def _run(aim: Aim) -> Outcome:
    plan = aim.plan()
    result = simulate(plan)
    return Outcome(
        aim,
        result.violations,
        dict(result.met),
        len(plan.operations),
        len(plan.faults),
        result.seconds,
    )


def show_table(met: Mapping[Cell, int]) -> None:
    """Print how often each kind of fault met each kind of step."""
    names = [step.name for step in every_step()]
    for number, name in enumerate(names):
        print(f"  {number:>2} {name}")
    print(" " * 17 + "".join(f"{n:>5}" for n in range(len(names))))
    possible = set(cells())
    for kind in KINDS:
        row = [
            f"{met.get((kind, name), 0):>5}" if (kind, name) in possible else "    -"
            for name in names
        ]
        print(f"{kind:<17}" + "".join(row))


def empty_cells(met: Mapping[Cell, int]) -> list[Cell]:
    """Return what never met."""
    return [cell for cell in cells() if not met.get(cell)]
