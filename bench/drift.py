"""Drift of every kind, planted in a deployment, and what an audit says of it."""

from collections.abc import Iterator, Mapping

from bench.sides import Product
from polyglot_persistence.bootstrap.stores import connect
from polyglot_persistence.config import load
from polyglot_persistence.domain.order import AcceptedOrder, Order
from tests.support.drift import Projections, plant

EACH = 1_000
PARTS = 3
"""Of the stored orders: one without a document, one with another, one with a stale cache entry."""

_CHOSEN = """
    SELECT id, product_name, amount, created_at, accepted_at
    FROM orders ORDER BY md5(id::text) LIMIT $1
"""
"""From all over the ids, so that no range of them is free of drift."""


async def spoil(side: Product) -> Mapping[str, int]:
    """Plant `EACH` of every kind and return what is to be found, by the names of the report.

    No worker may run, for an index in a directory has one writer.
    """
    rows = await side.record.fetch(_CHOSEN, EACH * PARTS)
    placed = [AcceptedOrder(Order(*row[:4]), row[4], row[0]) for row in rows]
    stores = connect(load(side.environment))
    connection = await side.record.connect()
    try:
        projections = Projections(stores.search, stores.audit.contents, stores.cache)
        planted = await plant(projections, connection, placed, EACH)
        return {drift.value: number for drift, number in planted.items()}
    finally:
        await connection.close()
        await stores.close()


def unlike(
    planted: Mapping[str, int], found: Mapping[str, Mapping[str, int]], *, repaired: bool
) -> Iterator[str]:
    """Yield what an audit's report says otherwise than was planted, a line for each kind."""
    for drift, told in found.items():
        wanted = planted.get(drift, 0)
        if told != {"found": wanted, "repaired": wanted if repaired else 0}:
            yield (f"{drift}: {wanted} planted, {told['found']} found, {told['repaired']} repaired")
