"""What the stores hold, read past the product: plain clients and the formats that it documents."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import tantivy
from elasticsearch import AsyncElasticsearch, NotFoundError
from pamqp import commands

from polyglot_persistence.adapters.rabbitmq.connection import open_connection
from polyglot_persistence.config.addresses.rabbitmq import read_rabbitmq
from polyglot_persistence.errors import UnavailableError
from tests.fault.checkers import Held, Letter, Row, Sum
from tests.support.queues import Deaf
from tests.support.servers import redis_value

ENTRY = "polyglot:order:"
DIRTY = "polyglot:dirty"
ENTRIES_AT_ONCE = 2_000
DOCUMENTS_AT_ONCE = 10_000
NO_SUCH_QUEUE = "404"
"""How the broker begins to say why it has closed a channel."""


async def record(dsn: str, held: Held) -> None:
    """Add what PostgreSQL holds; the daily view is refreshed before."""
    connection = await asyncpg.connect(dsn, timeout=10, server_settings={"TimeZone": "UTC"})
    try:
        async with connection.transaction(isolation="repeatable_read"):
            held.record = [
                Row(str(row[0]), row[1], _cents(row[2]), row[3])
                for row in await connection.fetch(
                    "SELECT id, product_name, amount, created_at FROM orders", timeout=60
                )
            ]
            held.letters = [
                Letter(None if row[0] is None else str(row[0]), row[1], row[2])
                for row in await connection.fetch(
                    "SELECT order_id, stage, reason FROM dead_letters"
                )
            ]
            held.quarter_hours = await _sums(
                connection,
                "SELECT bucket, sum(revenue), sum(orders)::bigint"
                " FROM sales_quarter_hours GROUP BY 1",
            )
            rows = await connection.fetch(
                "SELECT day, product_name, sum(revenue), sum(orders)::bigint"
                " FROM sales_product_days GROUP BY 1, 2"
            )
            held.product_days = {(row[0], row[1]): Sum(_cents(row[2]), row[3]) for row in rows}
        held.outbox = await connection.fetchval("SELECT count(*) FROM index_outbox")
        await connection.execute(
            "REFRESH MATERIALIZED VIEW CONCURRENTLY daily_sales_mv", timeout=60
        )
        held.days = await _sums(
            connection, "SELECT sale_date, total_revenue, orders FROM daily_sales_mv"
        )
    finally:
        await connection.close(timeout=10)


async def unfinished(dsn: str) -> tuple[int, int]:
    """Return how many orders the record has and how many outbox rows wait."""
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM index_outbox)", timeout=10
        )
        assert row is not None
        return row[0], row[1]
    finally:
        await connection.close(timeout=5)


async def record_ids(dsn: str) -> set[str]:
    """Return the ids of all orders of the record."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return {str(row[0]) for row in await connection.fetch("SELECT id FROM orders", timeout=60)}
    finally:
        await connection.close(timeout=10)


async def dead_payloads(dsn: str) -> dict[bytes, str | None]:
    """Return the payloads of all dead letters, each with its order's id if that was readable."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        rows = await connection.fetch("SELECT payload, order_id FROM dead_letters", timeout=60)
        return {row[0]: None if row[1] is None else str(row[1]) for row in rows}
    finally:
        await connection.close(timeout=10)


async def cache(url: str, ids: Sequence[str], held: Held) -> None:
    """Add the entries of these orders and the size of the dirty set."""
    held.dirty = await dirty(url)
    found: dict[str, tuple[str, str, int]] = {}
    for start in range(0, len(ids), ENTRIES_AT_ONCE):
        some = ids[start : start + ENTRIES_AT_ONCE]
        entries = await redis_value(url, "MGET", *(ENTRY + order_id for order_id in some))
        for order_id, raw in zip(some, entries, strict=True):
            if raw is not None:
                body = json.loads(raw[raw.index(b"\n") + 1 :], parse_float=Decimal)
                assert body["id"] == order_id, raw
                found[order_id] = (chr(raw[0]), body["product_name"], _cents(body["amount"]))
    held.cached = found


async def dirty(url: str) -> int:
    """Return the size of the dirty set."""
    return int(await redis_value(url, "ZCARD", DIRTY))


async def stream_length(url: str) -> int:
    """Return how many messages of the embedded queue are not yet acknowledged."""
    return int(await redis_value(url, "XLEN", "order_queue"))


async def tantivy_documents(directory: Path) -> list[tuple[str, str, int]]:
    """Return every document of the embedded search index."""
    return await asyncio.to_thread(lambda: list(_documents(directory)))


async def tantivy_count(directory: Path) -> int:
    """Return how many documents it has; none if there is no index."""

    def count() -> int:
        index = _index(directory)
        return 0 if index is None else index.searcher().num_docs

    return await asyncio.to_thread(count)


def _documents(directory: Path) -> Iterator[tuple[str, str, int]]:
    index = _index(directory)
    if index is None:
        return
    searcher = index.searcher()
    found = searcher.search(tantivy.Query.all_query(), limit=max(searcher.num_docs, 1), count=False)
    for _, address in found.hits:
        source = msgspec.msgpack.decode(searcher.doc(address)["source"][0])
        yield str(source[0]), source[1], source[2]


def _index(directory: Path) -> tantivy.Index | None:
    try:
        name = json.loads((directory / "current").read_bytes())[0]
    except (OSError, ValueError):
        return None
    return tantivy.Index.open(str(directory / name))


async def elasticsearch_count(client: AsyncElasticsearch, alias: str) -> int:
    """Return how many orders a search can find; none if there is no index."""
    try:
        await client.indices.refresh(index=alias)
        return int((await client.count(index=alias))["count"])
    except NotFoundError:
        return 0


async def elasticsearch_documents(
    client: AsyncElasticsearch, alias: str
) -> list[tuple[str, str, int]]:
    """Return every order that a search can find, in slices by id."""
    documents: list[tuple[str, str, int]] = []
    after: list[str] | None = None
    while True:
        found = await client.search(
            index=alias,
            size=DOCUMENTS_AT_ONCE,
            sort=[{"id": "asc"}],
            search_after=after,
            source_includes=["id", "product_name", "amount_cents"],
        )
        hits = found["hits"]["hits"]
        if not hits:
            return documents
        sources = [hit["_source"] for hit in hits]
        documents += [(x["id"], x["product_name"], x["amount_cents"]) for x in sources]
        after = hits[-1]["sort"]


async def queue_ready(url: str, name: str) -> int:
    """Return how many messages of a RabbitMQ queue no consumer holds; none if it is not there."""
    connection = await open_connection(
        read_rabbitmq(url), connect_timeout_seconds=5, timeout_seconds=5
    )
    try:
        channel = await connection.channel(Deaf())
        try:
            declared = await channel.call(
                commands.Queue.Declare(queue=name, passive=True), commands.Queue.DeclareOk
            )
        except UnavailableError:
            if channel.closed_because.startswith(NO_SUCH_QUEUE):
                return 0
            raise
        return int(declared.message_count or 0)
    finally:
        await connection.close()


async def _sums(connection: Any, sql: str) -> Mapping[Any, Sum]:
    return {row[0]: Sum(_cents(row[1]), row[2]) for row in await connection.fetch(sql)}


def _cents(amount: Any) -> int:
    return int(Decimal(amount) * 100)
