"""Open-loop load: requests are sent when they are due, whether earlier ones are answered or not.

A latency counts from the moment at which its request was due, so that a stall delays everything
that came in meanwhile, as it does for users, and not one request a connection (coordinated
omission: Gil Tene, "How NOT to Measure Latency").
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import httptools

CONNECTIONS = 64
ANSWER_SECONDS = 30.0


class Answer(NamedTuple):
    """One request: when it was due, sent and answered (perf_counter), and what came."""

    due: float
    sent: float
    answered: float
    status: int
    body: bytes

    @property
    def latency_ms(self) -> float:
        """What a user waited."""
        return (self.answered - self.due) * 1000

    @property
    def late_ms(self) -> float:
        """How late it was sent: for lack of a free connection, or by the generator's own fault."""
        return (self.sent - self.due) * 1000


class _Connection(asyncio.Protocol):
    def __init__(self, free: "Callable[[_Connection], None]") -> None:
        self._free = free
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._waiting: tuple[float, float, Callable[[Answer], None]] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self._waiting is not None:
            self._answered(0)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._answered(self._parser.get_status_code())
        self._free(self)

    def send(self, request: bytes, due: float, done: Callable[[Answer], None]) -> None:
        self._body = []
        self._waiting = (due, time.perf_counter(), done)
        self.transport.write(request)

    def _answered(self, status: int) -> None:
        assert self._waiting is not None
        (due, sent, done), self._waiting = self._waiting, None
        done(Answer(due, sent, time.perf_counter(), status, b"".join(self._body)))


class OpenLoop:
    """`CONNECTIONS` connections to one server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port  # noqa: PT018
        self._address = parts.hostname, parts.port
        self._all: list[_Connection] = []
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._answers: list[Answer] = []
        self._on_answer: Callable[[Answer], None] = self._answers.append

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: _Connection(self._is_free), *self._address
            )
            self._all.append(connection)
            self._idle.append(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            connection.transport.close()

    async def run(
        self,
        requests: Sequence[bytes],
        *,
        rate: float,
        seconds: float,
        on_answer: Callable[[Answer], None] = lambda _: None,
    ) -> list[Answer]:
        """Send evenly at `rate` and return every answer; status 0 stands for none."""
        self._answers = []

        def keep(answer: Answer) -> None:
            self._answers.append(answer)
            on_answer(answer)

        self._on_answer = keep
        number = round(rate * seconds)
        gc.collect()
        gc.disable()  # a look at all answers that are kept takes longer the more they are
        try:
            await self._send_all(requests, number, rate)
        finally:
            gc.enable()
        deadline = time.perf_counter() + ANSWER_SECONDS
        while len(self._answers) < number and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        if len(self._answers) < number:
            raise TimeoutError(f"{number - len(self._answers)} requests are unanswered")
        return self._answers

    async def _send_all(self, requests: Sequence[bytes], number: int, rate: float) -> None:
        started = time.perf_counter() + 0.05
        for n in range(number):
            due = started + n / rate
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)  # a little too long, and that counts as waiting, too
            self._send(requests[n % len(requests)], due)

    def _send(self, request: bytes, due: float) -> None:
        if self._idle:
            self._idle.popleft().send(request, due, self._on_answer)
        else:
            self._waiting.append((request, due))

    def _is_free(self, connection: _Connection) -> None:
        if self._waiting:
            request, due = self._waiting.popleft()
            connection.send(request, due, self._on_answer)
        else:
            self._idle.append(connection)


def post(path: str, body: bytes) -> bytes:
    """Return the bytes of a POST of JSON."""
    return (
        b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
    )


def get(path: str) -> bytes:
    """Return the bytes of a GET."""
    return b"GET %b HTTP/1.1\r\nHost: bench\r\n\r\n" % path.encode()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which so many percent lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
