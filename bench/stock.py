"""Fills a deployment: imports orders and waits until they are persisted and indexed."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx2

from bench.context import Context
from bench.orders import Line, imported
from bench.sides import Product

CHUNK = 4_000
CONNECTIONS = 2
IMPORT_TIMEOUT_SECONDS = 600.0


async def send(url: str, lines: list[Line], first: int, number: int) -> float:
    """Import orders over two connections; return the seconds that it took.

    The lines are made before the time begins.
    """
    share = number // CONNECTIONS
    bodies = [
        _chunks(lines, first + n * share, share + (number % CONNECTIONS if n == 0 else 0))
        for n in range(CONNECTIONS)
    ]
    timeout = httpx2.Timeout(IMPORT_TIMEOUT_SECONDS)
    async with httpx2.AsyncClient(base_url=url, timeout=timeout, trust_env=False) as client:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for body in bodies:
                tasks.create_task(_import(client, body))
        return time.perf_counter() - started


def _chunks(lines: list[Line], first: int, number: int) -> list[bytes]:
    made = list(imported(lines, first, number))
    return [b"".join(made[n : n + CHUNK]) for n in range(0, number, CHUNK)]


async def _import(client: httpx2.AsyncClient, chunks: list[bytes]) -> None:
    for chunk in chunks:
        answer = await client.post(
            "/api/orders/import", content=chunk, headers={"Content-Type": "application/x-ndjson"}
        )
        answer.raise_for_status()
        if answer.json()["errors"]:
            raise RuntimeError(f"an import was rejected: {answer.text[:500]}")


async def fill(context: Context, product: Product, number: int) -> None:
    """Bring the record and the index to so many orders; what is there stays."""
    await product.start_api()
    if not product.worker.running:
        await product.worker.start()
    there = await product.orders()
    while there < number:
        step = min(100_000, number - there)
        await send(product.url, context.lines, there, step)
        there += step
        await settled(product)
        context.tell(f"stock: {there:,} orders")
    await settled(product)


async def settled(product: Product) -> None:
    """Return once nothing is dirty and nothing waits to be indexed."""
    async for _ in looks(0.05):
        if await product.dirty() == 0 and await product.unindexed() == 0:
            return


async def looks(seconds: float, deadline_seconds: float = 600.0) -> AsyncIterator[float]:
    """Yield the time again and again, until a deadline.

    Raises:
        TimeoutError: it is over.
    """
    deadline = time.perf_counter() + deadline_seconds
    while (now := time.perf_counter()) < deadline:
        yield now
        await asyncio.sleep(seconds)
    raise TimeoutError(f"not within {deadline_seconds:.0f} s")
