"""The threads beside the event loop: bounded, in time, and nothing of theirs lost."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from polyglot_persistence.adapters.tantivy.lane import Lane
from polyglot_persistence.errors import UnavailableError


class PanicException(BaseException):  # PyO3's name
    """As PyO3 raises it: no Exception, so that nothing catches it by accident."""


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds up jobs until it is set, at the latest when the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()


async def test_a_full_lane_refuses(gate: threading.Event) -> None:
    """It counts what runs and what waits, and takes more once they are done."""
    lane = Lane("test", threads=1, jobs_max=2, timeout_seconds=5)
    jobs = [asyncio.create_task(lane.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="2 calls to test are waiting"):
        await lane.run(gate.wait)
    gate.set()
    assert await asyncio.gather(*jobs) == [True, True]
    assert await lane.run(gate.wait)
    lane.close()


async def test_a_job_past_its_deadline_still_fills_its_place(gate: threading.Event) -> None:
    """The caller hears in time; the thread is not given twice."""
    lane = Lane("test", threads=1, jobs_max=1, timeout_seconds=0.02)
    with pytest.raises(UnavailableError, match=r"no answer to test within 0\.02 s"):
        await lane.run(gate.wait)
    with pytest.raises(UnavailableError, match="are waiting"):
        await lane.run(gate.wait)
    lane.close()


async def test_a_cancelled_caller_leaves_the_job_alone(gate: threading.Event) -> None:
    """It runs to its end, and its failure is nobody's surprise."""
    lane = Lane("test", threads=1, jobs_max=2, timeout_seconds=5)
    ended = threading.Event()

    def job() -> None:
        gate.wait()
        ended.set()
        raise ValueError("nobody waits for this")

    task = asyncio.create_task(lane.run(job))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await lane.run(ended.is_set)
    lane.close()


@pytest.mark.parametrize("error", [ValueError("no"), OSError("no"), PanicException("no")])
async def test_what_the_engine_raises_is_translated(error: BaseException) -> None:
    """Also a panic, which would end a task group as no Exception does."""
    lane = Lane("test", threads=1, jobs_max=1, timeout_seconds=5)

    def job() -> None:
        raise error

    with pytest.raises(UnavailableError, match="search index: no") as caught:
        await lane.run(job)
    assert caught.value.__cause__ is error
    lane.close()


async def test_a_closed_lane_refuses() -> None:
    """Closing is for good."""
    lane = Lane("test", threads=1, jobs_max=1, timeout_seconds=5)
    lane.close()
    with pytest.raises(UnavailableError, match="closed"):
        await lane.run(dict)
