"""Several API processes behind one port: they share the work, and outlive one another."""

import asyncio
import errno
import json
import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import pytest_asyncio

from tests.support.processes import (
    Up,
    alive,
    descendants,
    eventually,
    free_port,
    free_ports,
    polyglot_up,
    started,
)

PROCESSES = 3
REQUESTS = 300
DELAY_SECONDS = 6
"""Enough for the requests of a test on a busy machine."""
TEA = b'{"product_name":"Tea","amount":1}'


@pytest.fixture
def own_port() -> int:
    return free_ports(PROCESSES)


@pytest_asyncio.fixture
async def system(tmp_path: Path, own_port: int) -> AsyncIterator[Up]:
    """The embedded system with several API processes."""
    environment = {"API_PROCESSES": str(PROCESSES), "API_PROCESS_PORT": str(own_port)}
    async with polyglot_up(tmp_path / "data", environment=environment) as up:
        yield up


async def order(port: int) -> str:
    """Place an order over a connection of its own, and return its id."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            b"POST /api/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(TEA), TEA)
        )
        answer = await reader.read()
    finally:
        writer.close()
    assert answer.startswith(b"HTTP/1.1 202 "), answer
    found = re.search(rb'"order_id":"([-0-9a-f]+)"', answer)
    assert found
    return found[1].decode()


def accepted(port: int) -> int:
    """Return how many orders the process behind a port of its own has accepted."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(r"^polyglot_orders_accepted_total (\S+)$", text, re.MULTILINE)
    assert found
    return int(float(found[1]))


def members(up: Up) -> list[int]:
    """Return the process ids of the API processes."""
    return descendants(up.pid_of("api"))


async def test_they_share_the_orders_and_each_tells_its_own_figures(
    system: Up, own_port: int
) -> None:
    """Every order has an id of its own, whichever process took it; the figures add up."""
    ids = await asyncio.gather(*[order(system.port) for _ in range(REQUESTS)])
    assert len(set(ids)) == REQUESTS
    shares = [
        await asyncio.to_thread(accepted, port) for port in range(own_port, own_port + PROCESSES)
    ]
    assert sum(shares) == REQUESTS
    assert min(shares) > 0


async def test_one_that_dies_is_started_again_and_nobody_is_refused(system: Up) -> None:
    """A connection that falls to the dead one waits for its successor."""
    await eventually(lambda: len(members(system)) == PROCESSES, what="all processes")
    before = members(system)
    os.kill(before[0], signal.SIGKILL)
    ids = await asyncio.gather(*[order(system.port) for _ in range(REQUESTS)])
    assert len(set(ids)) == REQUESTS
    await eventually(lambda: len(members(system)) == PROCESSES, what="a new process")
    after = Counter(members(system))
    assert sum((after & Counter(before)).values()) == PROCESSES - 1
    assert "process_ended_unasked" in system.process.log()


async def test_they_stop_together(system: Up) -> None:
    """SIGTERM to the first of them ends them all, in order."""
    family = [system.pid_of("api"), *members(system)]
    system.process.send(signal.SIGTERM)
    assert await system.process.ended() == 0
    assert not any(map(alive, family))
    assert "process_killed" not in system.process.log()


async def test_readiness_falls_before_the_listener_closes(tmp_path: Path, own_port: int) -> None:
    """Of each process, on its own port and on the shared one; orders are taken meanwhile."""
    environment = {
        "API_PROCESSES": str(PROCESSES),
        "API_PROCESS_PORT": str(own_port),
        "SHUTDOWN_DELAY_SECONDS": str(DELAY_SECONDS),
    }
    async with polyglot_up(tmp_path / "data", environment=environment) as up:
        ports = [up.port, *range(own_port, own_port + PROCESSES)]
        assert [readiness(port)[0] for port in ports] == [200] * len(ports)
        up.process.send(signal.SIGTERM)
        for port in ports:
            await eventually(partial(leaves, port), what="it leaves")
        ids = await asyncio.gather(*[order(up.port) for _ in range(REQUESTS)])
        assert len(set(ids)) == REQUESTS
        assert {readiness(up.port) for _ in range(2 * PROCESSES)} == {(503, "stopping")}
        await eventually(lambda: refuses(up.port), what="the listeners are closed")
        assert await up.process.ended() == 0
        assert "process_killed" not in up.process.log()
        assert "stop_cut_short" not in up.process.log()


def refuses(port: int) -> bool:
    """Return whether nobody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def leaves(port: int) -> bool:
    """Return whether a process answers that it is about to end."""
    return readiness(port) == (503, "stopping")


def readiness(port: int) -> tuple[int, str]:
    """Return the status and the mode that a process answers on a connection of its own."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=10) as answer:
            return answer.status, json.load(answer)["mode"]
    except HTTPError as error:
        return error.code, json.load(error)["mode"]


async def test_none_outlives_the_one_that_started_them(tmp_path: Path) -> None:
    """Whatever ends the first process stops the others, too."""
    port = free_port()
    environment = {
        "POSTGRES_DSN": f"postgresql://nobody@127.0.0.1:{free_port()}/nothing",
        "REDIS_ADDR": f"127.0.0.1:{free_port()}",
        "RABBITMQ_URL": f"redis://127.0.0.1:{free_port()}",
        "ELASTICSEARCH_URL": f"tantivy://{tmp_path}/search",
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "API_PROCESSES": "2",
    }
    command = [sys.executable, "-m", "polyglot_persistence", "api"]
    with started(command, environment=environment) as process:
        await eventually(lambda: len(descendants(process.pid)) == 2, what="two processes")
        await eventually(lambda: process.log().count("serving") == 2, what="both serve")
        with started(command, environment=environment) as second:
            assert await second.ended() == 2
            assert f"port {port} is taken by another program" in second.log()
        await process.killed()
