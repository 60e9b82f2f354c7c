"""How soon an order is in every store: searchable is the last stage, so its lag is the whole.

Counted where an order is indexed for the first time, with the time that the engine takes at most to
show it, and added up in the record by the hour. What is counted and not yet added up when a process
dies is lost; it is a statistic.
"""

from bisect import bisect_left
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import inf, log10

from polyglot_persistence.ports.audit import AuditedRecord, Freshness
from polyglot_persistence.telemetry import FRESHNESS_NINES, ORDERS_CONSISTENT

BOUNDS_SECONDS = (1, 5, 60)


class FreshnessCount:
    """Counts of one process, since they were last added up."""

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
            UnavailableError: the record is away; they are added up later.
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
    """Return the share of orders within each bound; all of none is 1."""
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
