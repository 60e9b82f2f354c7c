"""What an audit counts, and how fast it may go."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.telemetry import DRIFT_FOUND, DRIFT_REPAIRED

Pace: TypeAlias = Callable[[int], Awaitable[bool]]
"""Told how many orders or entries were just compared; returns whether to go on, when it is time."""

for _drift in Drift:  # so that they are there from the start, at zero
    DRIFT_FOUND.labels(_drift.value)
    DRIFT_REPAIRED.labels(_drift.value)


class Tally:
    """Drift by kind, of one audit."""

    def __init__(self) -> None:
        self.found: Counter[Drift] = Counter()
        self.repaired: Counter[Drift] = Counter()

    def count(self, drift: Drift, found: int, repaired: int) -> None:
        """Add to both, here and in the metrics."""
        if not found:
            return
        self.found[drift] += found
        if repaired:
            self.repaired[drift] += repaired
        DRIFT_FOUND.labels(drift.value).inc(found)
        DRIFT_REPAIRED.labels(drift.value).inc(repaired)

    def not_repaired(self, drift: Drift, orders: int) -> None:
        """Take back what turned out not to have helped."""
        if orders:
            self.repaired[drift] -= orders

    @property
    def remaining(self) -> int:
        """How much was found and not repaired."""
        return self.found.total() - self.repaired.total()
