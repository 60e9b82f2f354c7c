"""`make simulate`: many runs on all cores, the failures cut down, and what met what."""

import argparse
import sys
import time

from tests.simulation.campaign import Campaign, show_table
from tests.simulation.plan import cells
from tests.simulation.scenario import make_plan


def main() -> int:
    """Run, print, and return 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0, help="the first run's; the next is one more")
    parser.add_argument("--processes", type=int, default=0, help="0: one for each core")
    parser.add_argument("--failures", type=int, default=5, help="end after so many")
    parser.add_argument("--trace", action="store_true", help="print the plan and trace of one run")
    parser.add_argument("--digests", action="store_true", help="print a hash of each run's trace")
    parser.add_argument("--table", action="store_true", help="print what met what")
    options = parser.parse_args()
    if options.trace:
        return _trace(options.seed)
    if options.digests:
        return _digests(range(options.seed, options.seed + options.runs))
    campaign = Campaign(options.seed, options.runs, processes=options.processes)
    shown = time.monotonic()
    for outcome in campaign.outcomes():
        if outcome.violations:
            print(f"seed {outcome.seed}: {'; '.join(outcome.violations[:3])}", flush=True)
            if len(campaign.failures) >= options.failures:
                break
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(campaign.progress(), flush=True)
    print(campaign.progress())
    if options.table:
        show_table(campaign.met)
    for failure in campaign.failures[:2]:
        print(f"\nseed {failure.seed}, cut down:\n{campaign.shrunk(failure)}")
    return 1 if campaign.failures else 0


def _trace(seed: int) -> int:
    from tests.simulation import determined  # noqa: PLC0415
    from tests.simulation.runs import simulate  # noqa: PLC0415

    determined.install()
    plan = make_plan(seed, cells())
    print(plan)
    result = simulate(plan)
    for at, who, what in result.trace:
        print(f"{at:9.4f} {who:10} {what}")
    print(result.digest())
    print("\n".join(result.violations) or "nothing is wrong")
    return 1 if result.violations else 0


def _digests(seeds: range) -> int:
    from tests.simulation import determined  # noqa: PLC0415
    from tests.simulation.runs import simulate  # noqa: PLC0415

    determined.install()
    for seed in seeds:
        print(f"seed {seed}: {simulate(make_plan(seed, cells())).digest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
