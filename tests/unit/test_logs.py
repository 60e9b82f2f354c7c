"""Log lines on a terminal: what a user wrote shows, and does nothing."""

import io
import json
import logging
import unicodedata
from collections.abc import Iterator
from typing import Any, cast

import pytest

from polyglot_persistence.telemetry import logger, set_up_logging

EVIL = [
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\x08\x08b",
    "\x7f",
    "\r12:00:00.000 INFO    api       all_is_well",
    "\n12:00:00.000 INFO    api       all_is_well",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\u2028x",
]


@pytest.fixture(params=["text", "json"])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What is logged in a test, in one of the two forms."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    set_up_logging("info", request.param, stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def _is_inert(text: str) -> bool:
    return not any(
        unicodedata.category(sign) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(sign)
        in ("RLO", "LRO", "RLI", "LRI", "PDI", "PDF", "RLE", "LRE")
        for sign in text
    )


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("place", ["field", "name", "message", "component"])
def test_no_field_reaches_the_terminal(written: io.StringIO, evil: str, place: str) -> None:
    """Wherever it stands in a line, and the line stays one line."""
    match place:
        case "field":
            logger("api").info("order_refused", name=evil)
        case "name":
            logger("api").info("order_refused", **cast("Any", {evil: 1}))
        case "message":
            logging.getLogger("library").warning(evil)
        case _:
            logger(evil).info("order_refused")
    line = written.getvalue()
    assert line.endswith("\n")
    assert _is_inert(line[:-1])


@pytest.mark.parametrize("evil", EVIL)
def test_no_traceback_reaches_the_terminal(written: io.StringIO, evil: str) -> None:
    """Nor can a line of an error's text pass for a line of the log."""
    error = RuntimeError(f"because of {evil}")
    error.__cause__ = ValueError(evil)
    error.add_note(evil)
    logger("api").error("request_failed", exc_info=error)
    first, *more = written.getvalue().rstrip("\n").split("\n")
    assert all(map(_is_inert, [first, *more]))
    assert all(line.startswith("    ") for line in more)
    if first.startswith("{"):
        assert evil in json.loads(first)["exception"]
        assert not more
    else:
        assert "RuntimeError: because of" in written.getvalue()


def test_what_is_harmless_stays_readable(written: io.StringIO) -> None:
    """Letters of any script, signs and pictures."""
    name = "Cr\u00e8me \u65e5\u672c\u9152 \u05e9\u05dc\u05d5\u05dd \U0001f375"
    logger("api").info("order_refused", name=name)
    assert name in written.getvalue()
