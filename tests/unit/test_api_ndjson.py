"""Newline-delimited JSON, cut into lines."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.api.orders.ndjson import Line, LineSplitter

LIMIT = 8
BOM = b"\xef\xbb\xbf"
TEXT = st.lists(
    st.sampled_from(
        [
            b"a",
            b"bc",
            b"\n",
            b"\t\n\n",
            b"\x0c",
            b" " * 9,
            b"\r",
            b"\r\n",
            b" ",
            b"0123456",
            b"x" * 9,
            b"\xff",
            BOM,
        ]
    )
).map(b"".join)


def _split(chunks: list[bytes]) -> list[Line]:
    splitter = LineSplitter(LIMIT)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return [*lines, *splitter.end()]


def _expected(text: bytes) -> list[Line]:
    lines = []
    for number, raw in enumerate(text.split(b"\n"), 1):
        line = raw.removesuffix(b"\r").removeprefix(BOM)
        if len(line) > LIMIT:
            seen = line if len(raw) <= LIMIT + 4 else raw
            lines.append(Line(number, None, b"\r" in seen[:LIMIT]))
        elif line.strip():
            lines.append(Line(number, line))
    return lines


@given(TEXT, st.data())
def test_any_chunking_gives_the_same_lines(text: bytes, data: st.DataObject) -> None:
    """Wherever the network cuts the stream, its lines and their numbers are the same."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    edges = [0, *cuts, len(text)]
    chunks = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert _expected(text) == _split(chunks)


def test_blank_lines_count_but_are_not_given_out() -> None:
    """Numbers are those that an editor shows."""
    assert [Line(1, b"a"), Line(4, b"b")] == _split([b"a\r\n\n  \r\nb"])


class _Counted(LineSplitter):
    """Counts the lines that are looked at one by one."""

    looked_at = 0

    def _take(self) -> Line | None:
        self.looked_at += 1
        return super()._take()


@pytest.mark.parametrize(
    "blank", [b"\n", b"\r\n", b" \n", b"\t \x0b\n", BOM + b"\n", BOM + b"\r\n\n"]
)
def test_blank_lines_are_not_looked_at_one_by_one(blank: bytes) -> None:
    """A megabyte of them costs next to nothing."""
    splitter = _Counted(LIMIT)
    chunks = [blank * 1_000] * 100
    assert [line for chunk in chunks for line in splitter.feed(chunk)] == []
    assert splitter.looked_at == 0
    assert list(splitter.feed(b"a\n")) == [Line(100_000 * blank.count(b"\n") + 1, b"a")]


def test_a_long_line_is_held_no_further_than_its_limit() -> None:
    """A line without an end costs no memory, and the next one is a line again."""
    splitter = LineSplitter(LIMIT)
    for _ in range(1_000):
        assert list(splitter.feed(b"x" * 1_000)) == []
        assert len(splitter._start) <= LIMIT + 4
    assert [Line(1, None), Line(2, b"{}")] == list(splitter.feed(b"\n{}\n"))
