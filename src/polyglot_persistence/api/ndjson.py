"""Newline-delimited JSON, cut into lines in bounded memory.

Invariant: whatever chunks the bytes arrive in, the lines are the same.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Line(NamedTuple):
    """A line and its number; `text` is None if it was over the limit."""

    number: int
    text: bytes | None


class LineSplitter:
    """Cuts a stream of bytes at its newlines; holds at most one line, up to its limit.

    A line ends with a line feed and nothing else; its number is `first_line` and how many of these
    came before it. Blank lines count but are not given out. A carriage return before the line feed
    is dropped.
    """

    def __init__(self, line_bytes_max: int, first_line: int = 1) -> None:
        self._line_bytes_max = line_bytes_max
        self._number = first_line - 1
        self._start = bytearray()
        self._over = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Yield every line that ends in this chunk; to be exhausted before the next call."""
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            self._keep(chunk, begin, end)
            begin = end + 1
            if line := self._take():
                yield line
        self._keep(chunk, begin, len(chunk))

    def end(self) -> Iterator[Line]:
        """Yield the last line, if the stream did not end with a newline."""
        if (self._start or self._over) and (line := self._take()):
            yield line

    def _keep(self, chunk: bytes, begin: int, end: int) -> None:
        # One byte of grace, for a carriage return that is not part of the line.
        if self._over or len(self._start) + end - begin > self._line_bytes_max + 1:
            self._over = True
            self._start.clear()
        else:
            self._start += chunk[begin:end]

    def _take(self) -> Line | None:
        self._number += 1
        text = bytes(self._start.removesuffix(b"\r"))
        over = self._over or len(text) > self._line_bytes_max
        self._start.clear()
        self._over = False
        if over:
            return Line(self._number, None)
        return Line(self._number, text) if text and not text.isspace() else None
