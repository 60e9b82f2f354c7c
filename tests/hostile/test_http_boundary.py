"""What one client can make the server keep or wait for, in both lanes, over real sockets."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from polyglot_persistence.api.protocol import server
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.rate_limits import network_of
from polyglot_persistence.domain.access import ApiKey, digest_of, parse_scopes
from tests.hostile.boundary import served
from tests.hostile.grammar import BULK
from tests.hostile.requests import GET, LANES, WHOLE, chunked, post
from tests.support.eventually import eventually

GARBAGE = [b"\x00\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"}{\r\n"]


# --- time: no state without a deadline ---


@LANES
@pytest.mark.parametrize("before", [b"", GET, post(target=b"/api/bulk-orders", body=BULK)])
@pytest.mark.parametrize("drop", [b"\r\n", b"\n", b"\r\n\r\n\r\n"])
async def test_empty_lines_win_no_time(lane: str, before: bytes, drop: bytes) -> None:
    """A connection on which no request has begun is idle, whatever else is sent."""
    async with served(lane, idle_seconds_max=0.15, head_seconds_max=0.15) as one:
        client = await one.connect()
        if before:
            await client.send(before)
            assert (await client.answer()).status in (200, 202)
        dripping = asyncio.create_task(client.drip(drop))
        assert await client.rest() == b""
        dripping.cancel()


@LANES
@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (post(length=1_000, body=b"{"), b" "),
        (post(b"Idempotency-Key: k\r\n", length=1_000, body=b"{"), b" "),
        (post(target=b"/api/bulk-orders", length=1_000, body=b"{"), b" "),
        (chunked(b""), b"1\r\n \r\n"),
        (chunked(b""), b"1;" + b"e" * 50 + b"\r\n \r\n"),
    ],
)
async def test_a_body_that_trickles_is_408_in_both_lanes(
    lane: str, head: bytes, drop: bytes
) -> None:
    """The patience is for all of a body, however it is framed and whoever waits for it."""
    async with served(lane, body_patience_seconds=0.3) as one:
        client = await one.connect()
        await client.send(head)
        dripping = asyncio.create_task(client.drip(drop))
        answer = await client.answer()
        dripping.cancel()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert json.loads(answer.body)["detail"] == "the body arrived too slowly"
        assert not one.flows.taken


@LANES
@pytest.mark.parametrize("target", [b"/api/orders", b"/api/bulk-orders", b"/api/orders/import"])
async def test_a_request_ends_however_steadily_it_comes(lane: str, target: bytes) -> None:
    """Bytes win patience back, but never more than the whole time of a request."""
    async with served(lane, request_seconds_max=0.4, body_bytes_per_second_min=1) as one:
        client = await one.connect()
        data = post(target=target, length=1_000, body=b"{")
        if b"import" in target:
            data = data.replace(b"application/json", b"application/x-ndjson")
        await client.send(data)
        dripping = asyncio.create_task(client.drip(b" "))
        assert (await client.answer()).status == 408
        dripping.cancel()


@LANES
async def test_a_client_that_never_reads_its_last_answer_is_cut_off(lane: str) -> None:
    """Also when the server has closed its side already."""
    async with served(lane, write_seconds_max=0.3, head_seconds_max=0.3) as one:
        client = await one.connect()
        await client.send(b"GET / HTTP/1.1\r\n")

        async def gone() -> None:
            assert one.shared.crowd.open == 0

        await eventually(gone, within_seconds=10)
        assert (await client.rest()).startswith(b"HTTP/1.1 408")


# --- framing ---


@LANES
@pytest.mark.parametrize("flood", [b"a:\r\n" * 200, b"a: " + b"b" * 900 + b"\r\n", b"x" * 900])
@pytest.mark.parametrize("where", [b"0\r\n", b"1;"])
async def test_trailers_and_extensions_are_bounded(lane: str, flood: bytes, where: bytes) -> None:
    """They are dropped, and too many end the request; no more than a line is kept."""
    if where == b"1;":
        flood = flood.replace(b"\r\n", b";")
    async with served(lane, framing_bytes_max=4_096) as one:
        client = await one.connect()
        await client.send(chunked(WHOLE + where))

        async def pour() -> None:
            for _ in range(20_000):
                if client.writer.is_closing():
                    break
                await client.send(flood)

        pouring = asyncio.create_task(pour())
        answer = await client.answer()
        pouring.cancel()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert not one.flows.taken


KEYS = Access([ApiKey("k", parse_scopes("write"), digest_of(b"key"))], without_key=frozenset())


@LANES
@pytest.mark.parametrize(
    ("access", "trailer", "status"),
    [
        (KEYS, b"X-API-Key: key\r\n", 401),
        (KEYS, b"Authorization: Bearer key\r\n", 401),
        (Access(), b"Origin: https://evil.example\r\n", 202),
        (Access(), b"Content-Type: text/plain\r\n", 202),
        (Access(), b"Idempotency-Key: \r\n", 202),
    ],
)
async def test_a_trailer_is_no_header(
    lane: str, access: Access, trailer: bytes, status: int
) -> None:
    """RFC 9110, 6.5.1: neither a key nor anything else may come after the body."""
    async with served(lane, access=access) as one:
        client = await one.connect()
        await client.send(chunked(WHOLE + b"0\r\n" + trailer + b"\r\n"))
        assert (await client.answer()).status == status
        assert not one.flows.keys
        if status == 202:
            await client.send(GET)  # and the next request begins behind it
            assert (await client.answer()).status == 200


# --- answers keep their place ---


@LANES
@pytest.mark.parametrize("garbage", [*GARBAGE, b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("orders", [1, 3, 200])
async def test_a_refusal_comes_after_the_answers_before_it(
    lane: str, garbage: bytes, orders: int
) -> None:
    """What was stored is answered, also if rubbish came in the same packet."""
    async with served(lane) as one:
        one.flows.may_accept.clear()
        client = await one.connect()
        sending = asyncio.create_task(client.send(post() * orders + garbage))
        await asyncio.sleep(0)
        one.flows.may_accept.set()
        answers = [await client.answer() for _ in range(orders)]
        await sending
        assert {answer.status for answer in answers} == {202}
        assert one.flows.taken == orders
        assert (await client.answer()).status in (400, 431)
        assert await client.rest() == b""


@LANES
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_nothing_is_written_into_a_stream(lane: str, garbage: bytes, version: bytes) -> None:
    """A stream ends as it would have; HTTP/1.0 gets no chunks, for it knows none."""
    may_end = asyncio.Event()
    async with served(lane, app=streaming(may_end)) as one:
        client = await one.connect()
        await client.send(b"GET / HTTP/%b\r\nHost: t\r\n\r\n" % version)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert (b"\r\nTransfer-Encoding: chunked\r\n" in head) is (version == b"1.1")
        await client.send(garbage)
        may_end.set()
        rest = await client.rest()
        if version == b"1.0":
            assert rest == b"piece" * 50
        else:
            body, _, after = rest.partition(b"0\r\n\r\n")
            assert body == b"5\r\npiece\r\n" * 50
            assert after.startswith(b"HTTP/1.1 400")


def streaming(
    may_end: asyncio.Event,
) -> Callable[[Any, Any, Callable[[MutableMapping[str, Any]], Awaitable[None]]], Awaitable[None]]:
    """Return an application whose answer has no length and many pieces."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(50):
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await may_end.wait()
        await send({"type": "http.response.body", "body": b""})

    return app


@LANES
@pytest.mark.parametrize(
    "data",
    [
        post(),
        post(target=b"/api/bulk-orders", body=BULK),
        post() * 5,
        chunked(WHOLE + b"0\r\n\r\n"),
    ],
)
async def test_a_client_that_has_ended_its_side_is_answered(lane: str, data: bytes) -> None:
    """`nc -N` and old scripts do so, and the order is stored."""
    async with served(lane) as one:
        client = await one.connect()
        await client.send(data)
        client.writer.write_eof()
        rest = await client.rest()
        assert rest.count(b"HTTP/1.1 202 ") == one.flows.taken == max(1, data.count(b"POST"))


# --- how much ---


@LANES
@pytest.mark.parametrize(
    "part",
    [
        post(target=b"/api/bulk-orders", length=4_000, body=b"{" + b" " * 3_900),
        post(length=1_000, body=b"{" + b" " * 990),
        b"GET / HTTP/1.1\r\nx: " + b"y" * 3_900,
        post() + b"GET / HTTP/1.1\r\nx: " + b"y" * 3_900,
    ],
    ids=["bulks", "orders", "heads", "sent ahead"],
)
async def test_what_all_clients_make_it_keep_is_bounded(lane: str, part: bytes) -> None:
    """Those that have been sending for the longest end; a quick client beside them is answered."""
    async with served(lane, in_flight_bytes_max=65_536) as one:
        if part.startswith(post()):
            one.flows.may_accept.clear()
        for _ in range(100):
            await (await one.connect()).send(part)

        async def some_ended() -> None:
            ends = [c for c in one.clients if c.reader.at_eof() or c.reader._buffer]  # type: ignore[attr-defined]
            assert ends or not one.flows.may_accept.is_set()
            assert 0 < one.shared.in_flight.bytes <= 65_536

        await eventually(some_ended, within_seconds=10)
        one.flows.may_accept.set()
        assert (await one.ask(post())).status == 202
        assert (await one.ask(post(target=b"/api/bulk-orders", body=BULK))).status == 202
    assert one.shared.in_flight.bytes == 0


@LANES
async def test_a_pipeline_without_end_is_not_read(lane: str) -> None:
    """While an order is pending, one read is kept of what follows."""
    async with served(lane) as one:
        one.flows.may_accept.clear()
        client = await one.connect()
        client.writer.write(post() + GET * 300_000)  # 22 MB

        async def is_held() -> None:
            assert one.shared.in_flight.bytes > 0

        await eventually(is_held, within_seconds=10)
        assert one.shared.in_flight.bytes < 600_000
        one.flows.may_accept.set()
        for _ in range(1_000):
            assert (await client.answer()).status in (200, 202)
        client.writer.transport.abort()


@LANES
async def test_one_address_does_not_take_all_connections(lane: str) -> None:
    """The next one from there is told 503, others are served, and it is told in the log."""
    async with served(lane, address_connections_max=3) as one:
        first = [await one.connect() for _ in range(3)]
        for client in first:
            await client.send(GET)
            assert (await client.answer()).status == 200
        refused = await (await one.connect()).answer()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert b"from this address" in refused.body
        other = await one.connect("127.0.0.2")
        await other.send(GET)
        assert (await other.answer()).status == 200
        assert one.shared.crowd.take_refused() == 1
        first[0].writer.close()

        async def has_room() -> None:
            assert (await one.ask(GET)).status == 200

        await eventually(has_room, within_seconds=10)


def test_a_network_counts_as_one_client() -> None:
    """An IPv4 address, also if it is mapped; of IPv6 what one customer is given."""
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2")
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("::ffff:192.0.2.1") != network_of("::ffff:192.0.2.2")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth0")


async def test_refused_connections_are_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for many, with the bounds."""
    told: list[dict[str, Any]] = []

    class Log:
        def warning(self, action: str, **fields: Any) -> None:
            told.append({"action": action, **fields})

    monkeypatch.setattr(server, "_log", Log())
    monkeypatch.setattr(server, "TELL_SECONDS", 0.05)
    async with served("fast", connections_max=1) as one:
        await one.ask(GET)
        for _ in range(5):
            assert (await (await one.connect()).answer()).status == 503

        async def is_told() -> None:
            assert sum(line["number"] for line in told) == 5

        await eventually(is_told, within_seconds=10)
    assert told[0]["action"] == "connections_refused"
    assert told[0]["connections_max"] == 1


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(256, 256, 152), (256, 1_024, 920), (1_024, 20_000, 4_096), (64, 64, 16)],
)
def test_the_bound_on_connections_is_within_what_may_be_opened(
    soft: int, hard: int, expected: int
) -> None:
    """The soft limit is raised to the hard one, and 8 of a pool and 96 more are left."""
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from polyglot_persistence.bootstrap.boundary import http_limits\n"
        "from polyglot_persistence.config import load\n"
        "from polyglot_persistence.telemetry import set_up_logging\n"
        "set_up_logging('info', 'json')\n"
        "print(http_limits(load({})).connections_max, resource.getrlimit(7)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == [str(expected), str(hard)]
    line = next(json.loads(one) for one in (done.stderr + done.stdout).splitlines() if "{" in one)
    assert (line["action"], line["connections_max"]) == ("connection_limit", expected)
    assert line["level"] == ("INFO" if expected == 4_096 else "WARNING")
