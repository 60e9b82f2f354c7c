"""The audit, for the worker's loop and for the commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.bootstrap.stores import Stores, connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.behind.index import IndexFlow
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.watch.audit import AuditFlow
from polyglot_persistence.flows.watch.audit_cache import CacheAudit
from polyglot_persistence.flows.watch.audit_sales import SalesAudit
from polyglot_persistence.flows.watch.audit_search import SearchAudit
from polyglot_persistence.ports.audit import AuditedRecord
from polyglot_persistence.ports.clock import Clock

RANGE_ORDERS = 10_000
"""Compared by their sums together: some 40 ms of PostgreSQL's time."""


class Audit(NamedTuple):
    """What the commands use."""

    flow: AuditFlow
    sales: SalesAudit
    record: AuditedRecord
    indexing: IndexFlow


def audit_flow(stores: Stores, clock: Clock) -> AuditFlow:
    """Return the flow over the stores of a process."""
    record, contents, entries = stores.audit
    persist = PersistFlow(stores.record, stores.cache, clock)
    return AuditFlow(
        record,
        stores.record,
        search=SearchAudit(record, contents, clock, range_orders=RANGE_ORDERS),
        cache=CacheAudit(stores.cache, entries, stores.record, persist),
        sales=SalesAudit(record, stores.sales),
        clock=clock,
    )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Audit]:
    """Give the audit over the stores that the settings name; no API and no worker is needed."""
    stores = connect(settings)
    clock = SystemClock()
    try:
        await stores.migrate()
        yield Audit(
            audit_flow(stores, clock),
            SalesAudit(stores.audit.record, stores.sales),
            stores.audit.record,
            IndexFlow(stores.record, stores.search, clock),
        )
    finally:
        await stores.close()
