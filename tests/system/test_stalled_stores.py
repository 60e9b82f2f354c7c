"""A store that is there and does not answer (SIGSTOP): nobody waits longer than a deadline."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.api import Answer, Api
from tests.support.deployments import NEEDS_SERVERS, OnServers, on_servers
from tests.support.eventually import eventually
from tests.support.processes import alive, freeze, polyglot_up, send
from tests.support.real_servers import RealServer
from tests.support.servers import short_directory

pytestmark = pytest.mark.timeout(240)

NOTICED = {"queue": "queue_away", "search": "index_failed"}
"""What a worker logs once it has noticed: by heartbeats, or by a deadline."""
BACK_SECONDS = 60.0
STOP_SECONDS = 27.0
"""`SHUTDOWN_TIMEOUT_SECONDS` of API, worker and a margin; a stalled server is killed after them."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@contextmanager
def stalled(pid: int) -> Iterator[None]:
    """Stop a server and all of its processes; let them go on in the end, if they are there."""
    family = freeze(pid)
    try:
        yield
    finally:
        send(family, signal.SIGCONT)


async def ask(up: Api, method: str, path: str, body: object = None) -> Answer:
    """Return the answer, which does not wait for the end of the stall."""
    return await up.request(method, path, body)


async def is_degraded(up: Api, wanted: str | None) -> None:
    answer = await up.request("GET", "/health/live")
    assert header(answer, "x-degraded") == wanted


def header(answer: Answer, name: str) -> str | None:
    """Return a header, whose name the two ways to a route write in different cases."""
    return {key.lower(): value for key, value in answer.headers.items()}.get(name)


ORDER = {"product_name": "Milk", "amount": "1.25"}


async def test_a_stalled_record_holds_up_nobody(directory: Path) -> None:
    """Orders are accepted and read back, what needs the record is refused, and it comes back."""
    async with polyglot_up(directory / "data") as up:
        known = await up.order()
        await up.persisted(known)
        with stalled(up.pid_of("postgres")):
            accepted = await ask(up, "POST", "/api/orders", ORDER)
            assert accepted.status == 202
            order_id = accepted.json["order_id"]
            assert (await ask(up, "GET", f"/api/orders/{order_id}")).status == 200
            for path in ("/api/orders", "/api/dashboard/sales", f"/api/orders/{known[:-4]}0000"):
                refused = await ask(up, "GET", path)
                assert refused.status == 503, refused
                assert header(refused, "retry-after")
                assert "postgres" not in str(refused.json).lower()
            assert (await ask(up, "POST", "/api/admin/refresh")).status in (503, 504)
            assert (await ask(up, "GET", "/health/ready")).json["mode"] == "degraded: record away"
            await eventually(lambda: is_degraded(up, "record"))
        await eventually(lambda: is_degraded(up, None))
        await up.persisted(order_id)


async def test_a_stalled_cache_and_queue_refuse_at_once(directory: Path) -> None:
    """The first order waits one deadline, the next ones none; what was persisted is readable."""
    async with polyglot_up(directory / "data") as up:
        known = await up.order()
        await up.persisted(known)
        with stalled(up.pid_of("valkey-server")):
            first = await ask(up, "POST", "/api/orders", ORDER)
            assert first.status in (503, 504), first
            await eventually(lambda: is_degraded(up, "cache, queue"))
            refused = await ask(up, "POST", "/api/orders", ORDER)
            assert (refused.status, header(refused, "retry-after")) == (503, "1")
            assert (await ask(up, "GET", f"/api/orders/{known}")).status == 200
            unknown = await ask(up, "GET", f"/api/orders/{known[:-4]}0000")
            assert unknown.status == 503
        await eventually(lambda: is_degraded(up, None))
        await up.persisted(await up.order())


async def _search(up: Api, status: int) -> None:
    assert (await ask(up, "GET", "/api/search?q=milk")).status == status


async def _searchable(up: Api, order_id: str) -> None:
    answer = await ask(up, "GET", f"/api/orders/{order_id}/status")
    assert answer.json["status"] == "searchable"


def _has_noticed(up: OnServers, role: str) -> bool:
    return any(f'"{NOTICED[role]}"' in process.log() for process in up.processes)


@NEEDS_SERVERS
@pytest.mark.parametrize(("name", "role"), [("rabbitmq", "queue"), ("elasticsearch", "search")])
async def test_a_stalled_server_holds_up_nobody(name: str, role: str) -> None:
    """Orders are accepted, read and persisted until all have noticed; then it comes back."""
    async with on_servers() as up:
        await up.start()
        await eventually(lambda: _search(up, 200), within_seconds=BACK_SECONDS)
        ids = []
        with stalled(await RealServer(name).pid()):
            while not _has_noticed(up, role):
                accepted = await ask(up, "POST", "/api/orders", ORDER)
                assert accepted.status == 202, accepted
                ids.append(accepted.json["order_id"])
                assert (await ask(up, "GET", f"/api/orders/{ids[-1]}")).status == 200
                await _search(up, 503 if role == "search" else 200)
            await eventually(lambda: is_degraded(up, role))
            await up.persisted(ids[0])
        await eventually(lambda: is_degraded(up, None), within_seconds=BACK_SECONDS)
        await eventually(lambda: _searchable(up, ids[-1]), within_seconds=BACK_SECONDS)
        await up.stop()


async def test_a_stop_does_not_wait_for_a_stalled_record(directory: Path) -> None:
    """API and worker end in time, and the next start persists what was accepted."""
    async with polyglot_up(directory / "data") as up:
        with stalled(up.pid_of("postgres")):
            order_id = await up.order()
            api, worker = up.pid_of("api"), up.pid_of("worker")
            up.process.send(signal.SIGTERM)

            async def both_ended() -> None:
                assert not alive(api)
                assert not alive(worker)

            await eventually(both_ended, within_seconds=2 * STOP_SECONDS)
        assert await up.process.ended(60) == 0
    async with polyglot_up(directory / "data") as up:
        await up.persisted(order_id)
