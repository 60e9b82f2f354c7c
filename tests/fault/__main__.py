"""`python -m tests.fault` (`make fault`): as many rounds as wanted; interrupted, it goes on."""

import argparse
import asyncio
import random
import signal
import sys
from statistics import median

from tests.fault.runs import play_rounds
from tests.fault.topologies import TOPOLOGIES
from tests.support.processes import REPOSITORY

INTERRUPTED = 130


def main() -> int:
    """Parse, play, and print one line for each deployment."""
    parser = argparse.ArgumentParser(prog="tests.fault", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument(
        "--deployment",
        choices=["embedded", "servers", "ha", *TOPOLOGIES],
        default="embedded",
        help="ha: the rounds for each store on several nodes, one after the other",
    )
    parser.add_argument("--only", default="", help="faults whose name holds this text")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    # Background jobs of a shell are made to ignore Ctrl-C. Either signal cancels the run, which
    # puts back what it moved and leaves no process behind; raising here would stop half of it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    deployments = TOPOLOGIES if chosen.deployment == "ha" else [chosen.deployment]
    try:
        return max(_run(one, chosen.rounds, chosen.seed, chosen.only) for one in deployments)
    except KeyboardInterrupt:
        print(f"interrupted; the same seed, {chosen.seed}, goes on")
        return INTERRUPTED


def _run(deployment: str, rounds: int, seed: int, only: str) -> int:
    name = f"{deployment}-{seed}{only and '-' + only}"
    state = REPOSITORY / ".cache" / "fault" / f"{name}.json"
    totals = asyncio.run(
        play_rounds(state, deployment, rounds, seed, lambda fault: only in fault.name)
    )
    print(f"{totals.reads} reads, {totals.void} void rounds; died at {totals.died_at}")
    if totals.rates:
        print(
            f"orders/s: {median(totals.rates):.0f} in the median round, {max(totals.rates)} at most"
        )
    longest = ", ".join(f"{fault} {s:.1f}" for fault, s in sorted(totals.whole_seconds.items()))
    print(f"longest time without a write with two copies, in seconds: {longest}")
    others = f"; {totals.other} others" if totals.other else ""
    print(f"{deployment}: {totals.line(seed)}{others}", flush=True)
    return 1 if totals.violated else 0


if __name__ == "__main__":
    sys.exit(main())
