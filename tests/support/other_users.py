"""Other users of the machine, as whom root runs programs, and an interpreter that they reach."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")


def as_user(uid: int) -> list[str]:
    """Return the beginning of a command line that becomes this user."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def interpreter_for_all() -> str:
    """Return an interpreter of this version outside of any private home."""
    if not _is_open_to_all(REPOSITORY / "tests"):
        pytest.skip("this checkout lies in a private home: other users cannot read the test itself")
    version = ".".join(map(str, sys.version_info[:2]))
    for path in (Path(sys.executable).resolve(), Path(f"/usr/bin/python{version}")):
        if path.exists() and _is_open_to_all(path):
            return str(path)
    pytest.skip(f"no Python {version} that other users can reach")


def python_path(*first: Path) -> str:
    """Return a PYTHONPATH by which such an interpreter finds what this one does."""
    return os.pathsep.join([*map(str, first), *sys.path])


def _is_open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in path.parents)
