"""`make run`: signals reach the system through make, and nothing stays behind."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.processes import alive, descendants, eventually, free_port, started


@pytest.mark.timeout(120)
@pytest.mark.parametrize("to_group", [False, True], ids=["make", "group"])
async def test_sigterm_to_make_stops_everything(tmp_path: Path, *, to_group: bool) -> None:
    """Whether only make hears it, or, as with Ctrl-C in a terminal, everybody."""
    port = free_port()
    command = [
        *("make", "run", f"BIN={Path(sys.executable).parent}"),
        "PYTHON=true",  # the environment is this one: there is nothing to set up
        f"ARGS=--port {port} --data-dir '{tmp_path / 'my data'}'",
    ]
    with started(command) as make:
        assert await make.printed("ready: ") == f"ready: http://127.0.0.1:{port}"
        family = descendants(make.pid)
        assert len(family) > 4
        if to_group:
            os.killpg(make.pid, signal.SIGINT)
        else:
            make.send(signal.SIGTERM)
        await make.ended()
        await eventually(lambda: not any(map(alive, family)), what="the end of all")
        assert "Traceback" not in make.log()
        assert '"action":"stopped"' in make.log()
