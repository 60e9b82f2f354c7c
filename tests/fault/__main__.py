"""`python -m tests.fault` (`make fault`): as many rounds as wanted; interrupted, it goes on."""

import argparse
import asyncio
import random
import signal
import sys
from statistics import median

from tests.fault.runs import play_rounds
from tests.support.processes import REPOSITORY

INTERRUPTED = 130


def main() -> int:
    """Parse, play, and print the one line."""
    parser = argparse.ArgumentParser(prog="tests.fault", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--deployment", choices=["embedded", "servers"], default="embedded")
    parser.add_argument("--only", default="", help="faults whose name holds this text")
    chosen = parser.parse_args()
    name = f"{chosen.deployment}-{chosen.seed}{chosen.only and '-' + chosen.only}"
    state = REPOSITORY / ".cache" / "fault" / f"{name}.json"
    print(f"seed {chosen.seed}", flush=True)
    # Background jobs of a shell are made to ignore Ctrl-C. Either signal cancels the run, which
    # puts back what it moved and leaves no process behind; raising here would stop half of it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    run = play_rounds(
        state,
        chosen.deployment,
        chosen.rounds,
        chosen.seed,
        lambda fault: chosen.only in fault.name,
    )
    try:
        totals = asyncio.run(run)
    except KeyboardInterrupt:
        print(f"interrupted; the same seed, {chosen.seed}, goes on")
        return INTERRUPTED
    print(f"{totals.reads} reads, {totals.void} void rounds; died at {totals.died_at}")
    if totals.rates:
        print(
            f"orders/s: {median(totals.rates):.0f} in the median round, {max(totals.rates)} at most"
        )
    print(totals.line(chosen.seed) + (f"; {totals.other} others" if totals.other else ""))
    return 1 if totals.violated else 0


if __name__ == "__main__":
    sys.exit(main())
