"""A run: so many rounds of one seed, which may be interrupted and taken up again."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fault.faults import of_embedded
from tests.fault.rounds import Series, Totals, deck
from tests.fault.systems import EmbeddedSystem, System

ROUNDS_PER_SERIES = 8
"""Each check is of a whole series: this many rounds can be held in memory and compared quickly."""


async def play_rounds(state: Path, deployment: str, rounds: int, seed: int, only: str) -> Totals:
    """Play until so many rounds of this seed count, or one is violated; return the totals.

    `state` remembers what was done, and beside it lie history and logs of what was violated.
    """
    totals = Totals.load(state)
    while totals.rounds < rounds and not totals.violated:
        async with started(deployment) as system:
            series = Series(system, seed=seed, totals=totals)
            faults = [fault for fault in of_embedded(system) if only in fault.name]
            for _ in range(ROUNDS_PER_SERIES):
                number = max(totals.done, default=-1) + 1
                verdict = await series.play(number, deck(faults, seed, number))
                totals.save(state)
                if verdict.violations:
                    kept = state.with_suffix("")
                    await asyncio.to_thread(_keep, system.directory, kept)
                    print(f"history and logs are kept in {kept}")
                if verdict.violations or totals.rounds >= rounds:
                    break
    return totals


@asynccontextmanager
async def started(_deployment: str) -> AsyncIterator[System]:
    """Give a system with empty stores, ready; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True) as directory:
        system = EmbeddedSystem(Path(directory))
        try:
            await system.start()
            yield system
        finally:
            await system.aclose()


def _keep(directory: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.is_file():
            shutil.copy(path, target)
