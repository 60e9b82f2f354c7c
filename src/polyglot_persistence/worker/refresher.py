"""Refreshes the daily sales view on its schedule, in one process at a time."""

import asyncio

from polyglot_persistence.domain.schedule import Schedule
from polyglot_persistence.flows.projections.sales import SalesFlow
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import OrderStore
from polyglot_persistence.runtime.repeat import repeat_as_leader

LOOK_INTERVAL_SECONDS = 1.0


async def refresh_forever(
    flow: SalesFlow, schedule: Schedule, store: OrderStore, clock: Clock, stop: asyncio.Event
) -> None:
    """Refresh whenever it is due, until stopped.

    The first refresh is immediate: a refresh that fell due while no worker ran is overdue.
    """
    due = clock.now()

    async def step() -> None:
        nonlocal due
        if clock.now() >= due:
            await flow.refresh(trigger="schedule")
            due = schedule.next_after(clock.now())

    await repeat_as_leader(store, "refresher", step, stop, interval_seconds=LOOK_INTERVAL_SECONDS)
