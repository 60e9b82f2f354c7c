"""Clients of every kind, who write down what they do and what they are told.

The seed decides what each of them sends; what comes when is decided by the system.
"""

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

from tests.fault.history import History, Order
from tests.support.clients import Connection

WRITERS = 24
READERS = 3
PRODUCTS = ("kettle", "cup", "spoon", "toaster", "lamp", "chair", "desk", "shelf", "clock", "vase")
BULK_ORDERS_MAX = 40
IMPORT_ORDERS_MAX = 120
ATTEMPTS_MAX = 4
AT_ONCE_SHARE = 0.2
"""Of what has a key, so much is first sent over two connections at once."""

DEGRADED = "x-degraded"
"""The header that names the stores which are away."""
TWO_COPIES = {"cache", "queue"}
"""The stores with the copies that an acknowledged order has."""

GONE_SECONDS = 0.05
"""Between two tries to reach an API that nobody listens for."""

SINGLE, KEYED, BULK, KEYED_BULK, IMPORT = "single", "keyed", "bulk", "keyed bulk", "import"
KINDS = {SINGLE: 78, KEYED: 10, BULK: 8, KEYED_BULK: 3, IMPORT: 1}
"""What share of the operations is of which kind, in parts of a hundred."""


class Load:
    """All clients of one round; the amounts of its orders are those from `first_cents` on.

    Once more than `orders_per_second` are acknowledged the clients wait: a long fault must not
    leave more than can be checked.
    """

    def __init__(
        self,
        port: int,
        history: History,
        *,
        seed: str,
        first_cents: int,
        pause_seconds: float,
        orders_per_second: int,
    ) -> None:
        self._port = port
        self._history = history
        self._random = random.Random(f"load {seed}")
        self._cents = first_cents
        self._operations = 0
        self._seed = seed
        self._pause_seconds = pause_seconds
        self._given: list[str] = []
        """Ids that imports brought along, whether or not they were accepted."""
        self._stop = asyncio.Event()
        self._orders_per_second = orders_per_second
        self._began = time.monotonic()

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Have all clients at work meanwhile; at the end each has its last answer."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(self._write_on())
            for _ in range(READERS):
                tasks.create_task(self._read_on())
            tasks.create_task(self._search_on())
            try:
                yield
            finally:
                self._stop.set()

    async def _write_on(self) -> None:
        rng = random.Random(self._random.random())
        with Connection(self._port) as connection:
            while not self._stop.is_set():
                kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
                await self._operate(connection, kind, rng)
                await asyncio.sleep(rng.uniform(0, 2 * self._pause_seconds) + self._ahead())

    def _ahead(self) -> float:
        """Return by how many seconds the clients are before their time, a second at most."""
        due = len(self._history.ids) / self._orders_per_second
        return min(max(due - (time.monotonic() - self._began), 0.0), 1.0)

    async def _operate(self, connection: Connection, kind: str, rng: random.Random) -> None:
        """Send one operation, and again while its outcome is open and it may be repeated."""
        self._operations += 1
        operation = f"{self._seed}-{self._operations}"
        orders = self._orders(kind, rng)
        if kind in (SINGLE, BULK):
            await self._attempt(connection, operation, kind, orders)
            return
        if rng.random() < AT_ONCE_SHARE:
            with Connection(self._port) as another:
                attempt = partial(self._attempt, operation=operation, kind=kind, orders=orders)
                await asyncio.gather(attempt(connection), attempt(another))
        for _ in range(ATTEMPTS_MAX):
            acked = await self._attempt(connection, operation, kind, orders)
            if acked and rng.random() < 0.8:  # the rest repeats what it need not
                return
            await asyncio.sleep(self._pause_seconds)

    async def _attempt(
        self, connection: Connection, operation: str, kind: str, orders: Sequence[Order]
    ) -> bool:
        """Send it once; return whether it was acknowledged."""
        headers = {} if kind in (SINGLE, BULK) else {"idempotency-key": operation}
        path, body, content_type = _request(kind, orders)
        attempt = self._history.write(operation, BULK if kind == KEYED_BULK else kind, orders)
        try:
            status, answer = await connection.request("POST", path, body, content_type, headers)
        except EOFError:
            self._history.unknown(attempt, 0)
            return False
        except OSError:
            self._history.refused(attempt, 0)
            await asyncio.sleep(GONE_SECONDS)
            return False
        self._note(attempt, kind, orders, status, answer)
        away = connection.headers.get(DEGRADED, "").split(", ")
        if status == 202 and TWO_COPIES.isdisjoint(away):
            self._history.whole()
        return status < 300

    def _note(
        self, attempt: int, kind: str, orders: Sequence[Order], status: int, answer: Any
    ) -> None:
        if status == 200 and kind == IMPORT:
            if answer["accepted"] + answer["unchanged"] == len(orders):
                self._history.acked(attempt, [str(order.id) for order in orders])
            else:
                self._history.fail(f"an import of valid lines: {answer}")
        elif status == 202 and kind != IMPORT:
            ids = answer["order_ids"] if kind in (BULK, KEYED_BULK) else [answer["order_id"]]
            self._history.acked(attempt, ids)
        elif status == 504 or (status == 503 and kind == IMPORT):
            self._history.unknown(attempt, status)  # some chunks of an import may be in
        elif status == 503:
            self._history.refused(attempt, status)
        else:
            self._history.refused(attempt, status)
            self._history.fail(f"POST {kind}: {status} {answer}")

    def _orders(self, kind: str, rng: random.Random) -> list[Order]:
        most = {BULK: BULK_ORDERS_MAX, KEYED_BULK: BULK_ORDERS_MAX, IMPORT: IMPORT_ORDERS_MAX}
        count = rng.randint(2, most[kind]) if kind in most else 1
        orders = []
        for _ in range(count):
            given = str(uuid.UUID(int=rng.getrandbits(128), version=4)) if kind == IMPORT else None
            orders.append(Order(rng.choice(PRODUCTS), self._cents, given))
            self._cents += 1
            if given:
                self._given.append(given)
        return orders

    async def _read_on(self) -> None:
        rng = random.Random(self._random.random())
        with Connection(self._port) as connection:
            while not self._stop.is_set():
                await self._read(connection, self._chosen(rng))
                await asyncio.sleep(self._pause_seconds)

    def _chosen(self, rng: random.Random) -> str:
        """Return an id: mostly of what was just accepted, sometimes of what nobody ever sent."""
        dice = rng.random()
        if dice < 0.5 and self._history.ids:
            return rng.choice(self._history.ids[-30:])
        if dice < 0.75 and self._history.ids:
            return rng.choice(self._history.ids)
        if dice < 0.9 and self._given:
            return rng.choice(self._given[-200:])
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    async def _read(self, connection: Connection, order_id: str) -> None:
        attempt = self._history.read(order_id)
        try:
            status, answer = await connection.request("GET", f"/api/orders/{order_id}")
        except (OSError, EOFError):
            self._history.answer(attempt, 0, None)
            await asyncio.sleep(GONE_SECONDS)
            return
        found = _order(answer) if status == 200 else None
        self._history.answer(attempt, status, found)

    async def _search_on(self) -> None:
        rng = random.Random(self._random.random())
        with Connection(self._port) as connection:
            while not self._stop.is_set():
                await asyncio.sleep(0.2)
                path = f"/api/search?q={rng.choice(PRODUCTS)}&limit=20"
                try:
                    status, answer = await connection.request("GET", path)
                except (OSError, EOFError):
                    continue
                if status == 200:
                    hits = [_order(hit) for hit in answer["hits"]]
                    self._history.hits([(str(hit.id), *hit[:2]) for hit in hits])
                elif status != 503:
                    self._history.fail(f"search: {status} {answer}")


def _request(kind: str, orders: Sequence[Order]) -> tuple[str, bytes, str]:
    bodies = [_body(order) for order in orders]
    if kind == IMPORT:
        lines = b"\n".join(json.dumps(body).encode() for body in bodies)
        return "/api/orders/import", lines, "application/x-ndjson"
    if kind in (BULK, KEYED_BULK):
        return "/api/bulk-orders", json.dumps({"orders": bodies}).encode(), "application/json"
    return "/api/orders", json.dumps(bodies[0]).encode(), "application/json"


def _body(order: Order) -> Mapping[str, str]:
    amount = str(Decimal(order.cents) / 100)
    given = {} if order.id is None else {"id": order.id}
    return {"product_name": order.product_name, "amount": amount, **given}


def _order(answer: Any) -> Order:
    return Order(answer["product_name"], int(Decimal(answer["amount"]) * 100), answer["id"])
