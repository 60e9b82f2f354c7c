"""What `docs/security.md` says of tests, settings and kinds of harm exists."""

import ast
import re

import pytest

from polyglot_persistence.config import load
from tests.hostile.attacking import KINDS
from tests.support.documents import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
STATES = {"met", "left", "not applicable"}


def _rows(section: str) -> list[list[str]]:
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PAGE))))
def test_a_test_that_is_named_exists(named: str) -> None:
    """Whoever renames one finds the page."""
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_settings_that_are_named_exist() -> None:
    """As the table of settings spells them."""
    known = {described.name for described in load({}).described}
    assert set(re.findall(r"`([A-Z][A-Z_]{3,})`", PAGE)) <= known


def test_kinds_that_are_named_exist() -> None:
    """Each bound is reached by at least one."""
    for row in _rows("Bounds"):
        named = re.findall(r"`(\w+)`", row[-1])
        assert named
        assert set(named) <= KINDS.keys()


def test_of_each_kind_it_is_said_what_it_did_before() -> None:
    """Once; a kind that did no harm says of itself that it is a guard."""
    text = PAGE.split("\n## What each kind did before\n")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(KINDS)
    guards = {name for name, one in KINDS.items() if one.harm.startswith("Guard: ")}
    assert guards == set(re.findall(r"`(\w+)`", rows[-1][0]))


@pytest.mark.parametrize("section", ["OWASP API Security Top 10 2023", "OWASP ASVS 5.0, level 2"])
def test_each_row_has_a_state_and_a_reason(section: str) -> None:
    """What is met is shown by a test; the rest says why."""
    rows = _rows(section)
    assert len(rows) >= 10
    for requirements, state, how in rows:
        assert state in STATES, requirements
        assert how, requirements
        assert state != "met" or "`tests/" in how, requirements


def test_no_requirement_is_judged_twice() -> None:
    """A number stands in one row, alone or within a range."""
    numbers = [
        number
        for row in _rows("OWASP ASVS 5.0, level 2")
        for number in re.findall(r"\d+\.\d+\.\d+", row[0])
    ]
    assert len(numbers) == len(set(numbers))
