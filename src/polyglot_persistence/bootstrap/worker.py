"""A worker process: its loops, its small server, and the order in which they end."""

import asyncio
from functools import partial
from typing import NamedTuple

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.api.protocol.server import listen
from polyglot_persistence.bootstrap.access import access_of, keep_keys_current
from polyglot_persistence.bootstrap.boundary import front_of, http_limits
from polyglot_persistence.bootstrap.observed import observed
from polyglot_persistence.bootstrap.operating import Operating
from polyglot_persistence.bootstrap.process import prepare, serve_itself, watch_stores
from polyglot_persistence.bootstrap.stores import Stores, connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.behind.freshness import FreshnessCount
from polyglot_persistence.flows.behind.index import IndexFlow
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.behind.sweep import QueueProgress, SweepFlow
from polyglot_persistence.flows.projections.first_index import FirstIndex
from polyglot_persistence.flows.projections.sales import SalesFlow
from polyglot_persistence.flows.reading.cold_cache import Warming, end_warming
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.processes.heartbeat import Parent
from polyglot_persistence.telemetry import logger
from polyglot_persistence.worker.auditor import Throttle, add_up_forever, audit_forever
from polyglot_persistence.worker.indexer import Indexer
from polyglot_persistence.worker.persister import Persister
from polyglot_persistence.worker.rebuilder import make_first, rebuild_forever
from polyglot_persistence.worker.refresher import refresh_forever
from polyglot_persistence.worker.sweeper import sweep_forever
from polyglot_persistence.worker.warmer import warm_forever

_log = logger("worker")


class _Persisting(NamedTuple):
    """What brings orders into the record: from the queue, and what it shares with the sweeper."""

    flow: PersistFlow
    progress: QueueProgress
    persister: Persister
    indexer: Indexer
    freshness: FreshnessCount


async def work(parent: Parent, settings: Settings, stop: asyncio.Event) -> None:
    """Persist, index, sweep, warm and refresh until told to stop.

    On `worker_port` it serves its metrics and health meanwhile, also while no store is there. Once
    it consumes, it announces so to its parent.
    """
    listener = listen(settings.api_host, settings.worker_port) if settings.worker_port else None
    stores = observed(connect(settings))
    clock = SystemClock()
    persisting = _persisting(settings, stores, clock)
    consuming = persisting.persister.consuming
    ended = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            if listener is not None:
                access = access_of(settings, clock)
                health = HealthFlow(stores.pingable(), consuming.is_set)
                tasks.create_task(keep_keys_current(settings, access, ended))
                tasks.create_task(
                    serve_itself(
                        health,
                        access,
                        listener,
                        limits=http_limits(settings),
                        front=front_of(settings),
                        stop=ended,
                    )
                )
            tasks.create_task(watch_stores(stores, clock, ended))
            announcing = tasks.create_task(parent.announce(consuming))
            await _work(settings, stores, clock, persisting, stop)
            announcing.cancel()  # without effect if it is done
            ended.set()
    finally:
        await stores.close()
        _log.info("stopped")


async def work_on(settings: Settings, stores: Stores, clock: Clock, stop: asyncio.Event) -> None:
    """Do a worker's whole work on any stores, by any clock, until told to stop."""
    await _work(settings, stores, clock, _persisting(settings, stores, clock), stop)


def _persisting(settings: Settings, stores: Stores, clock: Clock) -> _Persisting:
    freshness = FreshnessCount(shown_after_seconds=stores.audit.contents.shown_after_seconds)
    flow = PersistFlow(stores.store, stores.cache, clock)
    progress = QueueProgress()
    indexer = Indexer(
        IndexFlow(stores.store, stores.search, clock, freshness=freshness),
        settings.index,
    )
    persister = Persister(
        flow,
        queue=stores.queue,
        store=stores.store,
        end_warming=partial(end_warming, stores.cache, stores.store),
        offer=indexer.offer,
        progress=progress,
        clock=clock,
        limits=settings.persist,
    )
    return _Persisting(flow, progress, persister, indexer, freshness)


async def _work(
    settings: Settings,
    stores: Stores,
    clock: Clock,
    persisting: _Persisting,
    stop: asyncio.Event,
) -> None:
    persisted = asyncio.Event()
    await prepare(stores, clock, stop)
    async with asyncio.TaskGroup() as indexing:
        indexing.create_task(persisting.indexer.run(persisted))
        indexing.create_task(add_up_forever(persisting.freshness, stores.audit.record, persisted))
        await _persist(settings, stores, clock, persisting, stop)
        persisted.set()  # nothing more is offered: index what waits, and end


async def _persist(
    settings: Settings,
    stores: Stores,
    clock: Clock,
    persisting: _Persisting,
    stop: asyncio.Event,
) -> None:
    sweep = SweepFlow(
        stores.cache,
        stores.queue,
        persisting.flow,
        persisting.progress,
        clock,
        age_seconds=settings.sweep_age_seconds,
        batch_orders_max=settings.sweep_batch_orders,
    )
    sales = SalesFlow(stores.sales, clock)
    operating = Operating(settings, stores, clock)
    rebuild = operating.rebuild
    first = FirstIndex(stores.store, stores.search)
    await make_first(rebuild, first, stores.store, stop)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(persisting.persister.run(stop))
        tasks.create_task(
            sweep_forever(
                sweep,
                stores.store,
                persisting.indexer.offer,
                stop,
                interval_seconds=settings.sweep_interval_seconds,
            )
        )
        tasks.create_task(
            rebuild_forever(
                rebuild,
                first,
                stores.store,
                stop,
                interval_seconds=settings.index.outbox_interval_seconds,
            )
        )
        tasks.create_task(warm_forever(_warming(settings, stores, clock), stores.store, stop))
        tasks.create_task(
            refresh_forever(sales, settings.mv_refresh_schedule, stores.store, clock, stop)
        )
        if settings.audit_interval_seconds:
            throttle = Throttle(clock, stop, orders_per_second=settings.audit_orders_per_second)
            tasks.create_task(
                audit_forever(
                    operating.audit,
                    stores.store,
                    throttle,
                    stop,
                    interval_seconds=settings.audit_interval_seconds,
                )
            )


def _warming(settings: Settings, stores: Stores, clock: Clock) -> Warming:
    return Warming(
        stores.store,
        stores.cache,
        stores.queue,
        clock,
        quiet_seconds=settings.warm_quiet_seconds,
        hold_seconds_max=settings.persist.delivery_hold_seconds_max,
    )
