"""The sides that are compared: this project on real servers, the Go peer, and the embedded one.

Each has its own database, virtual host, Redis database and index on the same servers.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx2

from bench.processes import Process, StartError, free_port, run_to_end
from bench.stores import Cache, Index, Queues, Record
from polyglot_persistence.adapters.redis import keys

QUEUE = "order_queue"
"""Both sides call it so."""

INDEX = "orders"
"""The alias of this project's search index; `docs/ops.md` names it."""

READY_LOOKS = 600

PROGRAM = (sys.executable, "-P", "-m", "polyglot_persistence")

_NEVER = "@every 100h"
"""No refresh of the sales falls into a measurement; the `refresh` bench asks for its own."""


class Side:
    """An API, a worker, and their part of the stores."""

    name = ""

    def __init__(self, api: Process, worker: Process, api_port: int) -> None:
        self.api = api
        self.worker = worker
        self._api_port = api_port
        self.url = f"http://127.0.0.1:{api_port}"

    async def start_api(self, more: Mapping[str, str] | None = None) -> None:
        """Start the API, with `more` settings this once, and wait until it listens."""
        if not self.api.running:
            await self.api.start(more)
            await self.api.answers(self._api_port)

    async def stop(self) -> None:
        """Stop API and worker."""
        await self.api.stop()
        await self.worker.stop()


class OnServers(Side):
    """A side on the real servers."""

    record: Record
    cache: Cache
    queues: Queues
    index: Index

    async def wipe(self) -> None:
        """Stop everything and empty all stores."""
        await self.stop()
        await self.record.wipe()
        await self.cache.wipe()
        await self.queues.wipe()
        await self.index.wipe()

    async def forget_accepted(self) -> None:
        """Empty cache and queue, while the API runs and nothing is under way."""
        await self.cache.wipe()
        await self.queues.purge(QUEUE)


class TwoProcesses(Side):
    """The API once more, in two processes on a port of their own, over the same stores."""

    name = "product, 2 API processes"

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        port = free_port()
        api, worker = product_processes(
            {**environment, "API_PORT": str(port), "API_PROCESSES": "2"}, logs
        )
        api.name = self.name
        super().__init__(api, worker, port)

    async def start_api(self, more: Mapping[str, str] | None = None) -> None:
        """Start the API, with `more` settings this once, and wait until it takes orders."""
        await super().start_api(more)
        await until_ready(self)


class Product(OnServers):
    """This project on Redis, RabbitMQ, PostgreSQL and Elasticsearch."""

    name = "product"
    environment: Mapping[str, str]
    """The settings of its processes."""

    def __init__(self, servers: Mapping[str, str], logs: Path) -> None:
        self.record = Record(servers["POSTGRES_DSN"], "bench_product")
        self.cache = Cache(f"redis://{servers['REDIS_ADDR']}/1")
        management = servers["RABBITMQ_MANAGEMENT_URL"]
        self.queues = Queues(servers["RABBITMQ_URL"], management, "bench-product")
        self.index = Index(servers["ELASTICSEARCH_URL"], INDEX)
        port = free_port()
        environment = product_environment(
            {
                "POSTGRES_DSN": self.record.dsn,
                "REDIS_ADDR": self.cache.url,
                "RABBITMQ_URL": self.queues.url,
                "ELASTICSEARCH_URL": self.index.url,
            },
            port,
        )
        super().__init__(*product_processes(environment, logs), port)
        self.environment = environment
        self.two = TwoProcesses(environment, logs)

    async def stop(self) -> None:
        """Stop API and worker."""
        await self.two.stop()
        await super().stop()

    async def wipe(self) -> None:
        """Stop everything, empty all stores, make the tables."""
        await super().wipe()
        await migrate(self.record)

    async def start_api(self, more: Mapping[str, str] | None = None) -> None:
        """Start the API, with `more` settings this once, and wait until it takes orders."""
        await super().start_api(more)
        await until_ready(self)

    async def dirty(self) -> int:
        """Return how many orders are accepted and not persisted."""
        return int(await self.cache.command("ZCARD", keys.DIRTY))

    async def unindexed(self) -> int:
        """Return how many orders are persisted and not indexed."""
        rows = await self.record.fetch("SELECT coalesce(sum(orders), 0) FROM index_outbox")
        return int(rows[0][0])

    async def documents(self) -> int:
        """Return how many orders a search can find."""
        return await self.index.documents()

    async def orders(self) -> int:
        """Return how many orders are persisted, without counting them one by one."""
        rows = await self.record.fetch("SELECT coalesce(sum(orders), 0) FROM sales_quarter_hours")
        return int(rows[0][0])


class Peer(OnServers):
    """The Go peer, built from its source."""

    name = "peer"

    def __init__(self, servers: Mapping[str, str], source: Path, directory: Path) -> None:
        self.schema = (source / "init.sql").read_text()
        self.record = Record(servers["POSTGRES_DSN"], "bench_peer")
        self.cache = Cache(f"redis://{servers['REDIS_ADDR']}/0")  # it knows no other
        management = servers["RABBITMQ_MANAGEMENT_URL"]
        self.queues = Queues(servers["RABBITMQ_URL"], management, "bench-peer")
        self.index = Index(servers["ELASTICSEARCH_URL"], "bench-peer")
        api, worker = _build(source, directory, self.index.name)
        port = free_port()
        environment = {
            **_plain_environment(),
            "POSTGRES_DSN": f"{self.record.dsn}?sslmode=disable",
            "REDIS_ADDR": servers["REDIS_ADDR"],
            "RABBITMQ_URL": self.queues.url,
            "ELASTICSEARCH_URL": self.index.url,
            "API_PORT": str(port),
            "MV_REFRESH_SCHEDULE": _NEVER,
        }
        # It logs every order; nowhere is where that costs it least.
        super().__init__(
            Process("peer api", [str(api)], environment, None),
            Process("peer worker", [str(worker)], environment, None),
            port,
        )

    async def wipe(self) -> None:
        """Stop everything, empty all stores, make the tables."""
        await super().wipe()
        await self.record.execute(self.schema)

    async def orders(self) -> int:
        """Return how many orders are persisted."""
        rows = await self.record.fetch("SELECT count(*) FROM orders")
        return int(rows[0][0])


async def until_ready(side: Side) -> None:
    """Return once the API takes orders.

    Raises:
        StartError: it does not.
    """
    async with httpx2.AsyncClient(base_url=side.url, trust_env=False) as client:
        for _ in range(READY_LOOKS):
            if (await client.get("/health/ready")).is_success:
                return
            await asyncio.sleep(0.1)
    raise StartError(f"{side.api.name} is not ready")


async def migrate(record: Record) -> None:
    """Make the tables of this project.

    Raises:
        StartError: it failed; its line on stderr says why.
    """
    environment = {**_plain_environment(), "POSTGRES_DSN": record.dsn}
    code, _ = await run_to_end([*PROGRAM, "migrate"], environment, errors=sys.stderr)
    if code:
        raise StartError(f"polyglot migrate: exit code {code}")


def product_environment(stores: Mapping[str, str], port: int) -> dict[str, str]:
    """Return the settings of a run: the defaults, but for what a bench does on purpose."""
    return {
        **_plain_environment(),
        **stores,
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "MV_REFRESH_SCHEDULE": _NEVER,
        # Nor does an audit, which a worker else begins a minute after its start; it would also
        # repair what `scale` plants before the audit that is measured comes to it.
        "AUDIT_INTERVAL_SECONDS": "0",
        # Intake is measured without a worker, so the backlog is meant to grow.
        "DIRTY_ORDERS_MAX": "20000000",
    }


def product_processes(
    environment: Mapping[str, str], logs: Path, name: str = "product"
) -> tuple[Process, Process]:
    """Return the API and the worker of one deployment; `name` is how tables tell it."""
    api, worker = (
        Process(f"{name} {part}", [*PROGRAM, part], environment, logs / f"{part}.log")
        for part in ("api", "worker")
    )
    return api, worker


def _plain_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def _build(source: Path, directory: Path, index: str) -> tuple[Path, Path]:
    """Build a copy of the peer; its index gets a name of its own, for both sides call it orders."""
    copy = directory / "source"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    search = copy / "internal" / "search" / "search.go"
    named = search.read_text().replace(
        'const ordersIndex = "orders"', f'const ordersIndex = "{index}"'
    )
    search.write_text(named)
    programs = directory / "api", directory / "worker"
    for program in programs:
        command = ["go", "build", "-o", str(program), f"./cmd/{program.name}"]
        subprocess.run(command, cwd=copy, check=True, stdout=sys.stderr)
    return programs
