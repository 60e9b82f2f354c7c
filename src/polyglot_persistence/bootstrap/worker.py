"""A worker process: its loops, its small server, and the order in which they end."""

import asyncio
from functools import partial

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.api.protocol.server import listen
from polyglot_persistence.bootstrap.access import access_of, keep_keys_current
from polyglot_persistence.bootstrap.boundary import raise_files_max
from polyglot_persistence.bootstrap.observed import observed
from polyglot_persistence.bootstrap.operating import Operating
from polyglot_persistence.bootstrap.process import leave, prepare, serve_itself, watch_stores
from polyglot_persistence.bootstrap.stores import Stores, connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.behind.freshness import FreshnessCount
from polyglot_persistence.flows.behind.index import IndexFlow
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.behind.sweep import QueueProgress, SweepFlow
from polyglot_persistence.flows.projections.sales import SalesFlow
from polyglot_persistence.flows.reading.cold_cache import Warming, end_warming
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.processes.heartbeat import Parent
from polyglot_persistence.telemetry import logger
from polyglot_persistence.worker.auditor import Throttle, add_up_forever, audit_forever
from polyglot_persistence.worker.healer import heal_forever
from polyglot_persistence.worker.indexer import Indexer
from polyglot_persistence.worker.persister import Persister
from polyglot_persistence.worker.rebuilder import make_first, rebuild_forever
from polyglot_persistence.worker.refresher import refresh_forever
from polyglot_persistence.worker.sweeper import sweep_forever
from polyglot_persistence.worker.warmer import warm_forever

_log = logger("worker")


async def work(parent: Parent, settings: Settings, stop: asyncio.Event) -> None:
    """Persist, index, sweep, warm and refresh until stopped.

    On `worker_port` it serves its metrics and health meanwhile, also while no store is there. Once
    it consumes, it announces so to its parent.
    """
    listener = listen(settings.api_host, settings.worker_port) if settings.worker_port else None
    stores = observed(connect(settings))
    clock = SystemClock()
    worker = _Worker(settings, stores, clock)
    consuming = worker.persister.consuming
    ended = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            if listener is not None:
                raise_files_max()
                access = access_of(settings, clock)
                health = HealthFlow(stores.pingable(), consuming.is_set)
                tasks.create_task(keep_keys_current(settings, access, ended))
                tasks.create_task(leave(health, stop))
                tasks.create_task(serve_itself(settings, health, access, listener, ended))
            tasks.create_task(watch_stores(stores, clock, ended))
            announcing = tasks.create_task(parent.announce(consuming))
            await worker.run(stop)
            announcing.cancel()  # without effect if it is done
            ended.set()
    finally:
        await stores.close()
        _log.info("stopped")


async def work_on(settings: Settings, stores: Stores, clock: Clock, stop: asyncio.Event) -> None:
    """Do a worker's whole work on any stores, by any clock, until stopped."""
    await _Worker(settings, stores, clock).run(stop)


class _Worker:
    """The loops of a worker, wired: over any stores and any clock."""

    def __init__(self, settings: Settings, stores: Stores, clock: Clock) -> None:
        self._settings = settings
        self._stores = stores
        self._clock = clock
        self._freshness = FreshnessCount(
            shown_after_seconds=stores.audit.contents.shown_after_seconds
        )
        self._indexer = Indexer(
            IndexFlow(stores.record, stores.search, clock, freshness=self._freshness),
            settings.index,
        )
        self._flow = PersistFlow(stores.record, stores.cache, clock)
        self._progress = QueueProgress()
        self.persister = Persister(
            self._flow,
            queue=stores.queue,
            record=stores.record,
            end_warming=partial(end_warming, stores.cache, stores.record),
            offer=self._indexer.offer,
            progress=self._progress,
            clock=clock,
            limits=settings.persist,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run all of them until stopped; index what they persisted, and return."""
        persisted = asyncio.Event()
        await prepare(self._stores, self._clock, stop)
        async with asyncio.TaskGroup() as indexing:
            indexing.create_task(self._indexer.run(persisted))
            indexing.create_task(
                add_up_forever(self._freshness, self._stores.audit.record, persisted)
            )
            await self._persist(stop)
            persisted.set()  # nothing more is offered: index what waits, and end

    async def _persist(self, stop: asyncio.Event) -> None:
        settings, stores, clock = self._settings, self._stores, self._clock
        record = stores.record
        operating = Operating(settings, stores, clock)
        await make_first(operating.rebuild, stores.search, record, stop)
        loops = [
            self.persister.run(stop),
            sweep_forever(
                self._sweep(),
                record,
                self._indexer.offer,
                stop,
                interval_seconds=settings.sweep_interval_seconds,
            ),
            rebuild_forever(
                operating.rebuild,
                record,
                stop,
                interval_seconds=settings.index.outbox_interval_seconds,
            ),
            warm_forever(self._warming(), record, stop),
            refresh_forever(
                SalesFlow(stores.sales, clock), settings.mv_refresh_schedule, record, clock, stop
            ),
        ]
        throttle = Throttle(clock, stop, orders_per_second=settings.audit_orders_per_second)
        loops.append(heal_forever(operating.heal, record, throttle, stop))
        if settings.audit_interval_seconds:
            interval_seconds = settings.audit_interval_seconds
            loops.append(
                audit_forever(
                    operating.audit, record, throttle, stop, interval_seconds=interval_seconds
                )
            )
        async with asyncio.TaskGroup() as tasks:
            for loop in loops:
                tasks.create_task(loop)

    def _sweep(self) -> SweepFlow:
        return SweepFlow(
            self._stores.cache,
            self._stores.queue,
            self._flow,
            self._progress,
            self._clock,
            age_seconds=self._settings.sweep_age_seconds,
            batch_orders_max=self._settings.sweep_batch_orders,
        )

    def _warming(self) -> Warming:
        return Warming(
            self._stores.record,
            self._stores.cache,
            self._stores.queue,
            self._clock,
            quiet_seconds=self._settings.warm_quiet_seconds,
            hold_seconds_max=self._settings.persist.delivery_hold_seconds_max,
        )
