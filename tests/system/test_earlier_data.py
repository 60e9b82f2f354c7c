"""Data directories of earlier versions: their orders are there, acknowledged and searchable."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.earlier import BEFORE_LEAST_PRIVILEGE, source_of
from tests.support.eventually import eventually as once
from tests.support.other_users import NEEDS_ROOT, as_user, interpreter_for_all, python_path
from tests.support.processes import Up, free_port, started, up_command

pytestmark = [pytest.mark.timeout(240), NEEDS_ROOT]

ORDERS = 5
NOBODY = 65_534
READY_SECONDS = 90.0


@asynccontextmanager
async def up_as(uid: int, data: Path, source: Path | None = None) -> AsyncIterator[Up]:
    """Run `polyglot up` as that user, of these sources or of today's."""
    command = up_command(data, port := free_port())
    environment = {"PYTHONPATH": python_path(*([source] if source else [])), "API_KEYS": ""}
    if uid:
        command = [*as_user(uid), interpreter_for_all(), *command[1:]]
    with started(command, environment=environment) as process:
        await process.printed("ready: ", READY_SECONDS)
        yield Up(process, port)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("uid", [0, NOBODY], ids=["root", "ordinary user"])
async def test_a_directory_of_before_least_privilege_starts(
    uid: int, stop: signal.Signals, directory: Path
) -> None:
    """Stopped or killed, as root or as an ordinary user: every order is found, and more follow."""
    source = source_of(BEFORE_LEAST_PRIVILEGE, directory)
    home = directory / "home"
    home.mkdir()
    os.chown(home, uid, uid)
    data = home / "data"
    async with up_as(uid, data, source) as up:
        ids = [await up.order("Old milk") for _ in range(ORDERS)]
        up.process.send(stop)  # killed, the servers end by themselves, or with the next start
        await up.process.ended()
    postgres_owner = (data / "postgres").stat().st_uid
    assert postgres_owner == NOBODY
    assert (data / "valkey" / "appendonlydir").is_dir()
    for _ in range(2):
        async with up_as(uid, data) as up:
            for order_id in ids:
                await up.persisted(order_id)

            async def all_found() -> None:
                found = (await up.request("GET", "/api/search?q=milk&limit=100")).json["hits"]
                assert {hit["id"] for hit in found} == set(ids)

            await once(all_found, within_seconds=30, retried=(AssertionError, KeyError))
            ids.append(await up.order("New milk"))
            up.process.send(signal.SIGTERM)
            assert await up.process.ended() == 0
            assert "Traceback" not in up.process.log()


@NEEDS_ROOT
async def test_an_earlier_version_does_not_begin_with_an_empty_cache(directory: Path) -> None:
    """It finds a file where its log was, says so, and changes nothing; today's goes on."""
    source = source_of(BEFORE_LEAST_PRIVILEGE, directory)
    async with up_as(0, directory / "data") as up:
        order_id = await up.order()
        up.process.send(signal.SIGTERM)
        assert await up.process.ended() == 0
    command = up_command(directory / "data", free_port())
    with started(command, environment={"PYTHONPATH": python_path(source)}) as process:
        assert await process.ended(READY_SECONDS) == 2
        assert "appendonlydir" in process.log()
        assert process.output() == ""
    async with up_as(0, directory / "data") as up:
        await up.persisted(order_id)
