"""Daily sales, from the materialized view."""

from collections.abc import Sequence
from datetime import datetime

from polyglot_persistence.ports import Clock, DaySales, SalesView
from polyglot_persistence.telemetry import logger

_log = logger("sales")


class SalesFlow:
    """Reads and refreshes `daily_sales_mv`."""

    def __init__(self, view: SalesView, clock: Clock) -> None:
        self._view = view
        self._clock = clock

    async def latest_days(self, days_max: int) -> Sequence[DaySales]:
        """Return the latest UTC days that have sales, newest first, as of the last refresh."""
        return await self._view.latest_days(days_max)

    async def refresh(self, trigger: str) -> datetime:
        """Refresh the view and return the moment that it now is exact for."""
        refreshed_at = await self._view.refresh()
        _log.info("view_refreshed", trigger=trigger, as_of=refreshed_at.isoformat())
        return refreshed_at
