"""`polyglot up`, the whole embedded deployment: started, stopped, killed and started again."""

import os
import shlex
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import Api
from tests.support.eventually import eventually as once
from tests.support.processes import (
    Up,
    alive,
    descendants,
    eventually,
    free_port,
    polyglot_up,
    started,
    up_command,
)
from tests.support.servers import short_directory

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


async def _found(up: Up, order_id: str) -> None:
    answer = await up.request("GET", f"/api/orders/{order_id}")
    assert (answer.status, answer.json["id"]) == (200, order_id), answer


async def test_a_stop_is_clean_and_the_next_start_finds_everything(directory: Path) -> None:
    """SIGTERM ends all of it with code 0 and nothing lost; SIGINT does the same."""
    async with polyglot_up(directory / "data") as up:
        order_id = await up.order()
        await _found(up, order_id)
        family = descendants(up.process.pid)
        up.process.send(signal.SIGTERM)
        up.process.send(signal.SIGTERM)  # a second one changes nothing
        assert await up.process.ended() == 0
        assert not any(map(alive, family))
        assert up.process.output() == f"ready: {up.url}\n"
        assert "Traceback" not in up.process.log()
    async with polyglot_up(directory / "data") as up:
        await _found(up, order_id)
        await up.persisted(order_id)
        up.process.send(signal.SIGINT)
        assert await up.process.ended() == 0


async def test_two_run_side_by_side(directory: Path) -> None:
    """Two of them with ports and directories of their own know nothing of each other."""
    async with polyglot_up(directory / "one") as one, polyglot_up(directory / "two") as two:
        order_id = await one.order()
        await _found(one, order_id)
        assert (await two.request("GET", f"/api/orders/{order_id}")).status == 404


async def test_a_directory_in_use_or_a_taken_port_is_one_clear_line(directory: Path) -> None:
    """The second start says what is the matter, ends with code 2, and harms nothing."""
    async with polyglot_up(directory / "data") as up:
        with started(up_command(directory / "data", free_port())) as second:
            assert await second.ended() == 2
            assert f"in use by process {up.process.pid}" in second.log()
            assert "Traceback" not in second.log()
        with started(up_command(directory / "other", up.port)) as second:
            assert await second.ended() == 2
            assert f"port {up.port} on 127.0.0.1 is taken" in second.log()
            assert "Traceback" not in second.log()
        await up.order()


async def test_a_port_taken_on_all_addresses_counts_as_taken(directory: Path) -> None:
    """Nothing is started when the API could not listen."""
    with socket.create_server(("0.0.0.0", 0)) as other:
        with started(up_command(directory / "data", other.getsockname()[1])) as process:
            assert await process.ended() == 2
        assert not (directory / "data" / "postgres").exists()


async def test_killed_and_started_again_at_once(directory: Path) -> None:
    """After kill -9 the rest ends by itself, and a start in the meantime waits for that."""
    port = free_port()
    async with polyglot_up(directory / "data", port=port) as up:
        order_id = await up.order()
        family = descendants(up.process.pid)
        up.process.send(signal.SIGKILL)
        async with polyglot_up(directory / "data", port=port) as again:
            assert not any(map(alive, family))
            await _found(again, order_id)
            await again.persisted(order_id)
            await again.process.family_killed()  # all at one moment this time
        async with polyglot_up(directory / "data", port=port) as third:
            await _found(third, order_id)


async def test_killed_while_it_starts_for_the_first_time(directory: Path) -> None:
    """A half-written directory is recognised and made whole."""
    data = directory / "data"
    making, made = data / "postgres" / "cluster.new", data / "postgres" / "cluster"
    # What is being made is there for a moment only; whoever misses it sees what it became.
    for moment in (
        (making / "global", made),
        (made,),
        (data / "valkey" / "data" / "appendonlydir",),
    ):
        with started(up_command(data, free_port())) as process:
            await eventually(lambda moment=moment: any(path.exists() for path in moment))  # type: ignore[misc]
            await process.killed()
    async with polyglot_up(directory / "data") as up:
        await up.order()


async def test_stopped_while_it_starts(directory: Path) -> None:
    """A signal before it is ready ends it with code 0 and leaves nothing running."""
    with started(up_command(directory / "data", free_port())) as process:
        made = [directory / "data" / "postgres" / name for name in ("cluster.new", "cluster")]
        await eventually(lambda: any(path.exists() for path in made))
        family = descendants(process.pid)
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
        assert process.output() == ""
        assert not any(map(alive, family))
        assert "Traceback" not in process.log()


async def test_what_is_killed_is_started_again(directory: Path) -> None:
    """Each process may die; soon the whole works again, with everything acknowledged."""
    async with polyglot_up(directory / "data") as up:
        order_id = await up.order()
        for count, victim in enumerate(("api", "worker", "postgres", "valkey-server"), 1):
            pid = up.pid_of(victim)
            os.kill(pid, signal.SIGKILL)
            await eventually(
                lambda count=count: up.process.log().count('"restarted"') == count,  # type: ignore[misc]
                what=f"a restart of {victim}",
            )
            assert not alive(pid)
            await _accepts_again(up)
            await _found(up, order_id)
        await up.persisted(order_id)
        assert up.process.code is None


async def _accepts_again(up: Up) -> None:
    async def accepts() -> str:
        return await up.order("Bread")

    await up.persisted(await once(accepts, retried=(OSError, AssertionError)))


@pytest.mark.parametrize("name", ["[x]b", "a?b\\c*", "Doe, Jane"])
async def test_any_path_works(directory: Path, name: str) -> None:
    """Characters that mean something to Valkey's or PostgreSQL's clients, in a hostile shell."""
    foreign = {"PGSSLMODE": "verify-full", "PGHOST": "nowhere", "API_PORT": "tcp://10.96.0.1:80"}
    async with polyglot_up(directory / name, environment=foreign) as up:
        await up.persisted(await up.order())
        assert "API_PORT: is set by Kubernetes" in up.process.log()
    assert (directory / name / "valkey" / "data" / "appendonlydir").is_dir()


async def test_a_path_that_is_not_utf8_is_one_clear_line(directory: Path) -> None:
    """Addresses are text."""
    with started(up_command(directory / os.fsdecode(b"\xff"), free_port())) as process:
        assert await process.ended() == 2
        assert "is not UTF-8" in process.log()
        assert "Traceback" not in process.log()


@pytest.mark.parametrize("redirection", [">&-", "| true", "> /dev/full"])
async def test_it_runs_without_its_stdout(directory: Path, redirection: str) -> None:
    """Closed, without a reader, or on a full disk: the one line is not worth a stop."""
    port = free_port()
    line = " ".join(map(shlex.quote, up_command(directory / "data", port)))
    api = Api(port)
    with started(["bash", "-c", f"{line} {redirection}"]) as process:

        async def accepts() -> str:
            return await api.order("Bread")

        await api.persisted(
            await once(accepts, within_seconds=60, retried=(OSError, AssertionError))
        )
        await eventually(
            lambda: redirection == ">&-" or "stdout_lost" in process.log(), what="the lost line"
        )
        await api.order("Milk")
        assert process.code is None
        assert "Traceback" not in process.log()


async def test_its_owner_operates_it_and_a_proxy_does_not(directory: Path) -> None:
    """The key in its directory is needed, whatever the Host, and it outlives a restart."""
    data = directory / "data"
    keys = []
    for _ in range(2):
        async with polyglot_up(data, environment={"API_KEYS": ""}) as up:
            await up.order()
            for host in (f"127.0.0.1:{up.port}", "localhost", "[::1]"):
                headers = {"Host": host, "X-API-Key": ""}
                answer = await up.request("POST", "/api/admin/refresh", headers=headers)
                assert answer.status == 401
            key = (data / "operator.key").read_text().strip()
            keys.append(key)
            answer = await up.request("POST", "/api/admin/refresh", headers={"X-API-Key": key})
            assert answer.status == 200
            assert (data / "operator.key").stat().st_mode & 0o777 == 0o600
            assert key not in up.process.log() + up.process.output()
            assert '"operator_key"' in up.process.log()
    assert keys[0] == keys[1]
    async with polyglot_up(data) as up:  # it has a key of its operators' own
        answer = await up.request("POST", "/api/admin/refresh", headers={"X-API-Key": keys[0]})
        assert answer.status == 401
        assert (await up.request("POST", "/api/admin/refresh")).status == 200
