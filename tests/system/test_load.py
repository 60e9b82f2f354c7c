"""`polyglot load` against the whole system: what is answered is what the file says."""

import signal
import sys
from pathlib import Path

import pytest

from tests.support.api import Api
from tests.support.deployments import Deployment
from tests.support.eventually import WAIT_SECONDS
from tests.support.keys import SECRET
from tests.support.processes import Process, polyglot_up, started

LIMIT = 20_000


def command_line(api: Api, limit: int) -> list[str]:
    load = ("load", "completejourney", "--limit", str(limit), "--url", api.url)
    return [sys.executable, "-m", "polyglot_persistence", *load, "--api-key", SECRET]


async def loaded(api: Api, limit: int, *, expected: int = 0) -> str:
    """Load so many orders, and return what was printed."""
    with started(command_line(api, limit)) as load:
        code = await load.ended(4 * WAIT_SECONDS)
        assert code == expected, load.output() + load.log()
        return load.output()


@pytest.mark.timeout(420)
async def test_every_day_is_equal_to_the_cent_twice(deployment: Deployment) -> None:
    """Loaded, interrupted, loaded again, restarted and loaded once more: the same days."""
    await deployment.start()
    with started(command_line(deployment, LIMIT)) as load:
        await some_are_accepted(deployment, load)
        load.send(signal.SIGINT)
        assert await load.ended() in (0, 130)  # 0 only if it was done that moment
    first = await loaded(deployment, LIMIT)
    assert "every day equal to the cent" in first
    assert " 0 rejected" in first
    await deployment.stop()
    await deployment.start()
    again = await loaded(deployment, LIMIT)
    assert f"0 accepted, {LIMIT:,} already there, 0 rejected" in again
    assert "every day equal to the cent" in again
    await deployment.stop()


@pytest.mark.timeout(120)
async def test_other_orders_are_reported(tmp_path: Path) -> None:
    """A system that holds more than the file is told apart, with exit code 1."""
    async with polyglot_up(tmp_path / "data") as up:
        await up.persisted(await up.order())
        output = await loaded(up, 100, expected=1)
        assert "Compare on a fresh data directory" in output


async def some_are_accepted(api: Api, load: Process) -> None:
    """Wait until the load is under way; each look is a request, so this does not spin."""
    while load.code is None and not (await api.metrics())["polyglot_orders_accepted_total"]:
        pass
