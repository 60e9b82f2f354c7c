"""What a client sends costs no more than its bytes: no square of them, and no garbage kept."""

import gc
import time
import tracemalloc

import pytest

from polyglot_persistence.api.chunked import LINES_A_TURN, ChunkedBody
from polyglot_persistence.api.head_reader import HeadReader
from polyglot_persistence.api.requests import parse_bulk
from polyglot_persistence.errors import InvalidError
from tests.hostile import boundary
from tests.hostile.boundary import served
from tests.support.eventually import eventually
from tests.support.http_limits import HTTP_LIMITS
from tests.support.stub_flows import LIMITS

GET = b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n"
CHUNKED = (
    b"POST /api/bulk-orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture(autouse=True)
def _bodies_of_a_megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "LIMITS", LIMITS._replace(body_bytes_max=2**20))


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
