"""A worker's own port: it tells that the worker lives and what it counts, whatever else is away."""

import asyncio
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.eventually import WAIT_SECONDS
from tests.support.processes import (
    REPOSITORY,
    Process,
    eventually,
    free_port,
    polyglot_up,
    started,
)
from tests.support.servers import short_directory

ALIVE = REPOSITORY / "deploy" / "image" / "alive.py"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def worker(port: int, tmp_path: Path) -> Iterator[Process]:
    """A worker none of whose stores is there."""
    environment = {
        "POSTGRES_DSN": f"postgresql://nobody@127.0.0.1:{free_port()}/nothing",
        "REDIS_ADDR": f"127.0.0.1:{free_port()}",
        "RABBITMQ_URL": f"redis://127.0.0.1:{free_port()}",
        "ELASTICSEARCH_URL": f"tantivy://{tmp_path}/search",
        "API_HOST": "127.0.0.1",
        "WORKER_PORT": str(port),
    }
    command = [sys.executable, "-m", "polyglot_persistence", "worker"]
    with started(command, environment=environment) as process:
        yield process


def alive(variable: str, value: str) -> int:
    """Return the exit code of the images' health check."""
    command = [sys.executable, "-I", str(ALIVE), variable]
    return subprocess.run(command, env={variable: value}, check=False).returncode


async def test_it_serves_without_any_store(worker: Process, port: int) -> None:
    """Health check and metrics answer while no store does, and SIGTERM ends it all in order."""
    await eventually(lambda: alive("WORKER_PORT", str(port)) == 0, what="health")
    with await asyncio.to_thread(urlopen, f"http://127.0.0.1:{port}/metrics", None, 5) as answer:
        assert b"\npolyglot_orders_indexed_total" in answer.read()
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0


async def test_it_does_not_show_what_it_cannot_know(worker: Process, port: int) -> None:
    """Stores that are away are down, and what only they know is no number, and no old one."""
    expected = {
        f'polyglot_store_up{{store="{store}"}} 0.0' for store in ("cache", "queue", "record")
    } | {f"{gauge} NaN" for gauge in ("polyglot_dirty_orders", "polyglot_cache_cold")}
    lines: set[str] = set()

    def shown() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines.update(answer.read().decode().splitlines())
        except OSError:
            return False  # it does not serve yet
        return expected <= lines

    await eventually(shown, what=f"{expected - lines}")
    assert worker.code is None


async def test_the_health_check_tells_a_dead_and_a_hanging_worker(
    worker: Process, port: int
) -> None:
    """It fails before the worker serves, while it is stopped, and for a port that is none."""
    assert alive("WORKER_PORT", str(free_port())) == 1
    assert alive("WORKER_PORT", "") == 1
    await eventually(lambda: alive("WORKER_PORT", str(port)) == 0, what="health")
    worker.send(signal.SIGSTOP)
    assert alive("WORKER_PORT", str(port)) == 1


async def test_the_health_check_wants_more_while_a_worker_starts(
    worker: Process, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until its start is over, a worker that misses something is not healthy; then it is."""
    await eventually(lambda: alive("WORKER_PORT", str(port)) == 0, what="health")
    check = runpy.run_path(str(ALIVE))
    monkeypatch.setenv("WORKER_PORT", str(port))
    names = check["main"].__globals__
    monkeypatch.setitem(names, "FIRST_PROCESS", Path(f"/proc/{worker.pid}/stat"))
    monkeypatch.setitem(names, "START_SECONDS", 3600)
    assert await asyncio.to_thread(check["main"], "WORKER_PORT") == 1
    assert "not consuming" in capsys.readouterr().out
    monkeypatch.setitem(names, "START_SECONDS", 0)
    assert await asyncio.to_thread(check["main"], "WORKER_PORT") == 0


async def test_the_health_check_is_passed_by_a_worker_that_consumes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its stores there, a worker is healthy as soon as it consumes."""
    port = free_port()
    with short_directory() as directory:
        environment = {"WORKER_PORT": str(port)}
        async with polyglot_up(directory / "data", environment=environment) as up:
            check = runpy.run_path(str(ALIVE))
            monkeypatch.setenv("WORKER_PORT", str(port))
            names = check["main"].__globals__
            stat = Path(f"/proc/{up.pid_of('worker')}/stat")
            monkeypatch.setitem(names, "FIRST_PROCESS", stat)
            monkeypatch.setitem(names, "START_SECONDS", 3600)
            assert await asyncio.to_thread(check["main"], "WORKER_PORT") == 0


async def test_a_port_that_is_taken_is_said(worker: Process, port: int) -> None:
    """A second worker on the same port ends with one line, before it touches a store."""
    await eventually(lambda: alive("WORKER_PORT", str(port)) == 0, what="health")
    second = [sys.executable, "-m", "polyglot_persistence", "worker"]
    environment = {"API_HOST": "127.0.0.1", "WORKER_PORT": str(port)}
    with started(second, environment=environment) as process:
        assert await process.ended(WAIT_SECONDS) == 2
        assert process.log().splitlines()[-1] == (
            f"polyglot: port {port} is taken by another program; choose another port"
        )
