"""Newline-delimited JSON, cut into lines."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.api.orders.ndjson import Line, LineSplitter

LIMIT = 8
BOM = b"\xef\xbb\xbf"
TEXT = st.lists(
    st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b" ", b"0123456", b"x" * 9, b"\xff", BOM])
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


def test_a_long_line_is_held_no_further_than_its_limit() -> None:
    """A line without an end costs no memory, and the next one is a line again."""
    splitter = LineSplitter(LIMIT)
    for _ in range(1_000):
        assert list(splitter.feed(b"x" * 1_000)) == []
        assert len(splitter._start) <= LIMIT + 4
    assert [Line(1, None), Line(2, b"{}")] == list(splitter.feed(b"\n{}\n"))
