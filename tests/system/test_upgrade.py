"""A rolling upgrade on the real servers: processes of the previous version beside this one's.

The stores outlive both. What an embedded directory needs is in `test_earlier_data.py`.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.api import Api
from tests.support.deployments import NEEDS_SERVERS, PROGRAM, READY_SECONDS
from tests.support.earlier import VERSION_0_1_0, source_of
from tests.support.eventually import eventually
from tests.support.keys import ENVIRONMENT
from tests.support.other_users import python_path
from tests.support.processes import Process, free_port, freeze, send, started
from tests.support.real_servers import empty_stores

pytestmark = [pytest.mark.timeout(240), NEEDS_SERVERS]

Run = Callable[..., tuple[Process, Api]]


@pytest.fixture
def run() -> Iterator[Run]:
    """Start `api` or `worker` of some sources on some stores; all end with the test."""
    with ExitStack() as processes:

        def start(
            name: str, stores: Mapping[str, str], source: Path | None = None
        ) -> tuple[Process, Api]:
            api = Api(free_port())
            environment = {
                **stores,
                **ENVIRONMENT,
                "API_HOST": "127.0.0.1",
                "API_PORT" if name == "api" else "WORKER_PORT": str(api.port),
                "PYTHONPATH": python_path(*([source] if source else [])),
            }
            command = (*PROGRAM, name)
            return processes.enter_context(started(command, environment=environment)), api

        yield start


async def ready(api: Api) -> None:
    """Wait until the process serves with all of its stores."""

    async def is_ready() -> None:
        answer = await api.request("GET", "/health/ready")
        assert answer.json["mode"] == "normal", answer.json

    await eventually(is_ready, within_seconds=READY_SECONDS, retried=(OSError, AssertionError))


async def both_ready(
    run: Run, stores: Mapping[str, str], source: Path | None = None
) -> tuple[Process, tuple[Process, Api]]:
    """Start a worker, and an API over the same stores; return them once they serve."""
    worker, at_worker = run("worker", stores, source)
    api, at_api = run("api", stores, source)
    await ready(at_worker)
    await ready(at_api)
    return worker, (api, at_api)


async def found_by(api: Api, ids: set[str]) -> None:
    """Wait until a search finds exactly these orders."""

    async def all_found() -> None:
        answer = await api.request("GET", "/api/search?q=milk&limit=100")
        assert {hit["id"] for hit in answer.json["hits"]} == ids

    await eventually(all_found, within_seconds=60, retried=(AssertionError, KeyError))


async def test_what_the_previous_version_left_in_queue_and_cache_is_persisted(
    run: Run, directory: Path
) -> None:
    """Both were filled while no worker ran, and the record holds older orders."""
    source = source_of(VERSION_0_1_0, directory)
    async with empty_stores() as stores:
        old_worker, (old_api, at_old) = await both_ready(run, stores, source)
        ids = {await at_old.order("Old milk") for _ in range(5)}
        for order_id in ids:
            await at_old.persisted(order_id)
        old_worker.send(signal.SIGTERM)
        assert await old_worker.ended() == 0
        ids |= {await at_old.order("Waiting milk") for _ in range(5)}
        old_api.send(signal.SIGTERM)
        assert await old_api.ended() == 0
        worker, (api, at_new) = await both_ready(run, stores)
        for order_id in ids:
            await at_new.persisted(order_id)
        ids.add(await at_new.order("New milk"))
        await found_by(at_new, ids)
        for process in (worker, api):
            assert "Traceback" not in process.log()


async def test_both_versions_work_side_by_side_until_the_upgrade_ends(
    run: Run, directory: Path
) -> None:
    """Each accepts, reads and persists what the other accepted; restarted, the old one says why."""
    source = source_of(VERSION_0_1_0, directory)
    async with empty_stores() as stores:
        old_worker, (old_api, at_old) = await both_ready(run, stores, source)
        ids = {await at_old.order("Old milk")}
        worker, (_, at_new) = await both_ready(run, stores)
        for halted in (worker, old_worker):  # so that the other one persists
            family = freeze(halted.pid)
            for there in (at_old, at_new):
                ids.add(await there.order("Milk beside"))
            send(family, signal.SIGCONT)
        for there in (at_old, at_new):
            for order_id in ids:
                await there.persisted(order_id)
                assert (await there.request("GET", f"/api/orders/{order_id}")).status == 200
        for process in (old_worker, old_api):
            process.send(signal.SIGTERM)
            assert await process.ended() == 0
        await found_by(at_new, ids)
        again, _ = run("worker", stores, source)

        async def refused() -> None:
            assert "the database is newer than this program" in again.log()

        await eventually(refused, within_seconds=READY_SECONDS)
        ids.add(await at_new.order("New milk"))
        await found_by(at_new, ids)
