"""The embedded deployment, for the record: accept, drain, read and search; there is no peer."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx2

from bench import orders
from bench.benches.drain import drain
from bench.context import Context
from bench.figures import Figure
from bench.processes import free_port
from bench.sides import Product, product_environment, product_processes
from bench.stock import fill
from bench.stores import Cache, Record
from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey

STORED = 100_000
DRAINED = 100_000
SHOWN_SECONDS = 2.0
"""An indexed order is searchable after one at most."""


class Embedded(Product):
    """This project on its bundled servers, with API and worker started one by one."""

    name = "embedded"

    def __init__(
        self, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, search: Path, logs: Path
    ) -> None:
        database = urlsplit(postgres.dsn).path.strip("/")
        self.record = Record(postgres.dsn, database)
        self.cache = Cache(valkey.url)
        port = free_port()
        environment = product_environment(
            {
                "POSTGRES_DSN": postgres.dsn,
                "REDIS_ADDR": valkey.url,
                "RABBITMQ_URL": valkey.url,
                "ELASTICSEARCH_URL": f"tantivy://{quote(str(search))}",
            },
            port,
        )
        super(Product, self).__init__(*product_processes(environment, logs, self.name), port)
        self.environment = environment

    async def stop(self) -> None:
        """Stop API and worker; there is no second API."""
        await super(Product, self).stop()

    async def forget_accepted(self) -> None:
        """Empty the one server that is cache and queue."""
        await self.cache.wipe()

    async def documents(self) -> int:
        """Return how many orders a search can find."""
        await asyncio.sleep(SHOWN_SECONDS)
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False) as client:
            answer = await client.get("/api/search?limit=1&sort=newest&facets=true")
            found: int = answer.raise_for_status().json()["total"]
            return found


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    async with deployment(context) as embedded:
        await fill(context, embedded, STORED)
        await embedded.worker.stop()
        searched = [await _load(context, embedded, context.files.queries, 16)]
        rows = await embedded.record.fetch("SELECT id FROM orders")
        paths = context.directory / "reads-embedded"
        reads = orders.reads([str(row[0]) for row in rows], zipf=True, number=200_000)
        paths.write_text("".join(f"{path}\n" for path in reads))
        read = [await _load(context, embedded, paths, 64) for _ in range(context.rounds)]
        drained = [await drain(context, embedded, DRAINED)]
        await embedded.forget_accepted()
        accepted = {
            connections: [
                await _load(context, embedded, context.files.singles, connections, "/api/orders")
                for _ in range(context.rounds)
            ]
            for connections in (64, 256)
        }
    return [
        *(
            Figure(f"embedded: accept, {connections} connections", "orders/s", rates)
            for connections, rates in accepted.items()
        ),
        Figure("embedded: drain, one worker", "orders/s", drained),
        Figure("embedded: read, Zipf over 100,000 ids", "orders/s", read),
        Figure("embedded: search, 100,000 orders", "answers/s", searched),
    ]


async def _load(
    context: Context, side: Embedded, lines: Path, connections: int, path: str | None = None
) -> float:
    found = await context.closed_loop(
        side,
        f"{lines.name}, {connections} connections",
        lines,
        seconds=context.seconds(4, 10),
        connections=connections,
        path=path,
    )
    return found.rate


@contextlib.asynccontextmanager
async def deployment(context: Context) -> AsyncIterator[Embedded]:
    """Give the bundled servers, empty; at the end they are deleted."""
    async with contextlib.AsyncExitStack() as stack:
        made = tempfile.TemporaryDirectory(dir=context.directory, prefix="embedded-")
        directory = Path(stack.enter_context(made))
        for path in (directory, context.directory):
            path.chmod(0o711)  # PostgreSQL may run as another user
        postgres = EmbeddedPostgres(directory / "postgres")
        valkey = EmbeddedValkey(directory / "valkey")
        for server in (postgres, valkey):
            await server.start()
            stack.push_async_callback(server.stop)
        embedded = Embedded(postgres, valkey, directory / "search", context.logs)
        stack.push_async_callback(embedded.stop)
        context.others.append(embedded)
        yield embedded
