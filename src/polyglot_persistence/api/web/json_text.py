"""Decodes JSON from files and other programs, and explains what is wrong with it.

Invariant: an error message is this project's own, with line and column as editors count them.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from polyglot_persistence.errors import MalformedError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Excel, Notepad and Windows PowerShell begin UTF-8 with it; RFC 8259, 8.1 lets readers skip it."""

_UTF_32_BEGINNINGS = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff", b"\x00\x00\x00")
_UTF_16_BEGINNINGS = (b"\xff\xfe", b"\xfe\xff")
_FILE_BEGINNINGS = (
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip file, as those of spreadsheets are"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"%PDF", "a PDF"),
)
_HEAD_BYTES = 4

# Beginnings of the standard library's messages, and our wording.
_FAULTS = (
    ("Expecting value", "a value is missing"),
    ("Expecting property name", "a field's name in double quotes is missing"),
    ("Expecting ',' delimiter", "a comma or a closing bracket is missing"),
    ("Expecting ':' delimiter", "a colon is missing"),
    ("Illegal trailing comma", "there is a comma before a closing bracket"),
    ("Extra data", "there is more text after the value"),
    ("Unterminated string", "a string is not closed"),
    ("Invalid control character", "a string contains a control character"),
    ("Invalid \\", "a string contains an invalid escape"),
    ("Unexpected UTF-8 BOM", "it starts with two byte order marks"),
)


class Number(str):
    """A JSON number as text; its type distinguishes it from a JSON string."""

    __slots__ = ()


def foreign_form(body: bytes) -> str:
    """Return the form of a body that is not UTF-8 text; empty if its first bytes do not show it."""
    for beginning, name in _FILE_BEGINNINGS:
        if body.startswith(beginning):
            return name
    if body.startswith(_UTF_32_BEGINNINGS) or b"\x00\x00" in body[:_HEAD_BYTES]:
        return "text in UTF-32"
    # JSON begins with two characters of ASCII, so that a zero byte tells (RFC 4627, section 3).
    if body.startswith(_UTF_16_BEGINNINGS) or b"\x00" in body[:_HEAD_BYTES]:
        return "text in UTF-16, as some Windows programs write it"
    return ""


def plain_values(body: bytes) -> Any:
    """Return JSON as plain values, with its numbers as their text; a byte order mark is skipped.

    An object is a tuple of its members, names and values, for a name may be there twice.

    The standard library's parser, because it lets through what JSON's grammar allows and this
    project does not: an escaped lone surrogate is a broken rule, not a broken body.

    Raises:
        MalformedError: it is not valid JSON in UTF-8.
    """
    if form := foreign_form(body):
        raise MalformedError(f"not JSON in UTF-8 but {form}")
    content = body.removeprefix(BYTE_ORDER_MARK)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        place = len(body) - len(content) + error.start
        raise MalformedError(f"not UTF-8 (byte {place})") from error
    try:
        return json.loads(
            text,
            object_pairs_hook=tuple,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_number,
        )
    except json.JSONDecodeError as error:
        raise MalformedError(
            f"not valid JSON: {_fault(error.msg)} ({_place(text, error.pos)})"
        ) from error
    except RecursionError as error:
        raise MalformedError("nested too deeply") from error


def twice(members: Sequence[tuple[str, Any]]) -> Sequence[str]:
    """Return the names that occur more than once in an object.

    Which of their values counts would be for each reader to choose (RFC 8259, section 4), so that
    two programs would read two orders.
    """
    counts = Counter(name for name, _ in members)
    return [name for name, count in counts.items() if count > 1]


def pointer_step(field: str) -> str:
    """Return a field name as a step of a JSON pointer, cut to 64 characters."""
    printable = field[:64].encode(errors="backslashreplace").decode()
    return printable.replace("~", "~0").replace("/", "~1")


def _no_number(text: str) -> None:
    raise MalformedError(f"not valid JSON: {text} is not a number")


def _fault(message: str) -> str:
    for beginning, fault in _FAULTS:
        if message.startswith(beginning):
            return fault
    return "the syntax is wrong"


def _place(text: str, position: int) -> str:
    """Return line and column, both from 1, whichever way the text's lines end."""
    ends = text.count("\n", 0, position) + text.count("\r", 0, position)
    ends -= text.count("\r\n", 0, position)
    begin = max(text.rfind("\n", 0, position), text.rfind("\r", 0, position)) + 1
    return f"line {ends + 1}, column {position - begin + 1}"
