"""The auditing loop and what it counts, without stores."""

import asyncio
from datetime import timedelta
from math import inf
from typing import Any, cast

import pytest

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.behind.freshness import FreshnessCount, nines, shares
from polyglot_persistence.ports.audit import Freshness
from polyglot_persistence.worker import auditor
from polyglot_persistence.worker.auditor import Throttle
from tests.simulation.stores.projections import SimulatedAudit
from tests.simulation.stores.record import RecordServer
from tests.support.eventually import WAIT_SECONDS
from tests.support.orders import START
from tests.support.scripted import FakeClock


class Monotonic:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


async def test_a_throttle_lets_so_many_a_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compared has its time; time that was not used is not saved up."""
    pauses: list[float] = []

    async def pause(_stop: asyncio.Event, seconds: float) -> None:
        pauses.append(seconds)
        clock.seconds += seconds

    monkeypatch.setattr(auditor, "pause", pause)
    clock = Monotonic()
    throttle = Throttle(cast("Any", clock), asyncio.Event(), orders_per_second=1_000)
    assert await throttle(500) is True
    clock.seconds += 0.25  # comparing takes time of its own
    assert await throttle(500) is True
    clock.seconds += 3_600
    assert await throttle(500) is True
    assert pauses == pytest.approx([0.5, 0.5, 0.5])


async def test_a_stopped_throttle_waits_for_nothing() -> None:
    """It tells that it is over, however much is due."""
    stop = asyncio.Event()
    stop.set()
    throttle = Throttle(cast("Any", Monotonic()), stop, orders_per_second=1)
    async with asyncio.timeout(WAIT_SECONDS):
        assert await throttle(1_000_000) is False


async def test_orders_are_counted_by_how_soon_they_were_everywhere() -> None:
    """With the time that search takes to show them; and nothing is counted twice or lost."""
    server, count = RecordServer(FakeClock()), FreshnessCount(shown_after_seconds=0.5)
    record = SimulatedAudit(server)
    lags = (0.4, 0.5, 0.6, 4.5, 4.6, 59.5, 60.0)
    count.note([START - timedelta(seconds=lag) for lag in lags], START)
    server.stop()
    with pytest.raises(UnavailableError):
        await count.add_up(record)
    count.note([START], START)
    server.start()
    await count.add_up(record)
    await count.add_up(record)
    assert await record.freshness() == Freshness(8, 3, 5, 7)


def test_nines_of_a_share() -> None:
    """Ninety percent is one; none late is without end; no orders were all in time."""
    assert [round(nines(share), 6) for share in (0.0, 0.9, 0.99, 0.9999)] == [0, 1, 2, 4]
    assert nines(1.0) == inf
    assert shares(Freshness(0, 0, 0, 0)) == {1: 1.0, 5: 1.0, 60: 1.0}
    assert shares(Freshness(4, 1, 2, 4)) == {1: 0.25, 5: 0.5, 60: 1.0}
