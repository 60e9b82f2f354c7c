"""Audit of the sales, day by day, and their rebuild.

The transaction that inserts the orders also feeds the rollups, so a day's cells and the sums over
its orders agree in every snapshot. A rebuild corrects every difference, day after day while orders
come in. Each day is corrected in one step, so the rebuild adds no wrong figures of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.watch.audit_tally import Pace, Tally
from polyglot_persistence.ports.audit import AuditedRecord, SalesTotals
from polyglot_persistence.ports.sales import SalesView
from polyglot_persistence.telemetry import logger

_log = logger("audit")

_FIRST_DAY = date(1, 1, 2)
_DAY = timedelta(days=1)


@dataclass
class SalesAudit:
    """Compares the rollups with the record."""

    record: AuditedRecord
    view: SalesView

    async def run(self, tally: Tally, pace: Pace, *, repair: bool) -> None:
        """Compare every day; with `repair`, correct it and then refresh the view.

        Raises:
            UnavailableError: the record is away.
            UnknownOutcomeError: a repair's answer was lost; repair again.
        """
        day = await self.record.next_day(_FIRST_DAY)
        while day is not None:
            orders = await self._compare(day, tally, repair=repair)
            if not await pace(orders):
                break
            day = await self.record.next_day(day + _DAY)
        if tally.repaired[Drift.WRONG_QUARTER_HOUR]:
            await self.view.refresh()

    async def rebuild(self, tally: Tally, advance: Callable[[int], None]) -> SalesTotals:
        """Correct every day, refresh the view, and return the totals.

        Resumes a rebuild that was interrupted within the last hour, after its last day.

        Raises:
            UnavailableError: the record is away, or the totals still differ.
            UnknownOutcomeError: the answer to a day's correction was lost; run it again.
        """
        done = await self.record.rebuild_position()
        _log.info("sales_rebuild_begun", behind=done)
        day = await self.record.next_day(_FIRST_DAY if done is None else done + _DAY)
        while day is not None:
            advance(await self._compare(day, tally, repair=True))
            await self.record.keep_rebuild_position(day)
            day = await self.record.next_day(day + _DAY)
        await self.record.keep_rebuild_position(None)
        totals = await self.record.sales_totals()
        if not totals.equal:
            raise UnavailableError(
                "the sales do not add up to the orders: somebody else changed them; run it again"
            )
        await self.view.refresh()
        _log.info("sales_rebuilt", orders=totals.orders)
        return totals

    async def _compare(self, day: date, tally: Tally, *, repair: bool) -> int:
        found = await self.record.compare_day(day, repair=repair)
        hours, products = found.quarter_hours, found.product_days
        tally.count(Drift.WRONG_QUARTER_HOUR, hours, hours * found.repaired)
        tally.count(Drift.WRONG_PRODUCT_DAY, products, products * found.repaired)
        return found.orders
