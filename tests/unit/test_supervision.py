"""When a child is started again, and when it is taken to hang."""

import itertools

import pytest

from polyglot_persistence.processes.supervision import (
    RESTART_PAUSE_SECONDS_MAX,
    RESTART_PAUSE_SECONDS_MIN,
    SILENT_LOOKS_MAX,
    STARTING_LOOKS_MAX,
    Supervision,
)

SILENT = SILENT_LOOKS_MAX - 1


@pytest.mark.parametrize(
    ("looks", "hangs"),
    [
        ([True] + [False] * SILENT, False),
        ([True] + [False] * (SILENT + 1), True),
        ([True] + [False] * SILENT + [True] + [False] * SILENT, False),
        ([False] * (STARTING_LOOKS_MAX - 1), False),
        ([False] * STARTING_LOOKS_MAX, True),
        ([False] * (STARTING_LOOKS_MAX - 1) + [True] + [False] * SILENT, False),
    ],
)
def test_a_child_hangs_after_so_many_silent_looks(looks: list[bool], *, hangs: bool) -> None:
    """Any sign of life begins the count anew; before the first one there is more patience."""
    supervision = Supervision()
    assert [supervision.hangs(is_alive=one) for one in looks][-1] is hangs


def test_a_successor_is_given_time_to_start() -> None:
    """What its predecessor was counted does not count against it."""
    supervision = Supervision()
    for is_alive in (True, *[False] * SILENT):
        supervision.hangs(is_alive=is_alive)
    supervision.started()
    assert not any(supervision.hangs(is_alive=False) for _ in range(STARTING_LOOKS_MAX - 1))


def test_pauses_grow_to_a_bound() -> None:
    """A child that always ends at once is not started without an end of pauses."""
    supervision = Supervision()
    pauses = [supervision.pause_seconds() for _ in range(12)]
    assert RESTART_PAUSE_SECONDS_MIN / 2 <= pauses[0] <= RESTART_PAUSE_SECONDS_MIN
    assert RESTART_PAUSE_SECONDS_MAX / 2 <= pauses[-1] <= RESTART_PAUSE_SECONDS_MAX
    assert all(later > earlier / 2 for earlier, later in itertools.pairwise(pauses))
