"""Clients that mean harm: what all kinds of them have in common. Only the standard library.

They run in a process of their own (`attacking`), at a lower priority: a real attacker does not take
the server's processors. Their addresses are others of the loopback than the well-behaved client's.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

LATE_SECONDS = 8.0
"""For answers to what was sent until the end; more than any deadline of the server under test."""
ADDRESSES = 8
PROXY = "127.0.0.10"
"""A trusted proxy's address, whose clients mean harm."""
ORIGIN = "https://shop.example"
"""A trusted one."""

Seen = Mapping[str, int]


class Ended(Exception):  # noqa: N818  it is no error
    """The server has ended the connection."""


class Client:
    """One connection, byte by byte."""

    def __init__(
        self, attack: "Attack", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.attack = attack
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send.

        Raises:
            Ended: the server does not take it.
        """
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            raise Ended from None
        self.attack.sent += len(data)

    async def answer(self, name: str = "") -> tuple[int, Any]:
        """Return status and body of the next answer, and count it.

        `name` is the product of an order that it answers.

        Raises:
            Ended: none comes.
        """
        try:
            async with asyncio.timeout(self.attack.left + LATE_SECONDS):
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                lines = head.split("\r\n")[:-2]
                headers = dict(line.split(": ", 1) for line in lines[1:])
                body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.attack.seen["closed"] += 1
            self.attack.unknown += bool(name)
            raise Ended from None
        except TimeoutError:
            self.attack.seen["nothing"] += 1
            self.attack.unknown += bool(name)
            raise Ended from None
        status = int(lines[0].split()[1])
        self.attack.seen[str(status)] += 1
        content = json.loads(body) if "json" in headers.get("content-type", "") else body
        self.attack.note(status, content, name)
        return status, content

    async def end(self) -> None:
        """Wait until the server ends the connection, and count that."""
        try:
            async with asyncio.timeout(self.attack.left + LATE_SECONDS):
                with contextlib.suppress(ConnectionError):
                    while await self.reader.read(65_536):
                        pass
            self.attack.seen["closed"] += 1
        except TimeoutError:
            self.attack.seen["nothing"] += 1

    async def go_on(
        self, begin: bytes, more: Callable[[], bytes], *, pause: float, name: str = ""
    ) -> None:
        """Send a beginning, and then more and more until it is answered."""
        asking = asyncio.ensure_future(self.answer(name))
        try:
            await self.send(begin)
            while not asking.done():
                await self.send(more())
                await asyncio.sleep(pause)
        finally:
            await asking

    async def place(self, orders: int, *more: str, behind: bytes = b"") -> None:
        """Send so many orders in one piece, and what comes behind; take the orders' answers."""
        names = [self.attack.name() for _ in range(orders)]
        requests = [post("/api/orders", order(name), *more) for name in names]
        await self.send(b"".join(requests) + behind)
        for name in names:
            await self.answer(name)

    def reset(self) -> None:
        """End it without a word."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Attack:
    """What one kind does in its time, and what it sees of it."""

    def __init__(self, port: int, seconds: float, secret: str) -> None:
        self.port = port
        self.seconds = seconds
        self.secret = secret
        """Of a key that may write."""
        self.seen: Counter[str] = Counter()
        """Answers by status, and other ends; nothing is counted that is not what the kind does."""
        self.acknowledged: list[str] = []
        self.imported = 0
        """Lines that the answers to imports count as accepted."""
        self.unknown = 0
        """Orders, and imports, without an answer, or answered 504."""
        self.sent = 0
        self.clients = 0
        self._ends = time.monotonic() + seconds
        self._names = 0

    @property
    def left(self) -> float:
        """Seconds until nothing new is begun."""
        return max(0.0, self._ends - time.monotonic())

    def name(self) -> str:
        """Return the name of another product."""
        self._names += 1
        return f"product {self._ends:.6f} {self._names}"

    async def connect(
        self, number: int = 0, *, receive_bytes: int = 0, address: str = ""
    ) -> Client:
        """Open a connection from one of the addresses, or from one that is named.

        Raises:
            Ended: the server does not take it.
        """
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.bind((address or f"127.0.0.{2 + number % ADDRESSES}", 0))
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            streams = await asyncio.open_connection(sock=sock, limit=2**21)
        except OSError:
            sock.close()
            self.seen["unconnected"] += 1
            raise Ended from None
        self.clients += 1
        return Client(self, *streams)

    async def each(
        self,
        clients: int,
        act: Callable[[Client], Awaitable[None]],
        *,
        pause: float = 0.01,
        address: str = "",
    ) -> None:
        """Have so many clients do something, each again over a new connection when it has ended."""

        async def one(number: int) -> None:
            while self.left:
                with contextlib.suppress(Ended):
                    client = await self.connect(number, address=address)
                    try:
                        await act(client)
                    except Ended:
                        pass
                    finally:
                        client.writer.close()
                await asyncio.sleep(pause)

        async with asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(one(number))

    async def ask(
        self,
        clients: int,
        request: Callable[[], bytes],
        *,
        ahead: int = 8,
        pause: float = 0.0,
        address: str = "",
    ) -> None:
        """Have so many clients ask as fast as they are answered, `ahead` requests at a time."""

        async def act(client: Client) -> None:
            while self.left:
                await client.send(b"".join(request() for _ in range(ahead)))
                for _ in range(ahead):
                    await client.answer()
                if pause:
                    await asyncio.sleep(pause)

        await self.each(clients, act, address=address)

    def note(self, status: int, content: Any, name: str) -> None:
        """Write down what an answer says of orders."""
        self.unknown += bool(name) and status == 504
        if not isinstance(content, dict):
            return
        if status == 202:
            self.acknowledged += content.get("order_ids") or [content["order_id"]]
        self.imported += content.get("accepted", 0)
        self.seen["rejected"] += content.get("rejected", 0)


class Kind(NamedTuple):
    """One kind of harm."""

    act: Callable[[Attack], Awaitable[None]]
    harm: str
    """What it would do to a server without the bound."""
    reached: Callable[[Seen], bool]
    """Whether what was seen shows that the bound was reached."""


KINDS: dict[str, Kind] = {}


def kind(
    reached: Callable[[Seen], bool],
) -> Callable[[Callable[[Attack], Awaitable[None]]], Callable[[Attack], Awaitable[None]]]:
    """Make a function a kind, named after it; its docstring is the harm."""

    def add(act: Callable[[Attack], Awaitable[None]]) -> Callable[[Attack], Awaitable[None]]:
        KINDS[act.__name__] = Kind(act, (act.__doc__ or "").strip(), reached)
        return act

    return add


def answered(*statuses: int) -> Callable[[Seen], bool]:
    """Return whether each of these statuses was seen."""
    return lambda seen: all(seen.get(str(status)) for status in statuses)


def only(*statuses: int) -> Callable[[Seen], bool]:
    """Return whether one of these statuses was seen, and no other answer."""
    return lambda seen: (
        any(seen.get(str(status)) for status in statuses)
        and not {key for key in seen if key.isdigit()} - {str(status) for status in statuses}
    )


def get(target: str, *more: str) -> bytes:
    """Return a GET."""
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", *more, "", ""]
    return "\r\n".join(lines).encode()


def post(target: str, body: bytes, *more: str, media_type: str = "application/json") -> bytes:
    """Return a POST."""
    lines = [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Type: {media_type}"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", *more, "", ""]).encode() + body


def chunked(target: str, *more: str, media_type: str = "application/json") -> bytes:
    """Return the head of a POST in chunks."""
    lines = [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Type: {media_type}"]
    return "\r\n".join([*lines, "Transfer-Encoding: chunked", *more, "", ""]).encode()


def order(name: str) -> bytes:
    """Return the body of an order."""
    return json.dumps({"product_name": name, "amount": "1.25"}).encode()
