"""What must be true of the system whatever happened to it, checked through its own API.

A checker knows nothing of how the history came about.
"""

import asyncio
import time
from collections import Counter
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.support.clients import Connection, History, ask_all

SETTLE_SECONDS = 90.0


async def check_nothing_lost_or_doubled(port: int, history: History) -> str:
    """Wait until everything acknowledged is searchable; then compare history and stores.

    Returns a line with the counts.
    """
    await _all_searchable(port, history)
    record = await whole_record(port)
    stored = {UUID(row["id"]): (row["product_name"], Decimal(row["amount"])) for row in record}
    lost = {i: what for i, what in history.acknowledged.items() if i not in stored}
    assert not lost, f"{len(lost)} acknowledged orders are lost: {list(lost.items())[:3]}"
    changed = [i for i, what in history.acknowledged.items() if stored[i] != what]
    assert not changed, f"changed: {changed[:3]}"
    doubled = [name for name, times in Counter(n for n, _ in stored.values()).items() if times > 1]
    assert not doubled, f"doubled: {doubled[:3]}"
    never_promised = {i: what for i, what in stored.items() if i not in history.acknowledged}
    refused = [name for name, _ in never_promised.values() if name in history.refused]
    assert not refused, f"refused and stored all the same: {refused[:3]}"
    unexplained = [name for name, _ in never_promised.values() if name not in history.unknown]
    assert not unexplained, f"nobody sent: {unexplained[:3]}"
    await _check_sales(port, stored)
    return (
        f"acknowledged {len(history.acknowledged)}, unknown {len(history.unknown)}, "
        f"stored {len(stored)}, lost 0, doubled 0"
    )


async def whole_record(port: int) -> list[dict[str, Any]]:
    """Return every persisted order, by the pages of the API."""
    connection = Connection(port)
    orders: list[dict[str, Any]] = []
    path: str | None = "/api/orders?limit=200"
    while path:
        status, page = await connection.request("GET", path)
        assert status == 200, page
        orders += page["orders"]
        path = page.get("next")
    connection.close()
    assert len({order["id"] for order in orders}) == len(orders), "a page repeats an order"
    return orders


async def _all_searchable(port: int, history: History) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    todo = list(history.acknowledged)
    while todo:
        answers = await ask_all(port, [f"/api/orders/{i}/status" for i in todo])
        # 503 is honest and temporary; 404 for an acknowledged order is the worst of lies.
        false = [i for i, (status, _) in zip(todo, answers, strict=True) if status == 404]
        assert not false, f"404 for acknowledged orders: {false[:3]}"
        todo = [
            order_id
            for order_id, (status, answer) in zip(todo, answers, strict=True)
            if status != 200 or answer["status"] != "searchable"
        ]
        assert not todo or time.monotonic() < deadline, f"{len(todo)} not searchable: {todo[:3]}"
        if todo:
            await asyncio.sleep(0.2)


async def _check_sales(port: int, stored: dict[UUID, tuple[str, Decimal]]) -> None:
    connection = Connection(port)
    status, answer = await connection.request("POST", "/api/admin/refresh")
    assert status == 200, answer
    status, days = await connection.request("GET", "/api/dashboard/sales?days=36600")
    assert status == 200, days
    connection.close()
    assert len(stored) == sum(day["orders"] for day in days)
    revenue = sum((amount for _, amount in stored.values()), Decimal(0))
    assert revenue == sum(Decimal(day["total_revenue"]) for day in days)
