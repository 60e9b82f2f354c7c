"""A worker process: five loops, and the order in which they end."""

import asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.bootstrap.process import prepare
from polyglot_persistence.bootstrap.stores import Stores, connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.cold_cache import Warming
from polyglot_persistence.flows.index import IndexFlow
from polyglot_persistence.flows.persist import PersistFlow
from polyglot_persistence.flows.sales import SalesFlow
from polyglot_persistence.flows.sweep import QueueProgress, SweepFlow
from polyglot_persistence.telemetry import logger
from polyglot_persistence.worker.indexer import Indexer, IndexerLimits
from polyglot_persistence.worker.persister import Persister, PersisterLimits
from polyglot_persistence.worker.refresher import refresh_forever
from polyglot_persistence.worker.sweeper import sweep_forever
from polyglot_persistence.worker.warmer import warm_forever

_log = logger("worker")


async def work(settings: Settings, stop: asyncio.Event) -> None:
    """Persist, index, sweep, warm and refresh until told to stop."""
    stores = connect(settings)
    indexer = Indexer(
        IndexFlow(stores.store, stores.search, SystemClock()),
        IndexerLimits(
            settings.index_batch_orders,
            settings.index_waiting_orders_max,
            settings.outbox_age_seconds,
            settings.outbox_interval_seconds,
        ),
    )
    persisted = asyncio.Event()
    try:
        await prepare(stores, stop)
        async with asyncio.TaskGroup() as indexing:
            indexing.create_task(indexer.run(persisted))
            await _persist(settings, stores, indexer, stop)
            persisted.set()  # nothing more is offered: index what waits, and end
    finally:
        await stores.close()
        _log.info("stopped")


async def _persist(
    settings: Settings, stores: Stores, indexer: Indexer, stop: asyncio.Event
) -> None:
    clock = SystemClock()
    persist = PersistFlow(stores.store, stores.cache, clock)
    progress = QueueProgress()
    persister = Persister(
        persist,
        queue=stores.queue,
        store=stores.store,
        offer=indexer.offer,
        progress=progress,
        clock=clock,
        limits=PersisterLimits(
            settings.persist_batch_orders,
            settings.consume_orders_max,
            # The last attempt may begin when the time is almost up.
            settings.delivery_hold_seconds_max - settings.persist_timeout_seconds,
        ),
    )
    sweep = SweepFlow(
        stores.cache,
        stores.queue,
        persist,
        progress,
        clock,
        age_seconds=settings.sweep_age_seconds,
        batch_orders_max=settings.sweep_batch_orders,
    )
    warming = Warming(
        stores.store, stores.cache, stores.queue, clock, quiet_seconds=settings.warm_quiet_seconds
    )
    sales = SalesFlow(stores.sales, clock)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(persister.run(stop))
        tasks.create_task(
            sweep_forever(
                sweep,
                stores.store,
                indexer.offer,
                stop,
                interval_seconds=settings.sweep_interval_seconds,
            )
        )
        tasks.create_task(warm_forever(warming, stores.store, stop))
        tasks.create_task(
            refresh_forever(sales, settings.mv_refresh_schedule, stores.store, clock, stop)
        )
