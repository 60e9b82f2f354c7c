"""Counts of an audit, and its pace."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.telemetry import DRIFT_FOUND, DRIFT_REPAIRED

Pace: TypeAlias = Callable[[int], Awaitable[bool]]
"""Called after each chunk with its number of orders or entries. Throttles, then returns whether to
go on."""

for _drift in Drift:  # exports every kind from the start, at zero
    DRIFT_FOUND.labels(_drift.value)
    DRIFT_REPAIRED.labels(_drift.value)


class Tally:
    """Drift by kind, of one audit."""

    def __init__(self) -> None:
        self.found: Counter[Drift] = Counter()
        self.repaired: Counter[Drift] = Counter()

    def count(self, drift: Drift, found: int, repaired: int) -> None:
        """Add to the counts, here and in the metrics."""
        if not found:
            return
        self.found[drift] += found
        if repaired:
            self.repaired[drift] += repaired
        DRIFT_FOUND.labels(drift.value).inc(found)
        DRIFT_REPAIRED.labels(drift.value).inc(repaired)

    def not_repaired(self, drift: Drift, orders: int) -> None:
        """Uncount repairs that did not help."""
        if orders:
            self.repaired[drift] -= orders

    @property
    def remaining(self) -> int:
        """Return the number of differences found and not repaired."""
        return self.found.total() - self.repaired.total()
