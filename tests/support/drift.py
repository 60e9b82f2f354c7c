"""Drift of every kind, planted: what an audit has to find, each exactly once.

Invariant: nothing here needs what only tests have installed, for the `scale` bench plants as well.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import asyncpg

from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.ports.audit import SearchContents
from polyglot_persistence.ports.cache import Cache, Settled
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import SearchIndex
from tests.support.eventually import eventually
from tests.support.orders import accepted

SHOWN_SECONDS = 20.0
"""An index shows a change after one; with a million orders on a busy machine it takes longer."""


class Projections(NamedTuple):
    """What is made from the record outside of it, and can be spoilt there."""

    search: SearchIndex
    contents: SearchContents
    cache: Cache


def altered(one: AcceptedOrder) -> Order:
    """Return the order with another amount, which is not in the record."""
    order = one.order
    return Order(order.id, order.product_name, order.amount + Decimal("0.01"), order.created_at)


async def shown(
    contents: SearchContents, present: Sequence[Order], absent: Sequence[Order]
) -> None:
    """Wait until search shows orders as they are given, and others not."""
    ids = [order.id for order in (*present, *absent)]

    async def attempt() -> None:
        assert await contents.checksums_of(ids) == {one.id: checksum(one) for one in present}

    await eventually(attempt, within_seconds=SHOWN_SECONDS)


async def plant(
    projections: Projections,
    record: "asyncpg.Connection[asyncpg.Record]",
    placed: Sequence[AcceptedOrder],
    each: int,
) -> dict[Drift, int]:
    """Spoil `each` of every kind, each in orders of its own; return what is to be found.

    `placed` are at least three times `each` orders that are in every store.
    """
    search, contents, cache = projections
    missing, changed, stale = (placed[n * each : (n + 1) * each] for n in range(3))
    assert len(stale) == each
    await search.remove([one.order.id for one in missing])
    await search.index(
        [StoredOrder(altered(one), one.accepted_at, one.accepted_at) for one in changed]
    )
    extra = [accepted(n, name="ghost") for n in range(each)]
    await search.index([StoredOrder(one.order, one.accepted_at, one.accepted_at) for one in extra])
    lie = [AcceptedOrder(altered(one), one.accepted_at, one.order.id) for one in stale]
    lost = [accepted(n, name="lost", order_id=new_id()) for n in range(each)]
    await cache.settle([Settled(EntryState.CLEAN, one) for one in (*lie, *lost)])
    await shown(
        contents,
        [*[altered(one) for one in changed], *[one.order for one in extra]],
        [one.order for one in missing],
    )
    return {
        Drift.MISSING_DOCUMENT: each,
        Drift.CHANGED_DOCUMENT: each,
        Drift.EXTRA_DOCUMENT: each,
        Drift.STALE_ENTRY: each,
        Drift.LOST_ORDER: each,
        Drift.WRONG_QUARTER_HOUR: await _spoil(record, "sales_quarter_hours", ("bucket",), each),
        Drift.WRONG_PRODUCT_DAY: await _spoil(
            record, "sales_product_days", ("day", "product_name"), each
        ),
    }


async def _spoil(
    record: "asyncpg.Connection[asyncpg.Record]", table: str, key: Sequence[str], cells_max: int
) -> int:
    """Make cells all over the table wrong, each in one of its slots; return how many."""
    columns = ", ".join(key)
    own, chosen = (", ".join(f"{of}.{column}" for column in (*key, "slot")) for of in "ab")
    async with record.transaction():
        await record.execute(f"LOCK TABLE {table}")
        spoilt = await record.fetch(
            f"UPDATE {table} AS a SET revenue = revenue + 1.23"
            f" FROM (SELECT * FROM (SELECT DISTINCT ON ({columns}) {columns}, slot FROM {table}"
            f" ORDER BY {columns}) AS cells ORDER BY md5(cells::text) LIMIT {cells_max}) AS b"
            f" WHERE ({own}) = ({chosen}) RETURNING 1"
        )
    return len(spoilt)
