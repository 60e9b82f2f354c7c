"""Freshness: how soon an order is in every store. Search is the last, so its lag is the whole.

An order is counted when it is first indexed, including the longest time that the engine takes to
show it. The record sums the counts by the hour. Counts not yet added when a process dies are lost;
they are a statistic.
"""

from bisect import bisect_left
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import inf, log10

from polyglot_persistence.ports.audit import AuditedRecord, Freshness
from polyglot_persistence.telemetry import FRESHNESS_NINES, ORDERS_CONSISTENT

BOUNDS_SECONDS = (1, 5, 60)


class FreshnessCount:
    """Counts of one process since they were last added to the record."""

    def __init__(self, *, shown_after_seconds: float) -> None:
        self._shown_after_seconds = shown_after_seconds
        self._counts = Freshness(0, 0, 0, 0)

    def note(self, accepted: Iterable[datetime], indexed_at: datetime) -> None:
        """Count orders that were just indexed for the first time."""
        ordered = sorted(accepted)
        shown_at = indexed_at + timedelta(seconds=self._shown_after_seconds)
        within = [
            len(ordered) - bisect_left(ordered, shown_at - timedelta(seconds=bound))
            for bound in BOUNDS_SECONDS
        ]
        for bound, orders in zip((*BOUNDS_SECONDS, "inf"), (*within, len(ordered)), strict=True):
            ORDERS_CONSISTENT.labels(str(bound)).inc(orders)
        counted = (len(ordered), *within)
        self._counts = Freshness(*[a + b for a, b in zip(self._counts, counted, strict=True)])

    async def add_up(self, record: AuditedRecord) -> None:
        """Add the counts to those of all processes.

        Raises:
            UnavailableError: the record is away; they are added later.
        """
        counts, self._counts = self._counts, Freshness(0, 0, 0, 0)
        if not counts.orders:
            return
        try:
            await record.count_freshness(counts)
        except BaseException:
            self._counts = Freshness(*[a + b for a, b in zip(self._counts, counts, strict=True)])
            raise


def shares(counts: Freshness) -> dict[int, float]:
    """Return the share of orders within each bound; 1 if there are no orders."""
    within = (counts.within_1s, counts.within_5s, counts.within_60s)
    return {
        bound: orders / counts.orders if counts.orders else 1.0
        for bound, orders in zip(BOUNDS_SECONDS, within, strict=True)
    }


def nines(share: float) -> float:
    """Return a share in nines: 0.999 is 3; infinite if none was late."""
    return inf if share >= 1 else abs(log10(1 - share))


def observe(counts: Freshness) -> None:
    """Set the gauges."""
    for bound, share in shares(counts).items():
        FRESHNESS_NINES.labels(str(bound)).set(nines(share))
