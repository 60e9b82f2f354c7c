"""Thousands of simulated runs, each with the real flows and workers under faults."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import Campaign, empty_cells, show_table
from tests.simulation.plan import cells
from tests.simulation.scenario import OPERATIONS_MIN, make_plan

ROOT = Path(__file__).parents[2]
RUNS = 2_000
DIGESTED = 12


@pytest.mark.timeout(1_200)
def test_nothing_breaks_a_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """Every promise holds in each run, and each kind of fault met each kind of step."""
    campaign = Campaign(0, RUNS)
    for _ in campaign.outcomes():
        if len(campaign.failures) >= 3:
            break
    with capsys.disabled():
        print(f"\n{campaign.progress()}")
        show_table(campaign.met)
    failed = [f"seed {one.seed}: {'; '.join(one.violations[:3])}" for one in campaign.failures]
    assert not failed, "\n".join([*failed, campaign.shrunk(campaign.failures[0])])
    assert empty_cells(campaign.met) == []


def test_each_run_is_large_enough() -> None:
    """Two API processes and two workers at least, 40 operations, three faults."""
    for seed in range(200):
        plan = make_plan(seed, cells())
        assert plan.apis >= 2
        assert plan.workers >= 2
        assert len(plan.operations) >= OPERATIONS_MIN >= 40
        assert len(plan.faults) >= 3


def _digests(hash_seed: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--digests", "--runs", str(DIGESTED)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(re.findall(r"^seed (\d+): ([0-9a-f]{64})$", done.stdout, re.MULTILINE))


@pytest.mark.timeout(300)
def test_a_seed_decides_everything() -> None:
    """The trace is the same in another process, with another hash of every string."""
    first = _digests("1")
    assert len(first) == DIGESTED
    assert len(set(first.values())) == DIGESTED
    assert _digests("2") == first
