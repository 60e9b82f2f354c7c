"""What must be true of the system whatever happened to it, checked through its own API.

A checker knows nothing of how the history came about.
"""

import random
import time
from collections import Counter
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.support.clients import Connection, History, ask_all, is_order
from tests.support.eventually import eventually, look_again

SETTLE_SECONDS = 120.0
READ_ORDERS_MAX = 5_000
"""Of the acknowledged orders, so many are asked for one by one; all are looked for in the pages."""

Stored = dict[UUID, tuple[str, Decimal]]


async def check_nothing_lost_or_doubled(port: int, history: History, *, word: str) -> str:
    """Wait until everything acknowledged is searchable; then compare history and stores.

    `word` is in the name of every order. Returns a line with the counts.
    """
    assert not history.wrong, f"{len(history.wrong)} wrong answers: {history.wrong[:3]}"
    stored = await _settled(port, history, word)
    changed = [i for i, what in history.acknowledged.items() if stored[i] != what]
    assert not changed, f"changed: {changed[:3]}"
    doubled = [name for name, times in Counter(n for n, _ in stored.values()).items() if times > 1]
    assert not doubled, f"doubled: {doubled[:3]}"
    never_promised = {i: what for i, what in stored.items() if i not in history.acknowledged}
    refused = [name for name, _ in never_promised.values() if name in history.refused]
    assert not refused, f"refused and stored all the same: {refused[:3]}"
    unexplained = [name for name, _ in never_promised.values() if name not in history.unknown]
    assert not unexplained, f"nobody sent: {unexplained[:3]}"
    await _check_each(port, history)
    await _check_sales(port, stored)
    return (
        f"acknowledged {len(history.acknowledged)}, persisted {len(stored)}, "
        f"indexed {len(stored)}, of unknown outcome {len(history.unknown)}, "
        f"refused {len(history.refused)}, lost 0, doubled 0; reads {dict(history.read_back)}"
    )


async def whole_record(port: int) -> list[dict[str, Any]]:
    """Return every persisted order, by the pages of the API."""
    orders: list[dict[str, Any]] = []
    path: str | None = "/api/orders?limit=200"
    with Connection(port) as connection:
        while path:
            status, page = await connection.request("GET", path)
            assert status == 200, page
            orders += page["orders"]
            path = page.get("next")
    assert len({order["id"] for order in orders}) == len(orders), "a page repeats an order"
    return orders


async def _settled(port: int, history: History, word: str) -> Stored:
    """Wait until all that was acknowledged is in the record, and the record in the index.

    To read the record takes a while, so each look has its time anew as long as something moves.
    """
    last: tuple[int, int | None] | None = None
    deadline = 0.0
    while True:
        record = await whole_record(port)
        stored = {UUID(row["id"]): (row["product_name"], Decimal(row["amount"])) for row in record}
        missing = [i for i in history.acknowledged if i not in stored]
        while True:
            searchable = await _searchable(port, word)
            if not missing and searchable == len(stored):
                return stored
            seen = len(stored), searchable
            if seen != last:
                last, deadline = seen, time.monotonic() + SETTLE_SECONDS
            assert time.monotonic() < deadline, (
                f"{len(missing)} acknowledged orders are not in the record: {missing[:3]}; "
                f"{len(stored)} are, {searchable} are searchable"
            )
            await look_again()
            if missing or (searchable is not None and searchable > len(stored)):
                break


async def _searchable(port: int, word: str) -> int | None:
    with Connection(port) as connection:
        # With facets the total is exact, however many match.
        status, answer = await connection.request("GET", f"/api/search?q={word}&facets=true")
    assert status in (200, 503), answer
    return answer["total"] if status == 200 else None


async def _check_each(port: int, history: History) -> None:
    ids = random.sample(history.ids, min(len(history.ids), READ_ORDERS_MAX))
    answers = await ask_all(port, [f"/api/orders/{i}" for i in ids])
    for order_id, (status, answer) in zip(ids, answers, strict=True):
        # 503 is honest and temporary; 404 for an acknowledged order is the worst of lies.
        is_right = status == 200 and is_order(answer, history.acknowledged[order_id])
        assert is_right or status == 503, f"{order_id}: {status} {answer}"
    few = ids[:200]

    async def are_searchable() -> None:
        answers = await ask_all(port, [f"/api/orders/{i}/status" for i in few])
        for order_id, (status, answer) in zip(few, answers, strict=True):
            assert status == 200, f"{order_id}: {status} {answer}"
            assert answer["status"] == "searchable", f"{order_id}: {answer}"

    await eventually(are_searchable)  # an index that is late with its answer counts as none


async def _check_sales(port: int, stored: Stored) -> None:
    with Connection(port) as connection:
        status, answer = await connection.request("POST", "/api/admin/refresh")
        assert status == 200, answer
        status, days = await connection.request("GET", "/api/dashboard/sales?days=36600")
        assert status == 200, days
    assert len(stored) == sum(day["orders"] for day in days)
    revenue = sum((amount for _, amount in stored.values()), Decimal(0))
    assert revenue == sum(Decimal(day["total_revenue"]) for day in days)
