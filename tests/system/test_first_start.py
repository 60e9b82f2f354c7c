"""The first start of all, on empty stores: what a newcomer sees, and what `ready` means."""

import json
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support.api import Api
from tests.support.deployments import PROGRAM, READY_SECONDS, Deployment
from tests.support.eventually import eventually
from tests.support.keys import ENVIRONMENT
from tests.support.processes import Process, free_port, started
from tests.support.servers import running, short_directory

pytestmark = pytest.mark.timeout(240)

SEARCHABLE_SECONDS = 15.0
"""The service promises a second; this is for a machine that does much else."""
RETRIES = 12
"""Of all loops of a process: a dozen seconds of absence."""
ABSENT_LINES_MAX = 12
"""Warnings of a process none of whose stores is there."""


def warnings_of(process: Process) -> list[str]:
    """Return the lines of a log that want somebody's attention."""
    lines = process.log().splitlines()
    assert lines
    return [line for line in lines if json.loads(line)["level"] not in ("DEBUG", "INFO")]


async def test_a_first_start_is_ready_when_it_says_so(deployment: Deployment) -> None:
    """A search is answered at once, the first order persisted and found; nothing is warned of."""
    await deployment.start()
    processes = list(deployment.processes)
    workers = processes[1:] or processes
    assert all('"consuming"' in process.log() for process in workers)
    assert (await deployment.request("GET", "/api/search?q=milk")).status == 200
    order_id = await deployment.order()
    await deployment.persisted(order_id)

    async def found() -> None:
        hits = (await deployment.request("GET", "/api/search?q=milk")).json["hits"]
        assert [hit["id"] for hit in hits] == [order_id]

    await eventually(found, within_seconds=SEARCHABLE_SECONDS)
    await deployment.stop()
    assert [line for process in processes for line in warnings_of(process)] == []


async def test_processes_that_start_before_their_stores_say_so_once() -> None:
    """However long the stores are absent, each error is logged once; then all of it works."""
    with short_directory() as directory, ExitStack() as processes:
        addresses = await addresses_of_absent_servers(directory)
        api, worker = Api(free_port()), Api(free_port())
        environment = {
            **ENVIRONMENT,
            **addresses,
            "ELASTICSEARCH_URL": f"tantivy://{directory}/search",
            "API_HOST": "127.0.0.1",
            "API_PORT": str(api.port),
            "WORKER_PORT": str(worker.port),
        }
        logs = [
            processes.enter_context(started((*PROGRAM, command), environment=environment))
            for command in ("api", "worker")
        ]

        async def tried_often() -> None:
            for door in (api, worker):
                retries = (await door.metrics())["polyglot_retries_total"]
                assert retries >= RETRIES

        await eventually(
            tried_often, within_seconds=READY_SECONDS, retried=(OSError, AssertionError)
        )
        for process in logs:
            told = Counter(without_time(line) for line in warnings_of(process))
            assert told
            assert [line for line, times in told.items() if times > 1] == []
            assert len(told) <= ABSENT_LINES_MAX

        postgres, valkey = embedded_servers(directory)
        async with running(postgres), running(valkey):

            async def ready() -> None:
                for door in (api, worker):
                    answer = await door.request("GET", "/health/ready")
                    assert answer.json["mode"] == "normal", answer.json

            await eventually(ready, within_seconds=READY_SECONDS)
            await api.persisted(await api.order())
            for process in logs:
                process.send(signal.SIGTERM)
                assert await process.ended() == 0


def without_time(line: str) -> str:
    """Return what a log line says, whenever it was written."""
    return json.dumps({**json.loads(line), "time": None})


def embedded_servers(directory: Path) -> tuple[EmbeddedPostgres, EmbeddedValkey]:
    """Return servers that have the same addresses at each start."""
    return EmbeddedPostgres(directory / "postgres"), EmbeddedValkey(directory / "valkey")


async def addresses_of_absent_servers(directory: Path) -> dict[str, str]:
    """Return the settings that name two servers, which do not run now."""
    postgres, valkey = embedded_servers(directory)
    async with running(postgres), running(valkey):
        return {
            "POSTGRES_DSN": postgres.dsn,
            "REDIS_ADDR": valkey.url,
            "RABBITMQ_URL": valkey.url,
        }
