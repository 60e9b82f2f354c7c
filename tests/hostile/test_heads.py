"""What is taken as the head of a request, in both lanes, over real sockets."""

import json

import pytest

from polyglot_persistence.api.protocol.front import Front
from tests.hostile.boundary import served
from tests.hostile.grammar import BULK, ONE, TEA
from tests.hostile.requests import GET, JSON, LANES, WHOLE, chunked, post

BAD_HEADS = [
    (b"POST /api/orders HTTP/1.1\r\n%bContent-Length: 36\r\n\r\n%b" % (JSON, TEA), 400),
    (post(b"Host: u\r\n"), 400),
    (post(b"Host: t\r\n"), 400),
    (GET.replace(b"Host: t", b"Host: a b"), 400),
    (GET.replace(b"Host: t", b"Host: a/b"), 400),
    (GET.replace(b" HTTP", b"#x HTTP"), 400),
    (post(target=b"/api/orders#"), 400),
    (post(target=b"http://a@t/api/orders"), 400),
    (post(b"Content-Type: text/plain\r\n"), 400),
    (post(JSON), 400),
    *[
        (request.replace(b"Host: t\r\n", b"Host: t\r\n%b\r\n%b\r\n" % (one, other)), 400)
        for one, other in (
            (b"Origin: http://t", b"Origin: https://evil.example"),
            (b"origin: https://evil.example", b"ORIGIN: http://t"),
            (b"Origin: http://t", b"Origin: http://t"),
            (b"Authorization: Bearer a", b"Authorization: Bearer b"),
            (b"Authorization: Basic eDp5", b"authorization: Bearer b"),
            (b"X-API-Key: a", b"x-api-key: b"),
            (b"Idempotency-Key: a", b"Idempotency-Key: b"),
            (b"Last-Event-ID: 1", b"Last-Event-ID: 2"),
            (b"Content-Encoding: identity", b"Content-Encoding: gzip"),
            (b"Expect: x", b"Expect: 100-continue"),
        )
        for request in (post(), GET)
    ],
    *[
        (request.replace(b"Host: t", b"Host: %b" % host), 400)
        for host in (b"localhost:evil", b"t:99999", b"t:65536", b":80", b"::1", b"[t]", b"t:8:0")
        for request in (post(), GET)
    ],
    (post(b"Transfer-Encoding: chunked\r\n"), 400),
    (chunked(WHOLE + b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    (chunked(WHOLE + b"0\r\n\r\n").replace(b": chunked", b": gzip, chunked"), 501),
    (chunked(WHOLE + b"0\r\n\r\n").replace(b": chunked", b": chunked, gzip"), 501),
    (chunked(WHOLE + b"0\r\n\r\n").replace(b": chunked", b": identity"), 501),
    (chunked(WHOLE + b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"), 501),
    (post(b"Content-Encoding: gzip\r\n"), 415),
    (post(b"Content-Encoding: br\r\n", target=b"/api/bulk-orders", body=BULK), 415),
    (post(b"content-encoding: Deflate, gzip\r\n", target=b"/api/orders/import"), 415),
    (post(target=b"/api%2Forders"), 404),
    (post(target=b"/api%2fadmin%2Frefresh"), 404),
    (GET.replace(b"/api/orders/", b"/api/orders%2F"), 404),
]


@LANES
@pytest.mark.parametrize(("data", "status"), BAD_HEADS)
async def test_a_head_that_says_two_things_is_refused(lane: str, data: bytes, status: int) -> None:
    """Or one that this server does not do; nothing is stored of it."""
    async with served(lane) as one:
        answer = await one.ask(data)
        assert (answer.status, one.flows.taken) == (status, 0)
        assert json.loads(answer.body)["status"] == status
        if status == 415:
            assert answer.headers["accept-encoding"] == "identity"


@LANES
@pytest.mark.parametrize(
    "data",
    [
        post().replace(b"Length: 36", b"Length: 36 "),
        post().replace(b"Length: 36", b"Length: 36\t "),
        post().replace(b"json\r\n", b"json \r\n"),
        post(target=b"http://t/api/orders"),
        post(target=b"HTTP://other:80/api/orders"),
        post(b"Content-Encoding: identity\r\n"),
        post(b"Prefer: x\r\nPrefer: y\r\nAccept: a/b\r\nAccept: */*\r\n"),
        post().replace(b"Host: t", b"Host: [::1]:65535"),
        b"\r\n\r\n" + post(),
        post().replace(b"Host: t", b"Host:"),
    ],
)
async def test_what_is_odd_and_legal_is_taken(lane: str, data: bytes) -> None:
    """White space after a value, an absolute target, lists in several headers."""
    async with served(lane) as one:
        assert (await one.ask(data)).status == 202
        assert one.flows.taken == 1


@LANES
@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"/api/admin/refresh", b"localhost", 200),
        (b"/api/admin/refresh", b"evil.example", 421),
        (b"http://evil.example/api/admin/refresh", b"localhost", 421),
        (b"http://localhost/api/admin/refresh", b"evil.example", 200),
        (b"http://evil.example:80/api/admin/refresh", b"127.0.0.1", 421),
    ],
)
async def test_the_host_of_an_absolute_target_counts(
    lane: str, target: bytes, host: bytes, status: int
) -> None:
    """RFC 9112, 3.2.2: so the check for the loopback cannot be passed by its other half."""
    async with served(lane, front=Front(hosts=frozenset())) as one:
        data = b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Length: 0\r\n\r\n" % (target, host)
        assert (await one.ask(data)).status == status


@LANES
@pytest.mark.parametrize("text", ["Müsli", "日本", "Crème Brûlée".replace(" ", "+"), "🦄"])
@pytest.mark.parametrize("cut", [0, 1, 2])
async def test_a_target_may_be_written_as_it_is(lane: str, text: str, cut: int) -> None:
    """As curl sends it; also behind a body that is not ASCII, and cut within a character."""
    async with served(lane) as one:
        target = f"/api/search?q={text}".encode()
        data = post(body=TEA.replace(b"Tea", "Tée".encode())) + GET.replace(ONE, target)
        place = data.rindex(text.encode()[-1:]) - cut
        client = await one.connect()
        await client.send(data[:place])
        assert (await client.answer()).status == 202
        await client.send(data[place:])
        assert (await client.answer()).status == 200
        assert one.flows.searched is not None
        words = one.flows.searched.words
        encoded = await one.ask(
            GET.replace(ONE, b"/api/search?q=" + b"".join(b"%%%02x" % b for b in text.encode()))
            if "+" not in text
            else GET.replace(ONE, b"/api/search?q=Cr%C3%A8me%20Br%C3%BBl%C3%A9e")
        )
        assert encoded.status == 200
        assert one.flows.searched.words == words
