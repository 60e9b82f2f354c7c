"""A run: so many rounds of one seed, which may be interrupted and taken up again."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.fault.embedded_system import EmbeddedSystem
from tests.fault.failovers import of_topology
from tests.fault.faults import Fault, of_embedded, of_servers
from tests.fault.ha_system import HaSystem
from tests.fault.rounds import Series, Totals, deck
from tests.fault.servers_system import ServersSystem
from tests.fault.systems import System
from tests.fault.topologies import TOPOLOGIES
from tests.support.real_servers import empty_stores

ROUNDS_PER_SERIES = 8
"""Each check is of a whole series: this many rounds can be held in memory and compared quickly."""


async def play_rounds(
    state: Path, deployment: str, rounds: int, seed: int, wanted: Callable[[Fault], bool]
) -> Totals:
    """Play until so many rounds of this seed count, or one is violated; return the totals.

    `state` remembers what was done, and beside it lie history and logs of what was violated.
    """
    totals = Totals.load(state)
    while totals.rounds < rounds and not totals.violated:
        async with started(deployment) as (system, all_faults):
            series = Series(system, seed=seed, totals=totals)
            faults = list(filter(wanted, all_faults))
            for _ in range(ROUNDS_PER_SERIES):
                number = max(totals.done, default=-1) + 1
                try:
                    verdict = await series.play(number, deck(faults, seed, number))
                except Exception:
                    await asyncio.to_thread(_keep, system.directory, state)
                    raise
                totals.save(state)
                if verdict.violations:
                    await asyncio.to_thread(_keep, system.directory, state)
                if verdict.violations or totals.rounds >= rounds:
                    break
            codes = await system.stop()
            print(f"ended in order with {codes}")
            totals.other += sum(map(bool, codes))
            totals.save(state)
    return totals


@asynccontextmanager
async def started(deployment: str, **settings: str) -> AsyncIterator[tuple[System, list[Fault]]]:
    """Give a system with empty stores, ready, and its faults; it is gone afterwards."""
    async with AsyncExitStack() as resources:
        directory = Path(
            resources.enter_context(
                tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True)
            )
        )
        if deployment == "embedded":
            embedded = EmbeddedSystem(directory)
            system: System = embedded
            faults = of_embedded(embedded)
        elif deployment == "servers":
            on_servers = ServersSystem(
                directory, await resources.enter_async_context(empty_stores())
            )
            system = on_servers
            faults = of_servers(on_servers)
        else:
            topology = TOPOLOGIES[deployment]()
            addresses = await resources.enter_async_context(empty_stores())
            resources.push_async_callback(topology.wipe)
            await topology.start()
            system = HaSystem(directory, addresses, topology)
            faults = of_topology(topology)
        resources.push_async_callback(system.aclose)
        system.settings |= settings
        await system.start()
        yield system, faults


def _keep(directory: Path, state: Path) -> None:
    target = state.with_suffix("")
    target.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.is_file():
            shutil.copy(path, target)
    print(f"history and logs are kept in {target}")
