"""The audit: every store against the record, and the record against the cache's entries.

The cache comes first: orders that a restored record lost are persisted again before search is
compared.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple
from uuid import UUID

from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.watch.audit_cache import CacheAudit
from polyglot_persistence.flows.watch.audit_sales import SalesAudit
from polyglot_persistence.flows.watch.audit_search import SUSPECTS_MAX, SearchAudit
from polyglot_persistence.flows.watch.audit_tally import Pace, Tally
from polyglot_persistence.ports.audit import AuditedRecord, Freshness
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.record import RecordState
from polyglot_persistence.telemetry import AUDIT_SECONDS, AUDITED, logger

_log = logger("audit")

BEHIND_ORDERS_MAX = 50_000
"""With more orders waiting to be indexed, search is catching up and the comparison is skipped."""

EVERYTHING = frozenset(Drift)
UNATTENDED = EVERYTHING - {Drift.EXTRA_DOCUMENT}
"""Drift repaired without an operator. A document without an order may be all that is left of an
order after a restore, so an operator decides."""

WORK_OFF_SECONDS = 60.0
_PAUSE_SECONDS = 0.5


class Report(NamedTuple):
    """The result of an audit."""

    orders: int
    entries: int
    tally: Tally
    not_compared: dict[str, str]
    """Parts that could not be compared (to the end), with the reason."""
    freshness: Freshness | None
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether everything was compared and no drift is left."""
        return not self.not_compared and not self.tally.remaining


@dataclass
class AuditFlow:
    """Compares everything, part by part; a store that is away ends its part only."""

    record: AuditedRecord
    state: RecordState
    _: KW_ONLY
    search: SearchAudit
    cache: CacheAudit
    sales: SalesAudit
    clock: Clock

    async def run(
        self,
        pace: Pace,
        *,
        repaired: frozenset[Drift] = frozenset(),
        work_off: Callable[[], Awaitable[int]] | None = None,
    ) -> Report:
        """Compare all stores once, and repair drift of the given kinds.

        Orders missing from search go into the outbox. With `work_off`, which indexes some of them,
        this waits until all are indexed and compares again. `pace` may end the audit early.
        """
        started = self.clock.monotonic()
        tally = Tally()
        report = Report(0, 0, tally, {}, None, 0.0)
        orders = entries = 0

        async def compared(found: int) -> bool:
            nonlocal orders
            orders += found
            AUDITED.inc(found)
            return await pace(found)

        async def cache() -> None:
            nonlocal entries
            repair = Drift.LOST_ORDER in repaired
            entries = await self.cache.run(tally, pace, repair=repair)

        async def search() -> None:
            waiting = (await self.state.progress(dead_letters_max=0)).outbox_orders
            if waiting > BEHIND_ORDERS_MAX:
                report.not_compared["search"] = f"{waiting} orders wait to be indexed"
                return
            queued = await self.search.run(tally, compared, repaired=repaired)
            if queued and work_off is not None:
                await self._see_through(queued, tally, work_off)

        async def sales() -> None:
            repair = Drift.WRONG_QUARTER_HOUR in repaired
            await self.sales.run(tally, pace, repair=repair)

        for name, part in (("cache", cache), ("search", search), ("sales", sales)):
            try:
                await part()
            except PolyglotError as error:
                report.not_compared[name] = str(error)
        try:
            freshness = await self.record.freshness()
        except PolyglotError as error:
            report.not_compared["freshness"] = str(error)
            freshness = None
        seconds = self.clock.monotonic() - started
        AUDIT_SECONDS.set(seconds)
        done = report._replace(orders=orders, entries=entries, freshness=freshness, seconds=seconds)
        _tell(done)
        return done

    async def _see_through(
        self, queued: Sequence[UUID], tally: Tally, work_off: Callable[[], Awaitable[int]]
    ) -> None:
        """Return once the outbox holds none of the ids; uncount repairs that did not help."""
        deadline = self.clock.monotonic() + WORK_OFF_SECONDS
        for start in range(0, len(queued), SUSPECTS_MAX):
            ids = queued[start : start + SUSPECTS_MAX]
            while (await self.record.standing(ids)).waiting:
                if self.clock.monotonic() > deadline:
                    break
                try:
                    worked_off = await work_off()
                except PolyglotError:  # a worker that reaches the index will do it
                    worked_off = 0
                if not worked_off:
                    await self.clock.sleep(_PAUSE_SECONDS)
            waiting = (await self.record.standing(ids)).waiting
            left = (await self.search.differing([i for i in ids if i not in waiting])).by_kind()
            for drift, still in left.items():
                tally.not_repaired(drift, len(still))
            if waiting:
                _log.warning("repairs_wait", orders=len(waiting))


def _tell(report: Report) -> None:
    found = {drift.value: n for drift, n in report.tally.found.items() if n}
    repaired = {drift.value: n for drift, n in report.tally.repaired.items() if n}
    fields: dict[str, Any] = {"orders": report.orders, "entries": report.entries, "found": found}
    if found or report.not_compared:
        _log.warning(
            "drift_found", **fields, repaired=repaired, not_compared=report.not_compared or None
        )
    else:
        _log.info("audited", **fields, seconds=round(report.seconds, 3))
