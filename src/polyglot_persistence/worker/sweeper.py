"""Sweeps stale dirty entries, in one process at a time."""

import asyncio
from collections.abc import Callable, Sequence

from polyglot_persistence.flows.behind.persist import ToIndex
from polyglot_persistence.flows.behind.sweep import SweepFlow
from polyglot_persistence.ports.leadership import Leadership
from polyglot_persistence.runtime.repeat import More, repeat_as_leader


async def sweep_forever(
    flow: SweepFlow,
    record: Leadership,
    offer: Callable[[Sequence[ToIndex]], None],
    stop: asyncio.Event,
    *,
    interval_seconds: float,
) -> None:
    """Sweep until stopped, without a pause while there are stale entries."""

    async def step() -> More:
        to_index = await flow.sweep()
        if to_index is None:
            return More(False)
        offer(to_index)
        return More(True)

    await repeat_as_leader(record, "sweeper", step, stop, interval_seconds=interval_seconds)
