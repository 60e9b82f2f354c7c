"""Which positions of a record's history prove that nothing was lost."""

import pytest

from polyglot_persistence.domain.history import Position


@pytest.mark.parametrize(
    ("position", "follows"),
    [
        (Position("1.00000001", 101), True),
        (Position("1.00000001", 100), True),
        (Position("1.00000001", 99), False),
        (Position("1.00000002", 101), False),
        (Position("2.00000001", 101), False),
        (Position("", 101), False),
    ],
)
def test_a_position_follows_on_its_own_branch_only(position: Position, *, follows: bool) -> None:
    """A database that was promoted, restored or set back may lack commits."""
    assert position.follows(Position("1.00000001", 100)) is follows


@pytest.mark.parametrize("position", [Position("16384.00000001", 0), Position("a b c", 2**62)])
def test_a_position_is_read_as_it_was_written(position: Position) -> None:
    """Whatever its branch."""
    assert Position.decode(position.encode()) == position


@pytest.mark.parametrize(
    "text", ["", "1", " 1", "1.1 ", "1.1 x", "1.1 -3", "1.1 \u0663", "1.1 1.5"]
)
def test_another_text_is_no_position(text: str) -> None:
    """A newer version, or anybody, may have written it."""
    assert Position.decode(text) is None
