"""What a failing plan is cut down to."""

from collections.abc import Sequence

import pytest

from tests.simulation.shrink import cut, kind_of


@pytest.mark.parametrize("needed", [set(), {3}, {0, 19}, {4, 5, 6, 17}])
def test_only_what_the_failure_needs_is_left(needed: set[int]) -> None:
    """Whatever can be left out is left out."""

    def fails(part: Sequence[int]) -> bool:
        return needed <= set(part)

    assert set(cut(range(20), fails)) == needed


def test_a_failure_is_known_by_its_kind() -> None:
    """Names and times differ from run to run."""
    first = kind_of(["lost: o1.0 (b4) is stored nowhere, known since 1.2 s"])
    assert first == kind_of(["lost: o7.3 (c5) is stored nowhere, known since 4.0 s"])
    assert first != kind_of(["denied: o1.0 (b4), known since 1.2 s, is answered 404"])
