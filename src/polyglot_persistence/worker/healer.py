"""Heals the record after a failover or a restore, in one process at a time."""

import asyncio
from typing import Final

from polyglot_persistence.flows.watch.audit_tally import Pace
from polyglot_persistence.flows.watch.heal import HealFlow
from polyglot_persistence.ports.leadership import Leadership
from polyglot_persistence.runtime.repeat import repeat_as_leader
from polyglot_persistence.telemetry import LOOP_SUCCESS

LOOK_INTERVAL_SECONDS: Final = 1.0

ROLE: Final = "healer"


async def heal_forever(flow: HealFlow, record: Leadership, pace: Pace, stop: asyncio.Event) -> None:
    """Look at the record's history, and heal what it lost, until stopped."""
    succeeded = LOOP_SUCCESS.labels(ROLE)

    async def paced(entries: int) -> bool:
        succeeded.set_to_current_time()  # a comparison may take minutes
        return await pace(entries)

    async def step() -> None:
        await flow.look(paced)

    await repeat_as_leader(record, ROLE, step, stop, interval_seconds=LOOK_INTERVAL_SECONDS)
