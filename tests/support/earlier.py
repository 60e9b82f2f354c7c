"""The program as it was at an earlier commit, run from the repository's history."""

import subprocess
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY

VERSION_0_1_0 = "f722066"
"""The version before this one, as it was when its number was given."""

BEFORE_LEAST_PRIVILEGE = VERSION_0_1_0
"""PostgreSQL ran as `nobody` in a directory that was `nobody`'s, everything else as root."""


def source_of(commit: str, directory: Path) -> Path:
    """Write the sources of a commit below the directory; return what PYTHONPATH has to name."""
    known = subprocess.run(
        ["git", "-C", REPOSITORY, "cat-file", "-e", f"{commit}^{{commit}}"],
        check=False,
        capture_output=True,
        timeout=60,
    )
    if known.returncode != 0:
        pytest.skip(f"this clone does not have the commit {commit}")
    archive = directory / "source.tar"
    subprocess.run(
        ["git", "-C", REPOSITORY, "archive", "--output", archive, commit, "src"],
        check=True,
        timeout=60,
    )
    subprocess.run(["tar", "-x", "-f", archive, "-C", directory], check=True, timeout=60)
    return directory / "src"
