"""The simulator finds what it is there for: bugs planted in the product, one at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.planted import BUGS, PLANTED, REVERTED, Bug

ROOT = Path(__file__).parents[2]
RUNS_MAX = 1_000


def _find(bug: Bug) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.planted", bug.name, "--runs", str(RUNS_MAX)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", PLANTED, ids=[bug.name for bug in PLANTED])
def test_a_planted_bug_is_found(bug: Bug) -> None:
    """One wrong line is seen within a bounded number of runs."""
    assert "seed" in _find(bug)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", REVERTED, ids=[bug.name for bug in REVERTED])
def test_a_reverted_mend_is_found(bug: Bug) -> None:
    """A fault that was mended would have been found before its mend."""
    assert "seed" in _find(bug)


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_bug_fits_the_code(bug: Bug) -> None:
    """The line that it replaces is there, once; else whoever changed it changes the bug as well."""
    path = ROOT / "src/polyglot_persistence" / f"{bug.module.replace('.', '/')}.py"
    assert path.read_text().count(bug.old) == 1


def test_there_are_enough_of_them() -> None:
    """Twenty mistakes, and eight faults that were mended."""
    assert len(PLANTED) >= 20
    assert len(REVERTED) >= 8
    assert len({bug.name for bug in (*PLANTED, *REVERTED)}) == len(PLANTED) + len(REVERTED)
