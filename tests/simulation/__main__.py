"""`make simulate`: many runs on all cores, the failures cut down, and what met what."""

import argparse
import sys
import time
from collections.abc import Sequence

from tests.simulation.campaign import Aim, Campaign, show_table
from tests.simulation.plan import cell_of


def main() -> int:
    """Run, print, and return 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0, help="the first run's; the next is one more")
    parser.add_argument("--processes", type=int, default=0, help="0: one for each core")
    parser.add_argument("--failures", type=int, default=5, help="end after so many")
    parser.add_argument("--trace", action="store_true", help="print the plan and trace of one run")
    parser.add_argument(
        "--aim", type=cell_of, help="the cell that a run with --trace or --digests aims at, if one"
    )
    parser.add_argument("--digests", action="store_true", help="print a hash of each run's trace")
    parser.add_argument("--table", action="store_true", help="print what met what")
    options = parser.parse_args()
    if options.trace:
        return _trace(Aim(options.seed, options.aim))
    if options.digests:
        return _digests([Aim(options.seed + n, options.aim) for n in range(options.runs)])
    campaign = Campaign(options.seed, options.runs, processes=options.processes)
    shown = time.monotonic()
    for outcome in campaign.outcomes():
        if outcome.violations:
            print(outcome, flush=True)
            if len(campaign.failures) >= options.failures:
                break
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(campaign.progress(), flush=True)
    print(campaign.progress())
    if options.table:
        show_table(campaign.met)
    for failure in campaign.failures[:2]:
        print(f"\n{failure.aim}, cut down:\n{campaign.shrunk(failure)}")
    return 1 if campaign.failures else 0


def _trace(aim: Aim) -> int:
    from tests.simulation import determined  # noqa: PLC0415
    from tests.simulation.runs import simulate  # noqa: PLC0415

    determined.install()
    plan = aim.plan()
    print(plan)
    result = simulate(plan)
    for at, who, what in result.trace:
        print(f"{at:9.4f} {who:10} {what}")
    print(result.digest())
    print("\n".join(result.violations) or "nothing is wrong")
    return 1 if result.violations else 0


def _digests(aims: Sequence[Aim]) -> int:
    from tests.simulation import determined  # noqa: PLC0415
    from tests.simulation.runs import simulate  # noqa: PLC0415

    determined.install()
    for aim in aims:
        print(f"{aim}: {simulate(aim.plan()).digest()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
