"""Splits newline-delimited JSON into lines in bounded memory.

Invariant: whatever chunks the bytes arrive in, the lines are the same.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from polyglot_persistence.api.web.json_text import BYTE_ORDER_MARK

_GRACE_BYTES = len(BYTE_ORDER_MARK) + len(b"\r")
"""What stands beside a line's text and is not part of it."""

_BLANK_BEGINNINGS = frozenset({b"\n", b"\r", b" ", b"\t", b"\x0b", b"\x0c", BYTE_ORDER_MARK[:1]})


class Line(NamedTuple):
    """A line and its number; `text` is None if it was over the limit."""

    number: int
    text: bytes | None
    has_returns: bool = False
    """Whether one over the limit holds a carriage return before it is over."""


class LineSplitter:
    """Cuts a stream of bytes at its newlines; holds at most one line, up to its limit.

    A line ends with a line feed and nothing else; its number is `first_line` and how many of these
    came before it. Blank lines count but are not given out. A carriage return before the line feed
    is dropped, and so is a byte order mark before the text: at the beginning of a file, and where
    files were joined.
    """

    def __init__(self, line_bytes_max: int, first_line: int = 1) -> None:
        self._line_bytes_max = line_bytes_max
        self._number = first_line - 1
        self._start = bytearray()
        self._over = False
        self._has_returns = False
        # As `_take` finds them blank, in a fiftieth of the time.
        within = rb"[ \t\r\x0b\x0c]{0,%d}+\n" % line_bytes_max
        self._blank_lines = re.compile(b"(?:(?:%b)?+%b)++" % (BYTE_ORDER_MARK, within))

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Yield every line that ends in this chunk; to be exhausted before the next call."""
        begin = self._skip_blank_lines(chunk, 0)
        while (end := chunk.find(b"\n", begin)) >= 0:
            self._keep(chunk, begin, end)
            if line := self._take():
                yield line
            begin = self._skip_blank_lines(chunk, end + 1)
        self._keep(chunk, begin, len(chunk))

    def end(self) -> Iterator[Line]:
        """Yield the last line, if the stream did not end with a newline."""
        if (self._start or self._over) and (line := self._take()):
            yield line

    def _skip_blank_lines(self, chunk: bytes, begin: int) -> int:
        """Return where the next line begins that may hold something."""
        if self._start or self._over or chunk[begin : begin + 1] not in _BLANK_BEGINNINGS:
            return begin
        blank = self._blank_lines.match(chunk, begin)
        if blank is None:
            return begin
        self._number += chunk.count(b"\n", begin, blank.end())
        return blank.end()

    def _keep(self, chunk: bytes, begin: int, end: int) -> None:
        if self._over or len(self._start) + end - begin > self._line_bytes_max + _GRACE_BYTES:
            if not self._over:
                head = self._start + chunk[begin : min(end, begin + self._line_bytes_max)]
                self._has_returns = b"\r" in head[: self._line_bytes_max]
            self._over = True
            self._start.clear()
        else:
            self._start += chunk[begin:end]

    def _take(self) -> Line | None:
        self._number += 1
        text = bytes(self._start.removesuffix(b"\r").removeprefix(BYTE_ORDER_MARK))
        over = self._over or len(text) > self._line_bytes_max
        has_returns = self._has_returns or b"\r" in text[: self._line_bytes_max]
        self._has_returns = False
        self._start.clear()
        self._over = False
        if over:
            return Line(self._number, None, has_returns)
        return Line(self._number, text) if text and not text.isspace() else None
