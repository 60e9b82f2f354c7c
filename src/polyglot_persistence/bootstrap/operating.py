"""The flows of operators: in the processes, and alone over the stores for the commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.bootstrap.stores import Stores, connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.behind.dead_letters import DeadLetterFlow
from polyglot_persistence.flows.behind.index import IndexFlow
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.projections.rebuild import RebuildFlow
from polyglot_persistence.flows.watch.audit import AuditFlow
from polyglot_persistence.flows.watch.audit_cache import CacheAudit
from polyglot_persistence.flows.watch.audit_sales import SalesAudit
from polyglot_persistence.flows.watch.audit_search import SearchAudit
from polyglot_persistence.flows.watch.heal import HealFlow
from polyglot_persistence.ports.clock import Clock

RANGE_ORDERS = 10_000
"""Compared by their sums together: some 40 ms of PostgreSQL's time."""

LEAVE_SECONDS = 10.0
"""Time within which every process leaves a former primary of PostgreSQL."""


class Operating:
    """The flows over the stores of a process; each is made when it is first used."""

    def __init__(self, settings: Settings, stores: Stores, clock: Clock) -> None:
        self.stores = stores
        self._settings = settings
        self._clock = clock
        self._persist = PersistFlow(stores.record, stores.cache, clock)

    @cached_property
    def dead_letters(self) -> DeadLetterFlow:
        """Lists, replays and discards dead letters."""
        stores = self.stores
        return DeadLetterFlow(stores.letters, stores.record, stores.cache, self._persist)

    @cached_property
    def index(self) -> IndexFlow:
        """Works off the outbox."""
        return IndexFlow(self.stores.record, self.stores.search, self._clock)

    @cached_property
    def rebuild(self) -> RebuildFlow:
        """Rebuilds the search index."""
        stores = self.stores
        return RebuildFlow(
            stores.rebuild_record,
            stores.audit.record,
            stores.rebuild_target,
            stores.record,
            self._clock,
            limits=self._settings.index,
        )

    @cached_property
    def sales(self) -> SalesAudit:
        """Compares and rebuilds the rollups of the sales."""
        return SalesAudit(self.stores.audit.record, self.stores.sales)

    @cached_property
    def heal(self) -> HealFlow:
        """Persists again what the record lost and the cache holds."""
        stores = self.stores
        hold_seconds_max = self._settings.persist.delivery_hold_seconds_max
        return HealFlow(
            stores.record,
            stores.audit.entries,
            self._cache_audit,
            self._clock,
            again_after_seconds=hold_seconds_max + LEAVE_SECONDS,
        )

    @cached_property
    def _cache_audit(self) -> CacheAudit:
        stores = self.stores
        return CacheAudit(stores.cache, stores.audit.entries, stores.record, self._persist)

    @cached_property
    def audit(self) -> AuditFlow:
        """Compares every store with the record."""
        stores, (record, contents, _) = self.stores, self.stores.audit
        return AuditFlow(
            record,
            stores.record,
            search=SearchAudit(record, contents, self._clock, range_orders=RANGE_ORDERS),
            cache=self._cache_audit,
            sales=self.sales,
            clock=self._clock,
        )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Operating]:
    """Give the flows over the stores that the settings name; no API and no worker is needed."""
    stores = connect(settings)
    try:
        yield Operating(settings, stores, SystemClock())
    finally:
        await stores.close()
