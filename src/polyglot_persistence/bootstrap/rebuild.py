"""The rebuild of the search index, in a worker or alone for the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.bootstrap.stores import Stores, connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.projections.rebuild import RebuildFlow, RebuildLimits
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.leadership import Leadership


class Rebuilding(NamedTuple):
    """The flow, and the record that gives its role."""

    flow: RebuildFlow
    record: Leadership


def rebuild_flow(
    settings: Settings,
    stores: Stores,
    clock: Clock,
    orders_per_second_max: float | None = None,
) -> RebuildFlow:
    """Return the flow over the stores of a process, at the rate of the settings or another."""
    rate = orders_per_second_max or settings.search_rebuild_orders_per_second
    return RebuildFlow(
        stores.rebuild_record,
        stores.audit.record,
        stores.rebuild_target,
        stores.record,
        clock,
        limits=RebuildLimits(settings.index_batch_orders, rate),
    )


@asynccontextmanager
async def opened(
    settings: Settings, orders_per_second_max: float | None
) -> AsyncIterator[Rebuilding]:
    """Give the flow over the stores that the settings name; no API and no worker is needed."""
    stores = connect(settings)
    try:
        yield Rebuilding(
            rebuild_flow(settings, stores, SystemClock(), orders_per_second_max), stores.record
        )
    finally:
        await stores.close()
