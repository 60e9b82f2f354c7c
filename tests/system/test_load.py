"""`polyglot load` against the whole system: what is answered is what the file says."""

import signal
import sys
from pathlib import Path

import pytest

from tests.support.processes import WAIT_SECONDS, Process, Up, polyglot_up, started

LIMIT = 20_000


async def _load(up: Up, limit: int, expected: int = 0) -> str:
    arguments = ("load", "completejourney", "--limit", str(limit), "--url", up.url)
    with started([sys.executable, "-m", "polyglot_persistence", *arguments]) as load:
        code = await load.ended(2 * WAIT_SECONDS)
        assert code == expected, load.output() + load.log()
        return load.output()


@pytest.mark.timeout(240)
async def test_every_day_is_equal_to_the_cent_twice(tmp_path: Path) -> None:
    """Loaded, interrupted, loaded again, restarted and loaded once more: the same days."""
    data = tmp_path / "data"
    async with polyglot_up(data) as up:
        arguments = ("load", "completejourney", "--limit", str(LIMIT), "--url", up.url)
        with started([sys.executable, "-m", "polyglot_persistence", *arguments]) as load:
            await _some_are_accepted(up, load)
            load.send(signal.SIGINT)
            assert await load.ended() in (0, 130)  # 0 only if it was done that moment
        first = await _load(up, LIMIT)
        assert "every day equal to the cent" in first
        assert " 0 rejected" in first
    async with polyglot_up(data) as up:
        again = await _load(up, LIMIT)
        assert f"0 accepted, {LIMIT:,} already there, 0 rejected" in again
        assert "every day equal to the cent" in again


@pytest.mark.timeout(120)
async def test_other_orders_are_reported(tmp_path: Path) -> None:
    """A system that holds more than the file is told apart, with exit code 1."""
    async with polyglot_up(tmp_path / "data") as up:
        await up.persisted(await up.order())
        output = await _load(up, 100, expected=1)
        assert "Compare on a fresh data directory" in output


async def _some_are_accepted(up: Up, load: Process) -> None:
    async def accepted() -> float:
        answer = await up.request("GET", "/metrics")
        for line in answer.json.decode().splitlines():
            if line.startswith("polyglot_orders_accepted_total "):
                return float(line.split()[1])
        return 0.0

    while load.code is None and not await accepted():
        pass  # each look is a request of its own, so this does not spin
