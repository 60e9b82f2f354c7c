"""The documents as tests read them: blocks of code, links, and answers that are alike.

A ```bash block is run; one with `no-test: REASON` behind the language is not. A block of another
language that follows a ```bash block is the answer to it.
"""

import itertools
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
)

_FENCE = re.compile(r"```(\S*) ?(.*)")

# Whatever differs from run to run; the order matters.
_VARIABLE = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<moment>"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "<day>"),
    (re.compile(r"(Date: ).*"), r"\1<date>"),
    (re.compile(r"(Content-Length: )\d+"), r"\1<length>"),
    (re.compile(r"cursor=[\w=-]+"), "cursor=<cursor>"),
    (re.compile(r"\b\d+\.\d+\.\d+\b|(?<=PostgreSQL )\d+\.\d+"), "<version>"),
)
_VARIABLE_KEYS = {"took_ms", "score", "next_cursor", "created_at"}


class Block(NamedTuple):
    """A fenced block of code, and where it begins."""

    page: Path
    line: int
    language: str
    info: str
    text: str

    @property
    def place(self) -> str:
        """Where a reader finds it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Example(NamedTuple):
    """A block to be run, and the answer that the document gives to it, if any."""

    command: Block
    answer: Block | None


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    lines = page.read_text().splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.fullmatch(lines[at])
        if fence is None:
            at += 1
            continue
        end = lines.index("```", at + 1)
        yield Block(page, at + 1, fence[1], fence[2], "\n".join(lines[at + 1 : end]))
        at = end + 1


def examples(page: Path) -> list[Example]:
    """Return the blocks of a page that are to be run, each with its answer."""
    found = [*blocks(page), None]
    return [
        Example(block, following if following and _is_answer(block, following) else None)
        for block, following in itertools.pairwise(found)
        if block and block.language == "bash" and not block.info
    ]


def _is_answer(command: Block, following: Block) -> bool:
    """Whether the second block follows the first with nothing but a blank line between."""
    end = command.line + command.text.count("\n") + 2
    return following.language != "bash" and following.line == end + 2


def without_code(page: Path) -> list[str]:
    """Return the lines of a page, those of code blank."""
    lines = page.read_text().splitlines()
    for block in blocks(page):
        for at in range(block.line - 1, block.line + block.text.count("\n") + 2):
            lines[at] = ""
    return lines


def alike(documented: str, actual: str, language: str) -> bool:
    """Whether an answer is the documented one, but for ids, times and the like."""
    if language != "json":
        return _general(documented) == _general(actual)
    try:
        return [_general_json(value) for value in _values(documented)] == [
            _general_json(value) for value in _values(actual)
        ]
    except json.JSONDecodeError:
        return False


def _general(text: str) -> str:
    for pattern, instead in _VARIABLE:
        text = pattern.sub(instead, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _general_json(value: Any) -> Any:
    match value:
        case str():
            return _general(value)
        case list():
            return [_general_json(one) for one in value]
        case dict():
            return {
                key: "<any>" if key in _VARIABLE_KEYS and one is not None else _general_json(one)
                for key, one in value.items()
            }
    return value


def _values(text: str) -> list[Any]:
    """Return the JSON values that follow one another in a text, numbers exact."""
    decoder = json.JSONDecoder(parse_float=Decimal)
    values, text = [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    return values
