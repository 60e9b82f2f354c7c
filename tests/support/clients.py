"""Clients that write down what they sent and what they were told, as fast as a test needs."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from tests.support.keys import key_headers

REQUEST_TIMEOUT_SECONDS = 20.0


@dataclass
class History:
    """What the clients know: what was acknowledged, and what may have happened."""

    acknowledged: dict[UUID, tuple[str, Decimal]] = field(default_factory=dict)
    ids: list[UUID] = field(default_factory=list)
    """Of the acknowledged, in the order of their answers."""
    unknown: set[str] = field(default_factory=set)
    """Product names (each is sent once) of orders that got no answer, or 504."""
    refused: set[str] = field(default_factory=set)
    """Of orders that got another answer: nothing may be stored."""
    read_back: Counter[int] = field(default_factory=Counter)
    """How acknowledged orders were answered when read meanwhile, by status."""
    wrong: list[str] = field(default_factory=list)
    """Answers that nobody may ever get."""


class Connection:
    """One keep-alive HTTP/1.1 connection to the API on the loopback, closed by its context."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.headers: Mapping[str, str] = {}
        """Of the last answer, names in lower case."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Return status and decoded JSON.

        Raises:
            ConnectionError: nothing was sent (no connection).
            EOFError: it was sent, and no whole answer came.
        """
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in key_headers(path).items())
        if body:
            head += f"content-type: {content_type}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                self._writer.write(head.encode() + b"\r\n" + body)
                await self._writer.drain()
                return await self._answer(self._reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.close()
            raise EOFError(f"no answer: {error!r}") from error

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, Any]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        lines = head.split("\r\n")
        self.headers = headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        is_json = "json" in headers.get("content-type", "")
        return int(lines[0].split()[1]), json.loads(body, parse_float=Decimal) if is_json else body


async def place_orders(
    port: int,
    history: History,
    stop: asyncio.Event,
    *,
    connections: int,
    word: str,
    pause_seconds: float = 0.0,
) -> None:
    """Place orders over so many connections until told to stop or nobody listens any more.

    Each order has a name of its own, which begins with `word`. A pause after each answer keeps a
    long test to what can be checked at its end.
    """

    async def client(number: int) -> None:
        sent = 0
        with Connection(port) as connection:
            while not stop.is_set():
                sent += 1
                name, amount = f"{word} c{number}n{sent}", Decimal(sent % 1000) / 100
                try:
                    await place(connection, history, name, amount)
                except ConnectionError:
                    return
                await asyncio.sleep(pause_seconds)

    async with asyncio.TaskGroup() as tasks:
        for number in range(connections):
            tasks.create_task(client(number))


async def place(
    connection: Connection, history: History, name: str, amount: Decimal
) -> UUID | None:
    """Place one order and write down what became of it; return its id if it was accepted.

    Raises:
        ConnectionError: nobody listens.
    """
    body = json.dumps({"product_name": name, "amount": str(amount)}).encode()
    try:
        status, answer = await connection.request("POST", "/api/orders", body)
    except EOFError:
        history.unknown.add(name)
        return None
    if status == 202:
        order_id = UUID(answer["order_id"])
        history.acknowledged[order_id] = (name, amount)
        history.ids.append(order_id)
        return order_id
    if status == 504:
        history.unknown.add(name)
        return None
    history.refused.add(name)
    if status != 503:
        history.wrong.append(f"POST: {status} {answer}")
    return None


async def read_orders(
    port: int, history: History, stop: asyncio.Event, *, connections: int, pause_seconds: float
) -> None:
    """Read acknowledged orders until told to stop: the order itself, or 503, is right."""

    async def client() -> None:
        with Connection(port) as connection:
            while not stop.is_set():
                await asyncio.sleep(pause_seconds)
                if history.ids:
                    await _read_one(connection, history)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(client())


async def _read_one(connection: Connection, history: History) -> None:
    # Half of them just accepted: there cache, queue and record differ most.
    order_id = random.choice(history.ids[-20:] if random.random() < 0.5 else history.ids)
    try:
        status, answer = await connection.request("GET", f"/api/orders/{order_id}")
    except (ConnectionError, EOFError) as error:
        history.wrong.append(f"GET {order_id}: {error!r}")
        return
    history.read_back[status] += 1
    if status != 503 and not is_order(answer, history.acknowledged[order_id]):
        history.wrong.append(f"GET {order_id}: {status} {answer}")


def is_order(answer: Any, order: tuple[str, Decimal]) -> bool:
    """Whether an answer is this order, whatever its id."""
    return (answer.get("product_name"), Decimal(str(answer.get("amount", "NaN")))) == order


async def ask_all(
    port: int, paths: Sequence[str], *, connections: int = 16
) -> list[tuple[int, Any]]:
    """Return the answers to GETs, in order."""
    answers: list[tuple[int, Any]] = [(0, None)] * len(paths)
    todo = iter(enumerate(paths))

    async def client() -> None:
        with Connection(port) as connection:
            for position, path in todo:
                answers[position] = await connection.request("GET", path)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(client())
    return answers
