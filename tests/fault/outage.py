"""PostgreSQL is away for long: `python -m tests.fault.outage --seconds 3600 --rate 500`.

Orders are accepted until the watermark, and refused from there on; memory is looked at meanwhile.
Then the record is back, everything is persisted, and the checkers count.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.fault.checkers import Verdict, check
from tests.fault.history import History, events
from tests.fault.load import Load
from tests.fault.rounds import settled
from tests.fault.runs import started
from tests.fault.systems import System
from tests.support.eventually import eventually_true
from tests.support.patience import patiently
from tests.support.processes import descendants

WARM_ORDERS = 1_000
LOOKS = 60
"""At the memory, spread over the outage; not more often than once a second."""
PAGE_KIB = 4


class Look(NamedTuple):
    """What was seen at one moment of the outage."""

    second: float
    acknowledged: int
    dirty: int
    api_mib: float
    workers_mib: float
    cache_mib: float

    def __str__(self) -> str:
        return (
            f"{self.second:6.0f} s: {self.acknowledged} acknowledged, {self.dirty} dirty; "
            f"API {self.api_mib:.0f} MiB, workers {self.workers_mib:.0f} MiB, "
            f"cache {self.cache_mib:.0f} MiB"
        )


class Outage(NamedTuple):
    """What came of it."""

    looks: Sequence[Look]
    drained_seconds: float
    verdict: Verdict


async def outage(
    deployment: str, *, seconds: float, orders_per_second: int, dirty_orders_max: int
) -> Outage:
    """Take the record away for so long, under load, and give it back."""
    async with started(deployment, DIRTY_ORDERS_MAX=str(dirty_orders_max)) as (system, _):
        path = system.directory / "history"
        with History(path) as history:
            load = Load(
                system.port,
                history,
                seed=f"outage-{seconds:.0f}",
                first_cents=1,
                pause_seconds=0.008,
                orders_per_second=orders_per_second,
            )
            async with load.going_on():
                await eventually_true(lambda: len(history.ids) >= WARM_ORDERS)
                record = system.stores["record"]
                await record.kill()
                looks = await _look_on(system, history, seconds)
                began = time.monotonic()
                await record.up()
        left = await settled(system)
        drained_seconds = time.monotonic() - began
        held = await patiently(system.held)
        # One client more than fits may be on its way in when the backlog is looked at.
        limit = dirty_orders_max + system.orders_in_flight_max
        verdict = await asyncio.to_thread(check, events(path), held, backlog_max=limit)
        return Outage(looks, drained_seconds, verdict.after(left, system.tracebacks()))


async def _look_on(system: System, history: History, seconds: float) -> list[Look]:
    began = time.monotonic()
    looks: list[Look] = []
    while (second := time.monotonic() - began) < seconds:
        dirty = await system.dirty()
        history.backlog(dirty)
        cache = await system.stores["cache"].pids()
        workers = [worker.pid for worker in system.workers]
        looks.append(
            Look(
                second,
                len(history.ids),
                dirty,
                resident_mib([system.api.pid]),
                resident_mib(workers),
                resident_mib(cache),
            )
        )
        print(looks[-1], flush=True)
        await asyncio.sleep(min(max(seconds / LOOKS, 1.0), seconds))
    return looks


def resident_mib(pids: Sequence[int | None]) -> float:
    """Return the resident memory of these processes and all below them."""
    total = 0
    for pid in pids:
        if pid is None:
            continue
        for one in {pid, *descendants(pid)}:
            try:
                total += int(Path(f"/proc/{one}/statm").read_text().split()[1])
            except (OSError, IndexError):
                continue  # it has just ended
    return total * PAGE_KIB / 1024


def main() -> int:
    """Parse, play, and print what was seen."""
    parser = argparse.ArgumentParser(prog="tests.fault.outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3_600)
    parser.add_argument("--rate", type=int, default=500, help="orders a second")
    parser.add_argument("--dirty-orders-max", type=int, default=200_000)
    parser.add_argument("--deployment", choices=["embedded", "servers"], default="embedded")
    chosen = parser.parse_args()
    came = asyncio.run(
        outage(
            chosen.deployment,
            seconds=chosen.seconds,
            orders_per_second=chosen.rate,
            dirty_orders_max=chosen.dirty_orders_max,
        )
    )
    half = came.looks[len(came.looks) // 2 :]
    print(
        f"second half of the outage: API {half[0].api_mib:.0f} to {half[-1].api_mib:.0f} MiB, "
        f"workers {half[0].workers_mib:.0f} to {half[-1].workers_mib:.0f} MiB; "
        f"drained {came.drained_seconds:.0f} s after PostgreSQL was started"
    )
    verdict = came.verdict
    for violation in verdict.violations[:20]:
        print(violation)
    counts = ", ".join(f"{kind} {verdict.count(kind)}" for kind in ("lost", "doubled", "false 404"))
    print(f"acknowledged {verdict.acknowledged}, {counts}, {len(verdict.violations)} violations")
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
