"""How the loops of the worker go on: errors, outages, leadership."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.runtime.repeat import (
    ERRORS_TOLD_MAX,
    Backoff,
    More,
    repeat,
    repeat_as_leader,
)


async def test_a_failing_step_does_not_end_its_loop() -> None:
    """It is repeated after a pause, and stop ends the pause."""
    stop = asyncio.Event()
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            raise UnavailableError("away")
        stop.set()

    await repeat("test", step, stop, interval_seconds=3600)
    assert steps == 2


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Each error that is another is news, up to a few; after a success all of them are again."""
    backoff = Backoff(asyncio.Event(), "test")
    errors = [UnavailableError(text) for text in ("refused", "refused", "late", "refused")]
    for _ in range(2):
        assert [backoff.is_news(error) for error in errors] == [True, False, True, False]
        backoff.succeeded()
        backoff.succeeded()
    assert [record.getMessage() for record in caplog.records] == ["recovered", "recovered"]
    many = [UnavailableError(f"port {number}") for number in range(100)]
    assert sum(map(backoff.is_news, many)) == ERRORS_TOLD_MAX


class Roles:
    """A record that gives a role, or not, and can lose it."""

    def __init__(self) -> None:
        self.free = True
        self.confirmations = 0
        self.given = 0
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def lead(self, role: str) -> AsyncIterator["Roles | None"]:
        self.given += 1
        self.asked.set()
        yield self if self.free else None

    async def confirm(self) -> None:
        self.confirmations += 1
        if self.confirmations == 2:
            raise UnavailableError("the connection is lost")


async def test_a_leader_that_lost_its_role_steps_no_more_until_it_has_it_again() -> None:
    """The role is confirmed before every step."""
    roles, stop = Roles(), asyncio.Event()
    steps: list[int] = []

    async def step() -> More:
        steps.append(roles.given)
        if len(steps) == 2:
            stop.set()
        return More(True)

    await repeat_as_leader(cast("Any", roles), "test", step, stop, interval_seconds=0)
    assert steps == [1, 2]


async def test_whoever_does_not_lead_stands_by() -> None:
    """Another process has the role."""
    roles, stop = Roles(), asyncio.Event()
    roles.free = False

    async def step() -> None:
        pytest.fail("stepped without the role")

    running = asyncio.create_task(
        repeat_as_leader(cast("Any", roles), "test", step, stop, interval_seconds=0)
    )
    await roles.asked.wait()
    stop.set()
    await running
