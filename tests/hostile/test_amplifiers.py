"""What a client sends costs no more than its bytes: no square of them, and no garbage kept."""

import asyncio
import contextlib
import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from starlette.requests import Request

from polyglot_persistence.api.orders.requests import parse_bulk
from polyglot_persistence.api.protocol.chunked import LINES_A_TURN, ChunkedBody
from polyglot_persistence.api.protocol.connection import Connection
from polyglot_persistence.api.protocol.front import FORWARDED_BYTES_MAX
from polyglot_persistence.api.protocol.head_reader import HeadReader
from polyglot_persistence.api.protocol.heads import BadHeadError, read_head
from polyglot_persistence.api.protocol.held_writes import HeldTransport
from polyglot_persistence.api.web.queries import check_query
from polyglot_persistence.bootstrap.boundary import front_of
from polyglot_persistence.config import load
from polyglot_persistence.errors import (
    ForbiddenError,
    InvalidError,
    MalformedError,
    MisdirectedError,
)
from tests.hostile import boundary
from tests.hostile.boundary import served
from tests.support.eventually import eventually
from tests.support.http_limits import HTTP_LIMITS
from tests.support.stub_flows import LIMITS

SECONDS_MAX = 0.02
"""Of processor time, for one request; half of what each took before its bound, or less."""

GET = b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n"
BODY = b'{"product_name":"Tea","amount":1}'
POST = (
    b"POST /api/orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
CHUNKED = (
    b"POST /api/bulk-orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture(autouse=True)
def _bodies_of_a_megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "LIMITS", replace(LIMITS, body_bytes_max=2**20))


def _seconds(data: bytes) -> float:
    """Return the processor time that the heads of a pipeline take."""
    began = time.thread_time()
    reader = HeadReader(HTTP_LIMITS)
    while data:
        data = reader.feed(data)
        reader.read()
        reader.next()
    return time.thread_time() - began


def test_a_head_costs_the_same_however_much_comes_behind_it() -> None:
    """Each head once took a look at the whole pipeline."""
    few, many = GET * 64, GET * 8_192
    ratios = [_seconds(many) / _seconds(few) for _ in range(5)]
    assert min(ratios) < 3 * 8_192 / 64


@pytest.mark.parametrize("cut", range(1, len(GET) + 4))
def test_a_head_ends_where_it_ends(cut: int) -> None:
    """Cut anywhere, also within its end, and with another one behind it."""
    reader = HeadReader(HTTP_LIMITS)
    data = GET + GET
    rest = reader.feed(data[:cut])
    if not reader.complete:
        assert rest == b""
        rest = reader.feed(data[cut:])
        assert rest == GET[: len(data) - len(GET)]
    assert reader.complete
    assert reader.target == b"/health/live"


@pytest.mark.parametrize("form", [b"1\r\nx\r\n", b"1;e\r\nx\r\n", b'00001;a="b"\r\nx\r\n'])
def test_a_turn_takes_so_many_lines_of_framing(form: bytes) -> None:
    """The rest is for another turn, and nothing of it is lost."""
    body = ChunkedBody(16_384)
    data = form * 5_000 + b"0\r\n\r\n" + GET
    pieces = []
    while data and not body.complete:
        piece, data = body.feed(data)
        assert len(piece) <= LINES_A_TURN
        pieces.append(piece)
    assert (b"".join(pieces), data) == (b"x" * 5_000, GET)
    assert len(pieces) == 5_000 / LINES_A_TURN + 1


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("behind", [b"", GET])
async def test_a_body_of_dust_is_answered(behind: bytes, *, half_closed: bool) -> None:
    """Over several turns, with what comes behind it, and if its client sends nothing more."""
    order = b'{"orders":[{"product_name":"Tea","amount":1}]}' + b" " * 9_000
    dust = b"".join(b"1;e\r\n%c\r\n" % byte for byte in order) + b"0\r\n\r\n"
    async with served("fast") as one:
        client = await one.connect()
        await client.send(CHUNKED + dust + behind)
        if half_closed:
            client.writer.write_eof()
        assert (await client.answer()).status == 202
        if behind:
            assert (await client.answer()).status == 200
        if half_closed:
            assert await client.rest() == b""


@pytest.mark.parametrize("end", [b"zz\r\n", b"1\r\nxyz", b""])
async def test_dust_with_a_wrong_end_is_refused(end: bytes) -> None:
    """After turns, as at once; nothing of it is counted as kept."""
    async with served("fast", body_patience_seconds=0.3) as one:
        client = await one.connect()
        await client.send(CHUNKED + b"1\r\n \r\n" * 9_000 + end)
        assert (await client.answer()).status == (400 if end else 408)
        assert one.shared.in_flight.bytes == 0
        await client.rest()


@pytest.mark.parametrize("route", ["/api/bulk-orders", "/api/orders/import"])
@pytest.mark.parametrize("how", ["slow", "broken", "gone"])
async def test_a_body_that_failed_is_not_kept(route: str, how: str) -> None:
    """It waits for no collector: that comes seldom, and bodies are a megabyte."""
    media_type = b"application/x-ndjson" if "import" in route else b"application/json"
    head = CHUNKED.replace(b"/api/bulk-orders", route.encode())
    head = head.replace(b"application/json", media_type)
    spaces = b" " * 200_000
    async with served("fast", body_patience_seconds=0.2) as one:

        async def fail() -> None:
            client = await one.connect()
            await client.send(head + b"%x\r\n%b\r\n" % (len(spaces), spaces))
            if how == "gone":
                client.writer.transport.abort()
            else:
                await client.send(b"zz\r\n" if how == "broken" else b"")
                assert (await client.answer()).status == (400 if how == "broken" else 408)
            client.writer.close()
            one.clients.clear()

        async def nobody_is_there() -> None:
            assert not one.shared.crowd.open

        await fail()
        await eventually(nobody_is_there, within_seconds=5)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(10):
                await fail()
            await eventually(nobody_is_there, within_seconds=5)
            assert tracemalloc.get_traced_memory()[0] < 3 * len(spaces)
        finally:
            tracemalloc.stop()
            gc.enable()


@pytest.mark.parametrize("value", [b"{}", b"[]", b"1.5", b'""', b"null", b'{"a":[]}'])
def test_a_bulk_of_far_too_much_is_refused_at_once(value: bytes) -> None:
    """It is not read in full to say what is wrong with each of its values."""
    body = b'{"orders":[' + b",".join([value] * (1_000_000 // (len(value) + 1))) + b"]}"
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        with pytest.raises(InvalidError, match="1 to 1000 orders"):
            parse_bulk(body)
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.01


def least_seconds(act: Callable[[], object]) -> float:
    """Return the processor time of the fastest of three tries; a refusal ends one."""
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        with contextlib.suppress(InvalidError, MalformedError, BadHeadError):
            act()
        seconds.append(time.thread_time() - began)
    return min(seconds)


@pytest.mark.parametrize(
    "body",
    [
        b"\n" * 1_000_000,
        b"[" + b"\r\n" * 500_000,
        b'{"orders":\r' + b"\r" * 900_000 + b"x",
        b'{"orders":[' + b",".join([b"[" * 400 + b"]" * 400] * 1_000) + b"]}",
        b'{"orders":[' + b"[{}" * 300_000 + b"]}",
        b'{"orders":[{' + b'"amount":1,' * 11_000 + b'"amount":1}]}',
        b"{" + b",".join(b'"%d":1' % (i // 2) for i in range(11_000)) + b"}",
        b'{"orders":['
        + b",".join([b'{"product_name":"a",' + b'"amount":1,' * 70 + b'"amount":1}'] * 1_000)
        + b"]}",
        b'{"orders":['
        + b",".join([b'{"product_name":"' + b'\\":' * 300 + b'","amount":1}'] * 1_000)
        + b"]}",
    ],
    ids=[
        "line-ends",
        "crlf",
        "cr",
        "flat-brackets",
        "brackets-and-braces",
        "one-member",
        "members-twice",
        "members-of-all",
        "ends-of-names",
    ],
)
def test_no_bulk_holds_the_loop(body: bytes) -> None:
    """A megabyte of line ends once took 0.7 s and 150 MB, to say in which line it is wrong."""
    assert len(body) <= 2**20
    assert least_seconds(lambda: parse_bulk(body)) < SECONDS_MAX


@pytest.mark.parametrize("part", [b"a", b"%", b"%41", b"a=b", b"limit=1", b"+", b"%25%25", b""])
def test_no_query_holds_the_loop(part: bytes) -> None:
    """Thousands of parameters are not read to find that there are too many."""
    query = (part + b"&") * (60_000 // (len(part) + 1))

    def check() -> None:
        request = Request({"type": "http", "query_string": query, "headers": []})
        check_query(request, ("limit", "cursor"))

    assert least_seconds(check) < SECONDS_MAX / 4
    if part:
        with pytest.raises(MalformedError, match=r"no query parameter|given twice"):
            check()


@pytest.mark.parametrize("size", [FORWARDED_BYTES_MAX, 60_000])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"forwarded", b"a"),
        (b"forwarded", b'\\"'),
        (b"forwarded", b'a="\\"'),
        (b"forwarded", b'"'),
        (b"forwarded", b"for=127.0.0.1,"),
        (b"forwarded", b"a=b;"),
        (b"forwarded", b" \t"),
        (b"forwarded", b'a="";'),
        (b"x-forwarded-for", b"127.0.0.1,"),
        (b"x-forwarded-for", b"::ffff:7f00:1,"),
        (b"x-forwarded-for", b"["),
        (b"x-forwarded-for", b":,"),
        (b"x-forwarded-prefix", b"/a"),
        (b"x-forwarded-host", b"a."),
        (b"x-forwarded-proto", b"https,"),
    ],
)
@pytest.mark.parametrize("begin", [b"", b'"', b'for="'])
def test_no_word_of_a_proxy_holds_the_loop(
    name: bytes, text: bytes, size: int, begin: bytes
) -> None:
    """One `Forwarded` that a client wrote, and a proxy passed on, once took 18 s."""
    headers = [(name, (begin + text * (size // len(text)))[:size])]
    front = front_of(load({"TRUSTED_PROXIES": "127.0.0.0/8"}))
    assert least_seconds(lambda: front.seen("127.0.0.1", headers)) < SECONDS_MAX / 4


def test_long_hosts_and_origins_are_not_remembered() -> None:
    """Each name once stayed in memory, 256 of them with 64 KiB each, in three places."""
    front = front_of(load({"API_HOST": "127.0.0.1", "TRUSTED_ORIGINS": "https://shop.example"}))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(300):
            host = b"h%d." % number + b"a" * 60_000
            with contextlib.suppress(BadHeadError, MisdirectedError, ForbiddenError):
                read_head("1.1", [(b"host", host)])
                front.check_host([(b"host", host)], "127.0.0.1")
            origin = [(b"host", b"localhost"), (b"origin", b"https://" + host)]
            with pytest.raises(ForbiddenError):
                front.check_origin("POST", origin)
            assert not front.trusts_origin(b"https://" + host)
        assert tracemalloc.get_traced_memory()[0] - before < 500_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("lane", ["plain", "fast"])
@pytest.mark.parametrize("host", [b"a" * 253 + b":65535", b"a" * 261, b"a" * 60_000])
async def test_a_host_is_as_long_as_a_name_may_be(lane: str, host: bytes) -> None:
    """A longer one is none."""
    async with served(lane) as one:
        answer = await one.ask(b"GET /health/live HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    assert answer.status == (200 if len(host) < 260 else 400)


@pytest.mark.parametrize("lane", ["plain", "fast"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HT",
        GET,
        GET[:-2] + b"x: " + b"y" * 70_000,
        b"\0\r\n",
        CHUNKED + b"1\r\nx",
        POST,
        POST[:-3],
        POST * 3 + b"x",
    ],
    ids=["silent", "part", "get", "huge", "garbage", "chunk", "order", "short-order", "pipeline"],
)
@pytest.mark.parametrize("how", ["reset", "closed", "answered"])
async def test_connections_leave_no_garbage(lane: str, data: bytes, how: str) -> None:
    """It is collected seldom, in one go, while all clients wait; heads are 64 KiB."""
    async with served(lane, head_seconds_max=0.2, body_patience_seconds=0.2) as one:

        async def come_and_go() -> None:
            client = await one.connect()
            await client.send(data)
            if how == "reset":
                client.writer.transport.abort()
            elif how == "closed":
                client.writer.close()
            else:
                client.writer.write_eof()
                await client.rest()
            client.writer.close()
            one.clients.clear()

        async def nobody_is_there() -> None:
            assert not one.shared.crowd.open
            assert len(kept()) == before

        def kept() -> list[object]:
            kinds = (Connection, HeadReader, HeldTransport)
            return [each for each in gc.get_objects() if isinstance(each, kinds)]

        gc.collect()
        before = len(kept())
        gc.disable()
        try:
            await asyncio.gather(*(come_and_go() for _ in range(5)))
            await eventually(nobody_is_there, within_seconds=5)
        finally:
            gc.enable()
