"""The record's side of an audit, and the correction of its rollups under load.

Invariant: a persist transaction adds the same to the orders and to the cells. So in one snapshot
their difference is drift and nothing else, and later persists do not change it. Adding the
difference to a cell is therefore right at any moment, and needs no lock against persists; only one
process corrects at a time.
Invariant: a correction is committed only after the sums over the orders have confirmed it.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg

from polyglot_persistence.adapters.postgres.locks import lock_key
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.audit import (
    ID_MAX,
    Freshness,
    RangeSum,
    RecordRange,
    SalesDay,
    SalesTotals,
    Standing,
)

DAY_TIMEOUT_SECONDS: Final = 300.0
"""For comparing one day: ten million orders take some ten seconds."""

OUTBOX_ROW_IDS_MAX: Final = 1_000
"""In one outbox row: small enough for every indexer's batch."""

_CORRECTION: Final = lock_key("correct sales")


class PostgresAudit:
    """`AuditedRecord` over a pool; comparing days takes a connection of its own."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def range_from(self, first: UUID, orders_max: int) -> RecordRange:
        (row,) = await self._pool.read("audit_range", first, orders_max)
        sums = RangeSum(row["orders"], row["checksum"])
        return RecordRange(ID_MAX if sums.orders < orders_max else row["last"], sums)

    async def checksums_between(self, first: UUID, last: UUID) -> Mapping[UUID, int]:
        rows = await self._pool.read("checksums_between", first, last)
        return {row["id"]: row["checksum"] for row in rows}

    async def standing(self, ids: Sequence[UUID]) -> Standing:
        rows = await self._pool.read("standing", ids)
        return Standing(
            {row["id"]: row["checksum"] for row in rows if row["checksum"] is not None},
            frozenset(row["id"] for row in rows if row["waiting"]),
        )

    async def index_again(self, ids: Sequence[UUID]) -> None:
        async with self._pool.transaction() as session:
            for start in range(0, len(ids), OUTBOX_ROW_IDS_MAX):
                await session.fetch("index_again", ids[start : start + OUTBOX_ROW_IDS_MAX])

    async def count_orders(self) -> int:
        async with self._pool.dedicated(timeout_seconds=DAY_TIMEOUT_SECONDS) as session:
            orders: int = await session.fetchval("count_orders")
        return orders

    async def next_day(self, first: date) -> date | None:
        async with self._pool.reading() as session:
            day: date | None = await session.fetchval("next_sales_day", _midnight(first))
        return day

    async def compare_day(self, day: date, *, repair: bool) -> SalesDay:
        """Uses one transaction per rollup, so that no order of locks is needed."""
        midnight = _midnight(day)
        async with self._pool.dedicated(timeout_seconds=DAY_TIMEOUT_SECONDS) as session:
            orders = await session.fetchval("orders_of_day", midnight)
            hours = len(await session.fetch(_QUARTER_HOURS.wrong, midnight))
            products = len(await session.fetch(_PRODUCT_DAYS.wrong, midnight))
        if not repair or not (hours or products):
            return SalesDay(orders, hours, products, repaired=False)
        if hours:
            hours = await self._correct(_QUARTER_HOURS, day)
        if products:
            products = await self._correct(_PRODUCT_DAYS, day)
        return SalesDay(orders, hours, products, repaired=bool(hours or products))

    async def _correct(self, rollup: "_Rollup", day: date) -> int:
        """Correct a day's cells; return how many were wrong once the lock was held."""
        midnight = _midnight(day)
        async with self._pool.transaction(timeout_seconds=DAY_TIMEOUT_SECONDS) as session:
            await session.fetch("lock_correction", _CORRECTION)
            wrong = await session.fetch(rollup.wrong, midnight)
            lacking = [one for row in wrong for one in _lacking(row[rollup.key], row)]
            if lacking:
                keys, slots, revenues, orders = zip(*lacking, strict=True)
                of_day = (day,) if rollup is _PRODUCT_DAYS else ()
                await session.fetch(rollup.correct, *of_day, keys, slots, revenues, orders)
                await session.fetch(rollup.drop_empty, *of_day, keys, slots)
                if await session.fetch(rollup.wrong, midnight):
                    raise UnavailableError(f"the sales of {day} do not add up once corrected")
        return len(wrong)

    async def sales_totals(self) -> SalesTotals:
        async with self._pool.dedicated(timeout_seconds=DAY_TIMEOUT_SECONDS) as session:
            (row,) = await session.fetch("sales_totals")
        return SalesTotals(row["orders"], row["revenue"], row["equal"])

    async def rebuild_position(self) -> date | None:
        async with self._pool.reading() as session:
            position: date | None = await session.fetchval("rebuild_position")
        return position

    async def keep_rebuild_position(self, done_until: date | None) -> None:
        async with self._pool.transaction() as session:
            if done_until is None:
                await session.fetch("end_rebuild")
            else:
                await session.fetch("keep_rebuild_position", done_until)

    async def count_freshness(self, counts: Freshness) -> None:
        await self._pool.write("count_freshness", *counts)

    async def freshness(self) -> Freshness:
        (row,) = await self._pool.read("freshness")
        return Freshness(*row)


class _Rollup(NamedTuple):
    """The statements of one rollup, and the column by which it divides a day."""

    wrong: str
    correct: str
    drop_empty: str
    key: str


_QUARTER_HOURS: Final = _Rollup(
    "wrong_quarter_hours", "correct_quarter_hours", "drop_empty_quarter_hours", "bucket"
)
_PRODUCT_DAYS: Final = _Rollup(
    "wrong_product_days", "correct_product_days", "drop_empty_product_days", "product_name"
)


class _Lacking(NamedTuple):
    """The amounts to add to one slot of a cell."""

    key: Any
    slot: int
    revenue: Decimal
    orders: int


def _lacking(key: object, row: asyncpg.Record) -> Sequence[_Lacking]:
    """Return additions that correct the slots' sum; a cell without any order is emptied."""
    slots = row["slots"] or [0]
    if not row["vacant"]:
        return [_Lacking(key, slots[0], row["revenue"], row["orders"])]
    return [
        _Lacking(key, slot, -revenue, -orders)
        for slot, revenue, orders in zip(slots, row["revenues"], row["counts"], strict=True)
    ]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
