"""The HTTP server over real sockets: what it guards against, and how it starts and stops."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from starlette.requests import Request

from polyglot_persistence.api.protocol import server
from polyglot_persistence.api.protocol.connection import Connection
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import Endpoint, Method
from polyglot_persistence.api.web.replies import Reply, json_reply
from polyglot_persistence.api.web.request_headers import check_json
from polyglot_persistence.config.http import HttpLimits
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.errors import ConfigurationError
from tests.support.http_limits import HTTP_LIMITS
from tests.support.processes import REPOSITORY

BODY_BYTES_MAX = 10_000
DEADLINE_SECONDS = 10.0


class Serving:
    """A server with one path: POST tells the size of its body, GET waits until it may answer."""

    def __init__(self, limits: HttpLimits = HTTP_LIMITS) -> None:
        self.limits = limits
        self.listener = server.listen("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]
        self.shutdown = asyncio.Event()
        self.ready = asyncio.Event()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.large = b""
        self.lost = asyncio.Event()
        self.connections: list[Client] = []

    async def post(self, request: Request, body: BodyReader) -> Reply:
        check_json(request.headers.get("content-type"))
        return json_reply(200, {"size": len(await body.read(BODY_BYTES_MAX))})

    async def get(self, _request: Request, _body: BodyReader) -> Reply:
        self.asked.set()
        await self.may_answer.wait()
        return 200, ((b"content-type", b"text/plain"),), self.large or b"done"

    async def run(self) -> None:
        lost = self.lost

        class Watched(Connection):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        await server.serve(
            Endpoint(
                "/x",
                {
                    "POST": Method(Scope.WRITE, self.post, None),
                    "GET": Method(Scope.READ, self.get, None),
                },
                Access(),
            ),
            self.listener,
            limits=self.limits,
            shutdown=self.shutdown,
            graceful_seconds=5,
            on_ready=self.ready.set,
            protocol=Watched,
        )

    async def connect(self) -> "Client":
        connection = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.connections.append(connection)
        return connection


class Answer:
    """A parsed answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One client's connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")[:-2]
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
            }
            length = 0 if head_only else int(headers["content-length"])
            return Answer(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def closed(self) -> bytes:
        """Return what came until the server hung up."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
            return b""

    async def hang_up(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@pytest_asyncio.fixture
async def serving() -> AsyncIterator[Serving]:
    """A server on a free port, stopped after the test."""
    async with a_server() as serving:
        yield serving


@contextlib.asynccontextmanager
async def a_server(**limits: Any) -> AsyncIterator[Serving]:
    """Give a server with some limits of its own."""
    serving = Serving(replace(HTTP_LIMITS, **limits))
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(serving.run())
        await serving.ready.wait()
        yield serving
        for connection in serving.connections:
            await connection.hang_up()
        serving.may_answer.set()
        serving.shutdown.set()


def _post(body: bytes, *more: bytes) -> bytes:
    lines = [b"POST /x HTTP/1.1", b"host: x", b"content-type: application/json", *more]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


GET = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_a_connection_carries_one_request_after_another(serving: Serving) -> None:
    """One by one and pipelined; the head may arrive in pieces."""
    connection = await serving.connect()
    for part in (
        b"POST /x HT",
        b"TP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n",
        b"content-len",
    ):
        await connection.send(part)
        await asyncio.sleep(0)
    await connection.send(b"gth: 2\r\n\r\n{}")
    assert (await connection.answer()).json() == {"size": 2}
    await connection.send(_post(b"a") + _post(b"bb") + _post(b"ccc"))
    assert [(await connection.answer()).json()["size"] for _ in range(3)] == [1, 2, 3]


async def test_headers_of_the_server_tell_nothing(serving: Serving) -> None:
    """A date, and no product."""
    connection = await serving.connect()
    await connection.send(_post(b"{}"))
    answer = await connection.answer()
    assert "date" in answer.headers
    assert "server" not in answer.headers


async def test_head_and_old_clients_are_answered(serving: Serving) -> None:
    """HEAD has no body but its length; HTTP/1.0 is answered and closed."""
    serving.may_answer.set()
    connection = await serving.connect()
    await connection.send(b"HEAD /x HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = await connection.answer(head_only=True)
    assert (answer.status, answer.headers["content-length"]) == (200, "4")
    await connection.send(b"GET /x HTTP/1.0\r\n\r\n")
    assert (await connection.answer()).body == b"done"
    assert await connection.closed() == b""


async def test_a_head_that_takes_too_long_is_408() -> None:
    """Also when a byte comes now and then, and also on a connection that served before."""
    async with a_server(head_seconds_max=0.2) as serving:
        connection = await serving.connect()
        await connection.send(_post(b"{}"))
        assert (await connection.answer()).status == 200
        await connection.send(b"GET /x HTTP/1.1\r\n")

        async def drip() -> None:
            while True:
                await connection.send(b"a: b\r\n")
                await asyncio.sleep(0.02)  # it is the slowness that is tested

        dripping = asyncio.create_task(drip())
        answer = await connection.answer()
        dripping.cancel()
        assert (answer.status, answer.json()["type"]) == (408, "/problems#too-slow")
        assert answer.headers["connection"] == "close"


async def test_a_connection_that_says_nothing_is_closed() -> None:
    """Without a word."""
    async with a_server(head_seconds_max=0.1) as serving:
        connection = await serving.connect()
        assert await connection.closed() == b""


async def test_a_head_without_end_is_431(serving: Serving) -> None:
    """Before it fills the memory."""
    connection = await serving.connect()
    await connection.send(b"GET /x HTTP/1.1\r\n")
    for _ in range(20):
        await connection.send(b"a: %b\r\n" % (b"b" * 8_000))
    answer = await connection.answer()
    assert (answer.status, answer.json()["type"]) == (431, "/problems#head-too-large")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"{}\r\n\r\n"])
async def test_what_is_no_http_is_a_problem_too(serving: Serving, data: bytes) -> None:
    """400, and the connection is closed."""
    connection = await serving.connect()
    await connection.send(data)
    answer = await connection.answer()
    assert (answer.status, answer.json()["type"]) == (400, "/problems#malformed")


async def test_a_body_that_trickles_is_408() -> None:
    """The patience with a body is for all of it, not for each byte."""
    async with a_server(body_patience_seconds=0.2) as serving:
        connection = await serving.connect()
        await connection.send(_post(b"{}", b"x: y").replace(b"length: 2", b"length: 5000"))

        async def drip() -> None:
            while True:
                await connection.send(b" ")
                await asyncio.sleep(0.02)  # it is the slowness that is tested

        dripping = asyncio.create_task(drip())
        answer = await connection.answer()
        dripping.cancel()
        assert (answer.status, answer.json()["type"]) == (408, "/problems#too-slow")


async def test_a_refusal_is_heard_although_the_body_is_still_coming(serving: Serving) -> None:
    """413 reaches a client that reads only after it has sent everything."""
    connection = await serving.connect()
    await connection.send(_post(b" " * 500_000))
    assert (await connection.answer()).status == 413
    await connection.send(_post(b"{}"))
    assert (await connection.answer()).status == 200


async def test_a_refusal_of_an_endless_body_hangs_up(serving: Serving) -> None:
    """What is never going to end is not read to its end."""
    connection = await serving.connect()
    await connection.send(
        _post(b"", b"transfer-encoding: chunked").replace(b"content-length: 0", b"a: b")
    )

    async def pour() -> None:
        while not connection.writer.is_closing():
            await connection.send(b"%x\r\n%b\r\n" % (60_000, b" " * 60_000))
            await asyncio.sleep(0)

    pouring = asyncio.create_task(pour())
    rest = await connection.closed()
    pouring.cancel()
    assert rest == b"" or b" 413 " in rest.partition(b"\r\n")[0]


async def test_a_refused_expectation_is_not_told_to_continue(serving: Serving) -> None:
    """A client that asks first hears the refusal and keeps its body."""
    connection = await serving.connect()
    head = _post(b"", b"expect: 100-continue").replace(b"length: 0", b"length: 50000")
    await connection.send(head)
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cut", [0, 40, 1_000])
async def test_an_upgrade_that_is_not_followed_costs_no_body(
    serving: Serving, chunked: bool, cut: int
) -> None:
    """The body is the request's, however it is framed and cut, and the next request is the next."""
    serving.may_answer.set()
    upgrade = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAEAA")
    one = _post(b"x" * 35, *upgrade)
    if chunked:
        one = _post(b"", *upgrade, b"transfer-encoding: chunked").replace(
            b"content-length: 0", b"a: b"
        )
        one += b"23\r\n%b\r\n0\r\n\r\n" % (b"x" * 35)
    get = GET.replace(b"host", b"".join(line + b"\r\n" for line in upgrade) + b"host")
    data = one + _post(b"", *upgrade) + get + one + GET
    connection = await serving.connect()
    for part in (data[: len(one) - cut], data[len(one) - cut :]) if cut < len(one) else (data,):
        await connection.send(part)
        await asyncio.sleep(0)
    answers = [await connection.answer() for _ in range(5)]
    assert [a.body for a in answers] == [
        b'{"size":35}',
        b'{"size":0}',
        b"done",
        b'{"size":35}',
        b"done",
    ]


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """Its answers would stay in memory for as long as it likes."""
    async with a_server(write_seconds_max=0.2) as serving:
        serving.large = b" " * 50_000_000
        serving.may_answer.set()
        raw = socket.create_connection(("127.0.0.1", serving.port))
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        with raw:
            await loop.sock_sendall(raw, GET)
            await serving.asked.wait()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await serving.lost.wait()


async def test_connections_are_counted() -> None:
    """One too many is told 503; there is room again when another has gone."""
    async with a_server(connections_max=1) as serving:
        first = await serving.connect()
        await first.send(_post(b"{}"))
        assert (await first.answer()).status == 200
        second = await serving.connect()
        answer = await second.answer()
        assert (answer.status, answer.json()["type"]) == (503, "/problems#unavailable")
        assert answer.headers["retry-after"] == "1"
        assert (await second.closed()) == b""
        await first.send(_post(b"{}"))
        assert (await first.answer()).status == 200


async def test_a_stop_answers_what_is_under_way_and_closes_the_rest(serving: Serving) -> None:
    """The request is answered, idle connections are closed, new ones are refused."""
    idle, busy = await serving.connect(), await serving.connect()
    await idle.send(_post(b"{}"))
    await idle.answer()
    await busy.send(GET)
    await serving.asked.wait()
    serving.shutdown.set()
    assert await idle.closed() == b""
    with pytest.raises(ConnectionError):
        await serving.connect()
    serving.may_answer.set()
    answer = await busy.answer()
    assert (answer.status, answer.body) == (200, b"done")
    assert await busy.closed() == b""


async def test_signals_are_left_alone(serving: Serving) -> None:
    """They belong to the program."""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_taken_port_is_one_clear_line() -> None:
    """Not an exit from inside."""
    with server.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} is taken"):
            server.listen("127.0.0.1", port)


def test_a_foreign_address_is_one_clear_line() -> None:
    """192.0.2.1 is of no machine (RFC 5737)."""
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1:0"):
        server.listen("192.0.2.1", 0)


def test_a_server_that_is_cut_off_lets_the_process_end() -> None:
    """An event loop that listens on a socket that was closed beside it never closes."""
    code = """
import asyncio, uvloop
from polyglot_persistence.api.protocol import server
from tests.support.http_limits import HTTP_LIMITS

async def main():
    ready = asyncio.Event()
    task = asyncio.create_task(server.serve(
        None, server.listen("127.0.0.1", 0), limits=HTTP_LIMITS, shutdown=asyncio.Event(),
        graceful_seconds=5, on_ready=ready.set))
    await ready.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    print("cut off", flush=True)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
print("closed")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "cut off\nclosed\n"
