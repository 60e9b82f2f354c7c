"""A server over real sockets with limits of a test's own, and a client that writes bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

from starlette.types import ASGIApp

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.protocol import server
from polyglot_persistence.api.protocol.connection import Connection
from polyglot_persistence.api.protocol.fast_lane import fast_lane
from polyglot_persistence.api.protocol.front import ANY_FRONT, Front
from polyglot_persistence.api.protocol.hot import HotRoutes
from polyglot_persistence.api.protocol.in_flight import Shared
from polyglot_persistence.api.web.access import Access
from tests.hostile.lanes import CountingFlows
from tests.support.http_limits import HTTP_LIMITS
from tests.support.scripted import FakeClock
from tests.support.stub_flows import LIMITS, OPEN

DEADLINE_SECONDS = 20.0


class Answer(NamedTuple):
    """One answer, its header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send; a server that has hung up is no error."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> Answer:
        """Return the next answer."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")[:-2]
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return Answer(int(first.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Return what comes until the server hangs up."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
            return b""

    async def drip(self, data: bytes, seconds: float = 0.02) -> None:
        """Send a piece again and again, slowly, for it is the slowness that is tested."""
        while not self.writer.is_closing():
            await self.send(data)
            await asyncio.sleep(seconds)


class Served(NamedTuple):
    """A server that runs."""

    port: int
    flows: CountingFlows
    shared: Shared
    clients: list[Client]

    async def connect(self, address: str = "127.0.0.1") -> Client:
        """Return a client of an address of the loopback."""
        streams = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(address, 0), limit=2**20
        )
        self.clients.append(Client(*streams))
        return self.clients[-1]

    async def ask(self, data: bytes) -> Answer:
        """Return the first answer to some bytes."""
        client = await self.connect()
        await client.send(data)
        return await client.answer()


@contextlib.asynccontextmanager
async def served(
    lane: str,
    app: ASGIApp | None = None,
    access: Access = OPEN,
    front: Front = ANY_FRONT,
    **limits: Any,
) -> AsyncIterator[Served]:
    """Give a server with the fast lane or without, over stub flows or another application."""
    flows = CountingFlows()
    as_flows = flows.as_flows()
    shutdown, ready = asyncio.Event(), asyncio.Event()
    shared: list[Shared] = []

    class Watched(Connection):
        def __init_subclass__(cls) -> None:
            if "shared" in vars(cls):  # of the class that `serve` makes
                shared.append(cls.shared)

    hot = HotRoutes(
        as_flows.accept, as_flows.reads, body_bytes_max=LIMITS.order_body_bytes_max, access=access
    )
    fast = fast_lane(hot)
    protocol = Watched if lane == "plain" else type("Fast", (fast, Watched), {})
    listener = server.listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    async with asyncio.timeout(50), asyncio.TaskGroup() as tasks:
        tasks.create_task(
            server.serve(
                app
                or build_app(
                    as_flows,
                    LIMITS,
                    clock=FakeClock(),
                    stopping=shutdown,
                    access=access,
                    front=front,
                ),
                listener,
                limits=replace(HTTP_LIMITS, **limits),
                shutdown=shutdown,
                graceful_seconds=5,
                on_ready=ready.set,
                protocol=protocol,
                front=front,
            )
        )
        await ready.wait()
        one = Served(port, flows, shared[0], [])
        try:
            yield one
        finally:
            flows.may_accept.set()
            for client in one.clients:
                client.writer.close()
            shutdown.set()
