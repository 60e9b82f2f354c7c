"""Orders that are sent while things break, and the proof that each is there, once."""

import http.client
import random
import threading
import time
from decimal import Decimal
from typing import Any

from real_servers.machine import ServerError

from compose_test.stack import API_KEY, REQUEST_SECONDS, Stack, eventually

PAUSE_SECONDS = 0.03
"""About thirty orders a second: enough to hit every moment, too few to be a load."""
ORDERS_MAX = 50_000
PAGE_ORDERS = 1_000
WORD = "composed"
COMPLETE_SECONDS = 180
"""For all acknowledged orders to be persisted and searchable; a cold minute fits in."""


class Writer(threading.Thread):
    """Sends orders one after another, each again and again until it is acknowledged."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(name="writer", daemon=True)  # it never holds up the end of a failed run
        self._stack = stack
        self._ended = threading.Event()
        self._gap_begun = time.monotonic()
        self.acknowledged: dict[str, Decimal] = {}
        self.longest_gap_seconds = 0.0

    def run(self) -> None:
        key = f"{random.getrandbits(64):x}"
        for number in range(ORDERS_MAX):
            if self._ended.is_set():
                return
            self._send(f"{key}-{number}", number)
            time.sleep(PAUSE_SECONDS)

    def _send(self, key: str, number: int) -> None:
        amount = Decimal(random.randrange(1, 100_000)) / 100
        order = {"product_name": f"Order {WORD} {number}", "amount": str(amount)}
        status = 0
        body: Any = None
        deadline = time.monotonic() + COMPLETE_SECONDS
        while time.monotonic() < deadline:
            try:
                status, body = self._stack.request(
                    "POST", "/api/orders", order, {"Idempotency-Key": f'"{key}"'}
                )
            except (OSError, http.client.HTTPException):
                status, body = 0, None
            if status == 202:
                now = time.monotonic()
                self.longest_gap_seconds = max(self.longest_gap_seconds, now - self._gap_begun)
                self._gap_begun = now
                self.acknowledged[body["order_id"]] = amount
                return
            if status not in (0, 503, 504):
                raise ServerError(f"POST /api/orders: {status} {body}")
            time.sleep(random.uniform(0.1, 0.3))
        raise ServerError(f"not acknowledged within {COMPLETE_SECONDS} s: {status} {body}")

    def restart_clock(self) -> None:
        """Measure the longest time without an acknowledgement from now on."""
        self._gap_begun = time.monotonic()
        self.longest_gap_seconds = 0.0

    def sends(self) -> None:
        """Wait until an order is acknowledged that was not yet."""
        before = len(self.acknowledged)
        eventually(
            lambda: len(self.acknowledged) > before or not self.is_alive(),
            COMPLETE_SECONDS,
            "an order is acknowledged",
        )
        if not self.is_alive():
            raise ServerError("the writer has ended")

    def end(self) -> None:
        """Stop once the order that is being sent is acknowledged, so that none is in doubt."""
        self._ended.set()
        self.join(REQUEST_SECONDS)


def persisted(stack: Stack) -> list[str]:
    """Return the ids of all persisted orders, as the API pages through them."""
    found: list[str] = []
    path = f"/api/orders?limit={PAGE_ORDERS}"
    while path:
        page = stack.get(path)
        found += [order["id"] for order in page["orders"]]
        path = page.get("next", "")
    return found


def wait_complete(stack: Stack, acknowledged: dict[str, Decimal]) -> float:
    """Wait until all these orders are persisted and searchable; return how long that took."""
    wanted = dict(acknowledged)  # the writer goes on

    def complete() -> bool:
        try:
            return wanted.keys() <= set(persisted(stack)) and found(stack) >= len(wanted)
        except (OSError, http.client.HTTPException, ServerError):
            return False  # something is still away

    return eventually(complete, COMPLETE_SECONDS, f"{len(wanted)} orders persisted, searchable")


def found(stack: Stack) -> int:
    """Return how many orders the search finds by the word in each; facets count them all."""
    total: int = stack.get(f"/api/search?q={WORD}&facets=true&limit=1")["total"]
    return total


def check_exactly(stack: Stack, acknowledged: dict[str, Decimal]) -> None:
    """Compare record, search and sales with what was acknowledged: none less, none more."""
    wait_complete(stack, acknowledged)
    ids = persisted(stack)
    if sorted(ids) != sorted(acknowledged):
        extra = len(set(ids) - acknowledged.keys())
        raise ServerError(f"{len(ids)} persisted, {len(acknowledged)} acknowledged, {extra} extra")
    if found(stack) != len(acknowledged):
        raise ServerError(f"{found(stack)} searchable, {len(acknowledged)} acknowledged")
    status, body = stack.request("POST", "/api/admin/refresh", headers={"X-API-Key": API_KEY})
    if status != 200:
        raise ServerError(f"refresh: {status} {body}")
    days = stack.get("/api/dashboard/sales")
    sales = sum(day["orders"] for day in days), sum(Decimal(day["total_revenue"]) for day in days)
    if sales != (len(acknowledged), sum(acknowledged.values())):
        raise ServerError(f"sales are {sales}, not {sum(acknowledged.values())}")
