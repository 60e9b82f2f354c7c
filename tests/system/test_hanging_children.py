"""Child processes that run and do nothing: they are killed and replaced; slow ones are not."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from polyglot_persistence.processes.supervision import (
    LOOK_SECONDS,
    SILENT_LOOKS_MAX,
)
from tests.support.eventually import eventually as once
from tests.support.processes import (
    Up,
    alive,
    descendants,
    eventually,
    freeze,
    polyglot_up,
    send,
    started,
)

NOTICED_SECONDS = 2 * (LOOK_SECONDS + 2) * SILENT_LOOKS_MAX
"""A server is waited for as well at each look, and a test has a busy machine."""

FAST_LOOK_SECONDS = 0.5

FAMILY = f"""
import asyncio, os, signal, sys, time
from pathlib import Path
from polyglot_persistence.processes.heartbeat import Parent
from polyglot_persistence.processes.prefork import run_several

class Program:
    number = 1
    def close(self): pass
    def run(self, parent):
        asyncio.run(work(parent))
        return 0

async def work(parent):
    beating = asyncio.create_task(parent.beat())
    await asyncio.sleep(0)
    print("serving", flush=True)
    if not Path(sys.argv[1]).exists():
        Path(sys.argv[1]).touch()
        {{hang}}
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()

sys.exit(run_several([Program()], Parent(None), stop_seconds=5, look_seconds={FAST_LOOK_SECONDS}))
"""


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(1_000)",
        "while True: pass",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals)); time.sleep(1_000)",
    ],
)
async def test_one_that_falls_silent_is_killed_and_forked_again(tmp_path: Path, hang: str) -> None:
    """A blocked event loop is as silent as a stopped process, busy or not."""
    command = [sys.executable, "-c", FAMILY.format(hang=hang), str(tmp_path / "hung")]
    with started(command) as process:
        await eventually(lambda: process.output().count("serving") == 2, what="a successor")
        assert process.log().count("process_hangs") == 1
        process.send(signal.SIGTERM)
        assert await process.ended() == 0


async def test_a_machine_that_stands_still_kills_nobody(tmp_path: Path) -> None:
    """Suspended for far longer than the bound, and the parent runs first: it looks again first."""
    command = [sys.executable, "-c", FAMILY.format(hang="pass"), str(tmp_path / "hung")]
    with started(command) as process:
        await process.printed("serving")
        [child] = descendants(process.pid)
        for _ in range(3):
            family = freeze(process.pid)
            await asyncio.sleep((SILENT_LOOKS_MAX + 1) * FAST_LOOK_SECONDS)
            send(family, signal.SIGCONT)
        process.send(signal.SIGTERM)
        code = await process.ended()
        assert (code, process.log()) == (0, "")
        assert process.output().count("serving") == 1
        assert not alive(child)


async def test_each_part_of_up_that_hangs_is_replaced_and_no_order_is_lost(tmp_path: Path) -> None:
    """All at once, stopped with orders in them (SIGSTOP) and never continued."""
    async with polyglot_up(tmp_path / "data", environment={"API_PROCESSES": "2"}) as up:
        member = descendants(up.pid_of("api"))[0]
        victims = [member, *map(up.pid_of, ("worker", "postgres", "valkey-server"))]
        placed = [await up.order() for _ in range(50)]
        send(victims, signal.SIGSTOP)
        await eventually(lambda: not any(map(alive, victims)), NOTICED_SECONDS, "their end")
        placed.append(await _accepted(up))
        for order_id in placed:
            await up.persisted(order_id)
        log = up.process.log()
        assert (log.count('"hangs"'), log.count('"process_hangs"')) == (3, 1)
        assert log.count('"restarted"') == 3
        assert up.process.code is None


async def _accepted(up: Up) -> str:
    async def accepts() -> str:
        return await up.order("Bread")

    return await once(accepts, retried=(OSError, AssertionError))


async def test_an_api_whose_first_process_hangs_is_replaced(tmp_path: Path) -> None:
    """It is what starts the others again; they end with it, and the port is served again."""
    async with polyglot_up(tmp_path / "data", environment={"API_PROCESSES": "2"}) as up:
        order_id = await up.order()
        first = up.pid_of("api")
        family = [first, *descendants(first)]
        os.kill(first, signal.SIGSTOP)
        await eventually(lambda: '"restarted"' in up.process.log(), NOTICED_SECONDS, "a restart")
        assert not any(map(alive, family))

        for one in (order_id, await _accepted(up)):
            await up.persisted(one)
