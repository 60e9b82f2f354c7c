"""What a bench found: figures of each round, medians and ratios, and whether a goal is met."""

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec


class Goal(msgspec.Struct):
    """A ratio to the peer of at least `value`, or a figure of at most or at least `value`."""

    kind: Literal["ratio", "at most", "at least"]
    value: float


class Figure(msgspec.Struct):
    """One line of the table: a value a round, for each side."""

    name: str
    unit: str
    product: Sequence[float]
    peer: Sequence[float] = ()
    goal: Goal | None = None
    higher_is_better: bool = True
    stored: int = 0
    """How many orders were stored before, where that is what is varied."""

    @property
    def ratios(self) -> Sequence[float]:
        """The ratio in each round: a slow moment of the machine slows both sides of it."""
        if len(self.product) == len(self.peer):
            return [ours / theirs for ours, theirs in zip(self.product, self.peer, strict=True)]
        if not self.peer:
            return []
        theirs = statistics.median(self.peer)
        return [ours / theirs for ours in self.product]

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the goal; None without one, or without the peer."""
        if self.goal is None or (self.goal.kind == "ratio" and not self.peer):
            return None
        if self.goal.kind == "ratio":
            return statistics.median(self.ratios) >= self.goal.value
        middle = statistics.median(self.product)
        at_most = self.goal.kind == "at most"
        return middle <= self.goal.value if at_most else middle >= self.goal.value


class Memory(msgspec.Struct):
    """Resident sets of one process during one bench, in MB."""

    process: str
    first: float
    last: float
    most: float


class BenchResult(msgspec.Struct):
    """One bench of one run."""

    name: str
    at: str
    commit: str
    seconds: float
    quick: bool
    figures: list[Figure]
    memory: list[Memory] = []
    machine: dict[str, str] = {}


def spread(values: Sequence[float]) -> str:
    """Return the median with least and most, as a table shows it."""
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} [{number(min(values))} to {number(max(values))}]"


def number(value: float) -> str:
    """Return a number with three significant digits and separated thousands."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
