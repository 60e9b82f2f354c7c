"""The file of named statements."""

import re
from importlib import resources
from pathlib import Path

from polyglot_persistence.adapters import postgres
from polyglot_persistence.adapters.postgres.queries import QUERIES

SOURCES = "\n".join(
    path.read_text(encoding="utf-8") for path in Path(postgres.__file__).parent.glob("*.py")
)


def test_every_statement_has_a_purpose_in_one_line() -> None:
    """The first line after the name is a sentence, and there is no other comment line."""
    for name, text in QUERIES.items():
        purpose, *statement = text.strip().splitlines()
        assert re.fullmatch(r"-- [A-Z].*\.", purpose), name
        assert not any(line.startswith("--") for line in statement), name


def test_no_two_statements_have_one_name() -> None:
    """The second would silently be the only one."""
    text = resources.files("polyglot_persistence.adapters.postgres").joinpath("queries.sql")
    names = re.findall(r"^-- name: (.*)$", text.read_text(), re.MULTILINE)
    assert sorted(names) == sorted(QUERIES)


def test_every_statement_is_used() -> None:
    """A statement that no code names is dead."""
    assert [name for name in QUERIES if f'"{name}"' not in SOURCES] == []


def test_every_statement_ends_once() -> None:
    """Each is a single statement, as the extended protocol wants it."""
    for name, text in QUERIES.items():
        statement = "\n".join(text.strip().splitlines()[1:])
        assert statement.index(";") == len(statement) - 1, name
