"""The simulated event loop: time that is a number, processes that stop and die."""

import asyncio
import time

from tests.simulation.loop import Execution, running


def test_time_passes_at_once() -> None:
    """An hour of sleep takes no time."""
    began = time.monotonic()
    woken: list[float] = []

    async def sleep() -> None:
        await asyncio.sleep(3_600)
        woken.append(loop.now)

    with running() as loop:
        loop.world_task(sleep())
        loop.run_until(7_200)
    assert woken == [3_600]
    assert time.monotonic() - began < 10


def test_a_paused_process_does_nothing_until_it_is_resumed() -> None:
    """Its timers that fell due meanwhile are late, and nothing is lost."""
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(loop.now)

    with running() as loop:
        process = Execution("paused")
        loop.start(process, tick())
        loop.run_until(2.5)
        process.paused = True
        loop.run_until(10)
        loop.resume(process)
        loop.run_until(11.5)
    assert ticks == [1, 2, 10, 11]


def test_a_suspended_process_misses_the_time_on_its_timers() -> None:
    """A machine that was suspended goes on with what was left of each sleep."""
    ticks: list[float] = []

    async def tick() -> None:
        await asyncio.sleep(3)
        ticks.append(loop.now)

    with running() as loop:
        process = Execution("suspended")
        loop.start(process, tick())
        loop.run_until(1)
        process.paused = True
        loop.run_until(101)
        loop.resume(process, missed_seconds=100)
        loop.run_until(200)
    assert ticks == [103]


def test_nothing_of_a_killed_process_runs() -> None:
    """Not even a `finally`, for as long as the world is simulated."""
    said: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(5)
            said.append("worked")
        finally:
            said.append("cleaned up")

    with running() as loop:
        process = Execution("killed")
        loop.start(process, work())
        loop.run_until(1)
        loop.kill(process)
        loop.run_until(10)
        assert said == []


def test_what_a_process_wakes_is_not_its_own() -> None:
    """A task of the world that waits for a process goes on after that process has died."""
    heard: list[str] = []

    async def listen(future: "asyncio.Future[str]") -> None:
        heard.append(await future)

    async def speak(future: "asyncio.Future[str]") -> None:
        future.set_result("word")
        loop.kill(process)

    with running() as loop:
        process = Execution("speaker")
        future: asyncio.Future[str] = loop.create_future()
        loop.world_task(listen(future))
        loop.run_until(1)
        loop.start(process, speak(future))
        loop.run_until(2)
    assert heard == ["word"]
