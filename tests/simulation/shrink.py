"""Cut a failing plan down: fewer operations, fewer faults, as long as the same kind of thing fails.

Delta debugging (Zeller and Hildebrandt, 2002): leave out halves, then quarters, and so on.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.simulation.plan import Plan
from tests.simulation.runs import simulate

Item = TypeVar("Item")


def kind_of(violations: Sequence[str]) -> str:
    """Return what kind of thing is wrong first: its beginning, without names and times."""
    return " ".join(word for word in violations[0].split()[:2] if word.isalpha() or ":" in word)


def shrink(plan: Plan, violations: Sequence[str], *, runs_max: int = 400) -> Plan:
    """Return a plan that fails in the same way, from which no single part can be left out."""
    wanted = kind_of(violations)
    left = runs_max

    def fails(candidate: Plan) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            return False
        found = simulate(candidate).violations
        return any(kind_of([one]) == wanted for one in found)

    while True:
        fewer = _without_parts(plan, fails)
        calm = fewer._replace(clock_offsets=(0.0,) * len(fewer.clock_offsets))
        if calm != fewer and fails(calm):
            fewer = calm
        if left < 0 or fewer == plan:
            return fewer
        plan = fewer


def _without_parts(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    faults = cut(plan.faults, lambda part: fails(plan._replace(faults=part)))
    fewer = plan._replace(faults=faults)
    operations = cut(plan.operations, lambda part: fails(fewer._replace(operations=part)))
    return fewer._replace(operations=operations)


def cut(items: Sequence[Item], fails: Callable[[Sequence[Item]], bool]) -> Sequence[Item]:
    """Return the items that are needed for a failure: without any one of them it is gone."""
    size = max(1, len(items) // 2)
    while items:
        start, is_cut = 0, False
        while start < len(items):
            rest = [*items[:start], *items[start + size :]]
            if fails(rest):
                items, is_cut = rest, True
            else:
                start += size
        if not is_cut and size == 1:
            break
        size = max(1, size // 2)
    return items
