"""The gate of an upgrade of uvicorn: with the fast lane and without, the answers are the same.

Every request goes as bytes over a real socket to a server with the lane and to one without.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
import pytest_asyncio

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.protocol import fast_lane, server
from polyglot_persistence.api.protocol.connection import Connection
from polyglot_persistence.api.protocol.hot import HotRoutes
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.rate_limits import RateLimits
from polyglot_persistence.api.web.replies import Headers
from polyglot_persistence.config.http import HttpLimits
from polyglot_persistence.domain.access import ApiKey, Rate, digest_of, parse_scopes
from polyglot_persistence.errors import NotFoundError, UnavailableError, UnknownOutcomeError
from polyglot_persistence.flows.reading.read import Read
from tests.support.eventually import eventually
from tests.support.http_limits import HTTP_LIMITS
from tests.support.scripted import FakeClock
from tests.support.stub_flows import ID, LIMITS, OPEN, StubFlows

DEADLINE_SECONDS = 10.0
TEA = b'{"product_name":"Tea","amount":12.5}'
KEYED = b"idempotency-key: k\r\n"


class Answer(NamedTuple):
    """A parsed answer, without what differs by nature: the date, and the case of header names."""

    status: int
    headers: frozenset[tuple[str, str]]
    body: bytes


class Serving:
    """A server over stub flows, with the lane or without."""

    def __init__(self, *, lane: bool, access: Access, limits: HttpLimits) -> None:
        self.limits = limits
        self.flows = StubFlows()
        self.lane = lane
        self.access = access
        self.notices: Headers = ()
        self.listener = server.listen("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]
        self.shutdown = asyncio.Event()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        flows = self.flows.as_flows()
        hot = HotRoutes(
            flows.accept,
            flows.reads,
            body_bytes_max=LIMITS.order_body_bytes_max,
            access=self.access,
        )
        await server.serve(
            build_app(flows, LIMITS, clock=FakeClock(), stopping=self.shutdown, access=self.access),
            self.listener,
            limits=self.limits,
            shutdown=self.shutdown,
            graceful_seconds=5,
            on_ready=self.ready.set,
            notices=lambda: self.notices,
            protocol=fast_lane.fast_lane(hot) if self.lane else Connection,
        )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def refuses(self) -> None:
        """Fail while a new connection is taken."""
        try:
            _, writer = await self.connect()
        except (ConnectionRefusedError, ConnectionResetError):
            # Reset: the kernel took it between the last look into the backlog and the close.
            return
        writer.close()
        raise AssertionError("a new connection was taken")

    async def ask(
        self, data: bytes, answers: int = 1, *, pieces: Sequence[int] = ()
    ) -> list[Answer]:
        """Send bytes, in pieces cut at these places, and return so many answers."""
        reader, writer = await self.connect()
        try:
            for start, end in zip((0, *pieces), (*pieces, len(data)), strict=True):
                writer.write(data[start:end])
                await writer.drain()
                if pieces:
                    await asyncio.sleep(0)
            head_only = data.startswith(b"HEAD")
            return [await read_answer(reader, head_only=head_only) for _ in range(answers)]
        finally:
            writer.close()


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> Answer:
    async with asyncio.timeout(DEADLINE_SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")[:-2]
        if first.startswith("HTTP/1.1 100"):
            return await read_answer(reader, head_only=head_only)
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        headers.pop("date", None)  # refusals of the protocol itself have none
        body = b"" if head_only else await reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split()[1]), frozenset(headers.items()), body)


@pytest_asyncio.fixture
async def both() -> AsyncIterator[list[Serving]]:
    """The two servers, open to everybody, stopped after the test."""
    async with two_servers(lambda: OPEN) as servings:
        yield servings


@pytest_asyncio.fixture
async def guarded() -> AsyncIterator[list[Serving]]:
    """The two servers, each of which knows keys, and counts its clients' requests."""
    keys = [
        ApiKey(name, parse_scopes(name.replace("+", ",")), digest_of(name.encode()))
        for name in ("read", "write", "read+write", "admin")
    ]

    def access() -> Access:
        rate_limits = RateLimits(Rate(20, 60), FakeClock().monotonic)
        return Access(keys, without_key=frozenset(), rate_limits=rate_limits)

    async with two_servers(access) as servings:
        yield servings


@contextlib.asynccontextmanager
async def two_servers(
    access: Callable[[], Access], limits: HttpLimits = HTTP_LIMITS
) -> AsyncIterator[list[Serving]]:
    """Give a server without the lane and one with it, stopped at the end."""
    servings = [Serving(lane=lane, access=access(), limits=limits) for lane in (False, True)]
    async with asyncio.timeout(50), asyncio.TaskGroup() as tasks:
        for one in servings:
            tasks.create_task(one.run())
            await one.ready.wait()
        yield servings
        for one in servings:
            one.flows.may_accept.set()
            one.shutdown.set()


def post(body: bytes = TEA, more: bytes = b"", target: bytes = b"/api/orders") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n%b"
        b"content-length: %d\r\n\r\n%b" % (target, more, len(body), body)
    )


def get(target: bytes = b"/api/orders/%b" % str(ID).encode(), more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: t\r\n%b\r\n" % (target, more)


CHUNKED = (
    b"POST /api/orders HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(TEA), TEA)
)
REQUESTS = [
    post(),
    post(more=b"connection: keep-alive\r\n"),
    post(more=b"connection: close\r\n"),
    post(more=b"accept: */*\r\nuser-agent: x\r\n"),
    post(more=KEYED),
    post(more=b"prefer: wait=1\r\n"),
    post(more=b"Expect: 100-continue\r\n"),
    post(target=b"/api/orders?x=1"),
    post(target=b"/api/orders/"),
    post(target=b"/api/bulk-orders"),
    post(b"{}"),
    post(b"{"),
    post(b""),
    post(b'{"product_name":"\\ud800","amount":1}'),
    post(b"x" * 1_024),
    post(b"x" * 2_000),
    CHUNKED,
    post().replace(b"application/json", b"text/plain"),
    post().replace(b"application/json", b"application/json; charset=utf-8"),
    post().replace(b"content-type: application/json\r\n", b""),
    b"POST /api/orders HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\r\n",
    post().replace(b"HTTP/1.1", b"HTTP/1.0"),
    post().replace(b"POST", b"PUT"),
    get(),
    get(more=b"connection: close\r\n"),
    get(b"/api/orders/%b" % str(ID).upper().encode()),
    get(b"/api/orders/%b?x" % str(ID).encode()),
    get(b"/api/orders/%b" % (b"x" * 36)),
    get(b"/api/orders/%b" % (b"/" * 36)),
    get(b"/api/orders/%b" % (b"%41" * 12)),
    get(b"/api/orders/x"),
    get(b"/api/orders/%b/status" % str(ID)[:-7].encode()),
    get().replace(b"GET", b"HEAD"),
    get().replace(b"GET", b"DELETE"),
    get().replace(b"GET", b"OPTIONS"),
    get().replace(b"HTTP/1.1", b"HTTP/1.0"),
    get(more=b"content-length: 2\r\n") + b"xx",
]


@pytest.mark.parametrize(
    "error", [None, NotFoundError("no"), UnavailableError("away"), UnknownOutcomeError("lost"),
              ZeroDivisionError("a bug")]
)  # fmt: skip
async def test_every_request_is_answered_alike(
    both: list[Serving], error: Exception | None
) -> None:
    """Status, headers and body; and what reached the flow."""
    for one in both:
        one.flows.error = error
    for request in REQUESTS:
        plain, lane = [await one.ask(request) for one in both]
        assert plain == lane, request
    assert both[0].flows.accepted == both[1].flows.accepted


@pytest.mark.parametrize("name", ["", "read", "write", "read+write", "admin", "nobody's"])
async def test_a_key_opens_the_same_routes_on_both_ways(guarded: list[Serving], name: str) -> None:
    """Whoever may not gets the framework's refusal; whoever may gets the lane's answer."""
    key = name.encode()
    heads = [
        b"x-api-key: %b\r\n" % key,
        b"X-Api-Key:  %b \r\n" % key,
        b"authorization: Bearer %b\r\n" % key,
        b"authorization: bearer %b\r\nx-api-key: nonsense\r\n" % key,
        b"authorization: Basic %b\r\n" % key,
        b"x-api-key: %b\r\norigin: https://elsewhere.example\r\n" % key,
        b"x-api-key: %b\r\norigin: http://t\r\n" % key,
        b"x-api-key: %b\r\n" % key + b"x: y\r\n" * 100,
    ]
    statuses = []
    for head in heads:
        for request in (post(more=head), get(more=head)):
            plain, lane = [await one.ask(request) for one in guarded]
            assert plain == lane, request
            statuses.append(lane[0].status)
    expected = {
        "read": (403, 200),
        "write": (202, 403),
        "read+write": (202, 200),
        "admin": (403, 403),
    }.get(name, (401, 401))
    assert tuple(statuses[:2]) == tuple(statuses[4:6]) == expected
    assert guarded[0].flows.accepted == guarded[1].flows.accepted


async def test_a_client_over_its_rate_is_refused_on_both_ways(guarded: list[Serving]) -> None:
    """With what it has left in each answer, and one client's rate is not another's."""
    request = get(more=b"x-api-key: read+write\r\n")
    answers = [[(await one.ask(request))[0] for _ in range(22)] for one in guarded]
    assert answers[0] == answers[1]
    assert [answer.status for answer in answers[0]] == [200] * 20 + [429] * 2
    last = answers[0][-1]
    assert {("retry-after", "3"), ("ratelimit", '"client";r=0;t=60')} <= last.headers
    other = [await one.ask(get(more=b"x-api-key: read\r\n")) for one in guarded]
    assert other[0] == other[1]
    assert ("ratelimit", '"client";r=19;t=3') in other[0][0].headers


async def test_an_order_that_was_just_read_is_answered_at_once(both: list[Serving]) -> None:
    """Out of this process's memory, many times in one piece of data."""
    for one in both:
        one.flows.remembered = b'{"id":"y"}'
        one.flows.read = Read(one.flows.remembered, hit=True)
    plain, lane = [await one.ask(get() * 50, 50) for one in both]
    assert plain == lane
    assert ("x-cache", "HIT") in lane[0].headers


@pytest.mark.parametrize(
    ("in_cache", "error"),
    [
        (True, None),
        (False, None),
        (False, NotFoundError("no")),
        (False, ZeroDivisionError("a bug")),
    ],
)
async def test_a_read_is_answered_alike_wherever_it_ends(
    both: list[Serving], in_cache: bool, error: Exception | None
) -> None:
    """With the look-up into the cache, or after it."""
    for one in both:
        one.flows.in_cache, one.flows.error = in_cache, error
    plain, lane = [await one.ask(get() * 3, 3) for one in both]
    assert plain == lane
    assert (lane[0].status == 200) is (error is None)


async def test_random_pipelines_are_answered_in_order(both: list[Serving]) -> None:
    """Hot and ordinary requests mixed, cut into random pieces."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    closing = (b"close", b"HTTP/1.0", b"HEAD", b"Expect", b"DELETE", b"OPTIONS", b"PUT")
    mixable = [r for r in REQUESTS if not any(word in r for word in closing) and len(r) < 600]
    for _ in range(15):
        chosen = dice.choices(mixable, k=dice.randint(2, 12))
        data = b"".join(chosen)
        pieces = sorted(dice.sample(range(1, len(data)), dice.randint(0, 6)))
        plain, lane = [await one.ask(data, len(chosen), pieces=pieces) for one in both]
        assert plain == lane, (seed, chosen, pieces)


async def test_a_notice_is_in_every_answer_for_as_long_as_it_is_given(
    both: list[Serving],
) -> None:
    """On both ways, and to what no route has: that a store is away concerns every client."""

    async def carries(one: Serving, wanted: bool) -> None:
        for request in (post(), get(), get(b"/nowhere")):
            (answer,) = await one.ask(request)
            assert (("x-degraded", "search") in answer.headers) is wanted

    for one in both:
        await carries(one, False)
        one.notices = ((b"x-degraded", b"search"),)
        await eventually(lambda one=one: carries(one, True))  # type: ignore[misc]
        one.notices = ()
        await eventually(lambda one=one: carries(one, False))  # type: ignore[misc]


async def test_names_of_headers_are_the_go_peers(both: list[Serving]) -> None:
    """People grep for `X-Cache`."""
    reader, writer = await both[1].connect()
    writer.write(get())
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert b"\r\nX-Cache: HIT\r\n" in head


async def test_content_length_with_chunked_is_refused_alike(both: list[Serving]) -> None:
    """Request smuggling begins with two ways to tell where a body ends."""
    both_ways = CHUNKED.replace(b"transfer-encoding", b"content-length: 3\r\ntransfer-encoding")
    plain, lane = [await one.ask(both_ways) for one in both]
    assert plain == lane
    assert lane[0].status == 400


async def test_a_client_that_left_is_no_error_and_its_order_is_committed(
    both: list[Serving],
) -> None:
    """The lane writes nothing to a closed connection, and serves the next one."""
    for one in both:
        one.flows.may_accept.clear()
        reader, writer = await one.connect()
        writer.write(post())
        await writer.drain()
        await one.ask(get())  # so the order has reached the server
        writer.close()
        await writer.wait_closed()
        one.flows.may_accept.set()
        assert (await one.ask(post()))[0].status == 202
        assert len(one.flows.accepted) == 2
        del reader


@pytest.mark.parametrize("behind", [b"", get()], ids=["alone", "with another behind it"])
async def test_a_stop_answers_what_is_being_committed(both: list[Serving], behind: bytes) -> None:
    """Nothing is committed and unanswered; then the connection is closed."""
    for one in both:
        one.flows.may_accept.clear()
        reader, writer = await one.connect()
        writer.write(post() + behind)
        await writer.drain()
        await one.ask(get())
        one.shutdown.set()
        await eventually(one.refuses)  # so it has begun to stop
        one.flows.may_accept.set()
        assert (await read_answer(reader)).status == 202
        if behind:
            assert (await read_answer(reader)).status == 200
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await reader.read() == b""
        writer.close()


async def test_a_stop_answers_what_only_the_kernel_has_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connections in the backlog are no reason for a reset: their clients may have sent already."""
    late: list[socket.socket] = []

    class Crowded(server._Server):
        async def on_tick(self, counter: int) -> bool:
            ends = await super().on_tick(counter)
            for _ in range(20 * ends):  # the loop accepts none of them before it stops
                late.append(socket.create_connection(("127.0.0.1", port)))
                late[-1].sendall(get())
            return ends

    monkeypatch.setattr(server, "_Server", Crowded)
    for is_fast in (False, True):
        one = Serving(lane=is_fast, access=OPEN, limits=HTTP_LIMITS)
        one.flows.remembered = b"{}"
        port = one.port
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as tasks:
            tasks.create_task(one.run())
            await one.ready.wait()
            one.shutdown.set()
        for client in late:
            with client:
                assert client.recv(1_000).startswith(b"HTTP/1.1 200")
        late.clear()


async def test_an_idle_connection_is_closed_after_a_hot_answer() -> None:
    """However many answers came before, whoever asks nothing more is let go."""
    async with two_servers(lambda: OPEN, replace(HTTP_LIMITS, idle_seconds_max=0.05)) as both:
        for one in both:
            one.flows.remembered = b"{}"
            reader, writer = await one.connect()
            writer.write(get() * 3)
            for _ in range(3):
                assert (await read_answer(reader)).status == 200
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await reader.read() == b""
            writer.close()


async def test_a_connection_in_use_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that takes longer than an idle connection may wait is answered all the same."""
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.01)
    limits = replace(HTTP_LIMITS, idle_seconds_max=0.05, head_seconds_max=0.05)
    async with two_servers(lambda: OPEN, limits) as both:
        for one in both:
            one.flows.remembered = b"{}"
            one.flows.may_accept.clear()
            reader, writer = await one.connect()
            writer.write(get() + post())
            assert (await read_answer(reader)).status == 200
            silent, other = await one.connect()  # the deadlines are looked at meanwhile
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await silent.read() == b""
            other.close()
            one.flows.may_accept.set()
            assert (await read_answer(reader)).status == 202
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await reader.read() == b""
            writer.close()


async def test_a_long_pipeline_is_answered_in_order(both: list[Serving]) -> None:
    """What waits behind a slow request is not read, and lost by nobody."""
    for one in both:
        one.flows.may_accept.clear()
        reader, writer = await one.connect()
        writer.write(post() + get() * 300 + post() * 300)
        one.flows.may_accept.set()
        statuses = [(await read_answer(reader)).status for _ in range(601)]
        assert statuses == [202] + [200] * 300 + [202] * 300
        writer.close()


async def test_a_head_without_end_is_guarded_in_the_lane_too(both: list[Serving]) -> None:
    """The guards of the protocol below are not lost."""
    for one in both:
        reader, writer = await one.connect()
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET /api/orders/x HTTP/1.1\r\nx: " + b"y" * 100_000)
            await writer.drain()
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await reader.read()).startswith(b"HTTP/1.1 431")
        writer.close()
