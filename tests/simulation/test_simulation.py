"""Thousands of simulated runs, each with the real flows and workers under faults."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import Aim, Campaign, empty_cells, show_table, top_up
from tests.simulation.plan import cell_of, cell_text, cells
from tests.simulation.scenario import OPERATIONS, make_plan

ROOT = Path(__file__).parents[2]
RUNS = 2_000
DIGESTED = 24


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
    failed = [str(one) for one in campaign.failures]
    assert not failed, "\n".join([*failed, campaign.shrunk(campaign.failures[0])])
    assert empty_cells(campaign.met) == []


def test_each_run_is_large_enough() -> None:
    """Two API processes and two workers at least, 40 operations, three faults."""
    for seed in range(200):
        plan = make_plan(seed, cells())
        assert plan.apis >= 2
        assert plan.workers >= 2
        assert len(plan.operations) >= OPERATIONS >= 40
        assert len(plan.faults) >= 3


def _digests(aim: Aim, runs: int, hash_seed: str) -> list[str]:
    command = [sys.executable, "-m", "tests.simulation", "--digests", "--runs", str(runs)]
    done = subprocess.run(
        [*command, *shlex.split(str(aim))],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"^--seed .*: ([0-9a-f]{64})$", done.stdout, re.MULTILINE)


@pytest.mark.timeout(300)
def test_a_seed_decides_everything() -> None:
    """The trace is the same in another process, with another hash of every string."""
    first = _digests(Aim(0), DIGESTED, "1")
    assert len(set(first)) == DIGESTED
    assert _digests(Aim(0), DIGESTED, "2") == first


@pytest.mark.timeout(300)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_run_that_was_aimed_is_repeated_by_what_was_printed(n: int) -> None:
    """Whatever else was empty when the campaign aimed it."""
    missing = [("killed", "settle"), ("cache failover", "warm copy"), ("reply lost", "WAIT")]
    aim = top_up(2_000, missing)[n]
    (digest,) = _digests(aim, 1, "1")
    assert _digests(aim, 1, "2") == [digest]
    assert _digests(Aim(aim.seed), 1, "1") != [digest]
    faults = {(fault.kind, fault.step) for fault in aim.plan().faults}
    assert missing[n] in faults


def test_an_aim_is_read_as_it_is_printed() -> None:
    """Each cell of the table has one text; what is none is refused."""
    assert [cell_of(cell_text(cell)) for cell in cells()] == cells()
    with pytest.raises(ValueError, match="no fault"):
        cell_of("killed at noon")
