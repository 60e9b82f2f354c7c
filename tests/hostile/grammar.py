"""Requests as a hostile, careless or odd client writes them: a grammar, and mutations of bytes.

Everything comes from one `random.Random`, so a seed repeats a run.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.support.stub_flows import ID

TEA = b'{"product_name":"Tea","amount":12.5}'
BULK = b'{"orders":[{"product_name":"Tea","amount":1},{"product_name":"Rug","amount":2}]}'
LINES = b'{"product_name":"Tea","amount":1}\n{"product_name":"","amount":1}\n'
ONE = b"/api/orders/" + str(ID).encode()


class Case(NamedTuple):
    """What one client sends: pieces, each in a read of its own; then it ends its side."""

    pieces: Sequence[bytes]

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)


METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"]
ODD_METHODS = [
    b"CONNECT",
    b"TRACE",
    b"get",
    b"FOO",
    b"",
    b"PRI",
    b"POST\t",
    b"SOURCE",
    b"P\xc3\xb6ST",
]
TARGETS = [b"/api/orders", ONE, b"/api/bulk-orders", b"/api/orders/import", b"/health/live"]
ODD_TARGETS = [
    b"/api/orders?x=1", b"/api/orders?", b"/api/orders#f", b"/api/orders/", b"//api/orders",
    b"/api%2Forders", b"/api/orders%2f" + ONE[-36:], b"/%61pi/orders", b"/api/./orders",
    b"http://t/api/orders", b"HTTP://T:80" + ONE, b"https://t/api/orders?x",
    b"http:///api/orders", b"http://t", b"http://t?x", b"ftp://t/x", b"*", b"t:80", b"",
    b"api/orders", b"http://a@t/api/orders",
    ONE.upper(), ONE + b"?x", ONE + b"#x", ONE + b"%20", ONE[:-1] + b"#", ONE[:-1] + b"%",
    ONE[:-1] + b"/", ONE[:-1] + b"?", b"/api/orders/" + b"x" * 36, b"/api/orders/" + b"%41" * 12,
    b"/api/orders/" + "ä".encode() * 18, "/api/search?q=Müsli".encode(), b"/api/search?q=%FF\xff",
    "/日本".encode(), b"/" + b"y" * 3_000, b"/api/orders\x00", b"/api/orders\x7f", b"/a b",
]  # fmt: skip
VERSIONS = [
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"", b"X/1.1",
    b"RTSP/1.0",
]  # fmt: skip
HOSTS = [b"", b"t:80", b"other", b"a b", b"a/b", b"[::1]:80", b"u@t", b"t,t", "ä".encode(), b" t\t",
         b"localhost:evil", b"t:99999", b"[t]"]  # fmt: skip
TYPES = [
    b"application/json; charset=utf-8", b"application/json;charset=latin-1", b"text/plain",
    b"APPLICATION/JSON", b"application/x-ndjson", b"", b"application/json ", b"application/json,x",
]  # fmt: skip
CODINGS = [
    b"chunked", b"Chunked", b"gzip, chunked", b"chunked, chunked", b"gzip", b"identity", b"",
    b"chunked;q=1", b"xchunked", b" chunked ",
]  # fmt: skip
MORE = [
    b"Connection: close", b"Connection: keep-alive", b"Connection: Close, x",
    b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"Expect: 100-continue",
    b"Expect: x",
    b"Idempotency-Key: k", b'Idempotency-Key: "a b"', b"Idempotency-Key: a b", b"Idempotency-Key:",
    b"Prefer: wait=1", b"Prefer: respond-async", b"Origin: http://t", b"Origin: https://evil.example",
    b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Accept: */*", b"X: \xff\xfe", b"X:",
    b"X-API-Key: write", b"X-API-Key: read", b"Authorization: Bearer read", b"X-Api-Key:  write ",
    b"Authorization: Basic x", b"Content-Type: application/json", b"Host: t", b"Content-Length: 0",
    b"Origin: http://other", b"Last-Event-ID: 1", b"Expect: y",
    b"Content-Length: 36", b"Transfer-Encoding: chunked", b" folded: x", b"no colon", b": empty",
    b"space : x", b"nul: \0", b"Trailer: X-API-Key", b"TE: trailers", b"Forwarded: for=1.2.3.4",
]  # fmt: skip
LENGTHS = [b"%d ", b" %d", b"+%d", b"-%d", b"0%d", b"0x%d", b"%d,%d", b"%d.0", b"", b"9" * 30, b"x"]


def cases(seed: int, number: int) -> "list[Case]":
    """Return so many cases."""
    dice = random.Random(seed)
    return [_case(dice) for _ in range(number)]


def _case(dice: random.Random) -> Case:
    requests = [_request(dice) for _ in range(dice.choice((1, 1, 1, 2, 3, 5)))]
    between = dice.choice((b"", b"", b"", b"\r\n", b"\n\r\n", b"\0\r\n", b"x"))
    data = between.join(requests)
    for _ in range(dice.choice((0, 0, 0, 1, 3))):
        data = dice.choice(MUTATIONS)(dice, data)
    return Case(_pieces(dice, data))


def _pieces(dice: random.Random, data: bytes) -> Sequence[bytes]:
    how = dice.random()
    if how < 0.5 or len(data) < 2:
        return (data,)
    if how < 0.6 and len(data) < 400:
        return [data[i : i + 1] for i in range(len(data))]
    places = sorted(dice.sample(range(1, len(data)), min(len(data) - 1, dice.randint(1, 6))))
    return [data[a:b] for a, b in zip((0, *places), (*places, len(data)), strict=True)]


def _request(dice: random.Random) -> bytes:
    """Return a request, mostly near to one of the hot routes."""

    def seldom(usual: bytes, odd: Sequence[bytes], share: float = 0.15) -> bytes:
        return dice.choice(odd) if dice.random() < share else usual

    target = seldom(dice.choice(TARGETS), ODD_TARGETS, 0.25)
    usual = b"GET" if target == ONE or b"health" in target else b"POST"
    method = seldom(seldom(usual, METHODS), ODD_METHODS, 0.04)
    version = seldom(b"HTTP/1.1", VERSIONS, 0.08)
    headers = [b"Host: " + seldom(b"t", HOSTS, 0.08)] if dice.random() > 0.04 else []
    body = b""
    if method not in (b"GET", b"HEAD") or dice.random() < 0.1:
        body = _body(dice, target)
        usual_type = b"application/x-ndjson" if b"import" in target else b"application/json"
        if dice.random() > 0.05:
            headers.append(b"Content-Type: " + seldom(usual_type, TYPES))
        body = _framed(dice, body, headers)
    headers += dice.sample(MORE, dice.choice((0, 0, 0, 0, 1, 1, 2, 4)))
    if dice.random() < 0.02:
        headers += [b"a: b"] * dice.choice((95, 99, 100, 101, 200))
    if dice.random() < 0.01:
        headers.append(b"long: " + b"y" * dice.choice((60_000, 65_000, 66_000, 140_000)))
    dice.shuffle(headers)
    end = seldom(b"\r\n", [b"\n", b"\r", b"\r\r\n"], 0.01)
    return method + b" " + target + b" " + version + end + end.join([*headers, b"", b""]) + body


def _body(dice: random.Random, target: bytes) -> bytes:
    usual = {TARGETS[2]: BULK, TARGETS[3]: LINES}.get(target, TEA)
    if dice.random() < 0.75:
        return usual
    return dice.choice(
        [b"", b"{}", b"{", b"x" * 1_024, b"x" * 1_025, b"y" * 5_000, TEA[:-1], TEA + TEA,
         TEA.replace(b"Tea", "Crème Brûlée".encode()), b'{"product_name":"","amount":-1}',
         b"\xef\xbb\xbf" + TEA]
    )  # fmt: skip


def _framed(dice: random.Random, body: bytes, headers: list[bytes]) -> bytes:
    """Add what tells the body's end, and return the body as it is sent."""
    how = dice.random()
    if how < 0.65:
        headers.append(b"Content-Length: %d" % len(body))
        return body
    if how < 0.72:
        form = dice.choice(LENGTHS)
        headers.append(b"Content-Length: " + form.replace(b"%d", b"%d" % len(body)))
        return body
    if how < 0.76:
        headers.append(b"Content-Length: %d" % max(0, len(body) + dice.choice((-3, -1, 1, 40))))
        return body
    if how < 0.8:
        return body
    coding = b"chunked" if dice.random() < 0.7 else dice.choice(CODINGS)
    headers.append(b"Transfer-Encoding: " + coding)
    return _chunked(dice, body)


def _chunked(dice: random.Random, body: bytes) -> bytes:
    parts = []
    while body:
        size = dice.randint(1, len(body))
        form = dice.choice((b"%x", b"%X", b"0%x", b"%x ", b"%x;a=b", b'%x;a="b;c"', b"%x\t;x"))
        if dice.random() < 0.03:
            form = dice.choice((b"%x;" + b"e" * 20_000, b"0x%x", b"-%x", b" %x", b"%xg", b"+%x"))
        end = b"\r\n" if dice.random() > 0.02 else dice.choice((b"\n", b"\r", b""))
        parts.append(form % size + end + body[:size] + b"\r\n")
        body = body[size:]
    last = dice.choice((b"0", b"0", b"00000", b"0;x"))
    trailers = dice.choice(
        (b"", b"", b"X-API-Key: write\r\n", b"a:\r\n" * 50, b"a: b\r\n" * 4_000, b"bad\r\n",
         b"Content-Length: 3\r\nHost: u\r\n")
    )  # fmt: skip
    return b"".join(parts) + last + b"\r\n" + trailers + b"\r\n"


def _flip(dice: random.Random, data: bytes) -> bytes:
    place = dice.randrange(len(data))
    return data[:place] + bytes([dice.randrange(256)]) + data[place + 1 :]


def _delete(dice: random.Random, data: bytes) -> bytes:
    place = dice.randrange(len(data))
    return data[:place] + data[place + dice.choice((1, 1, 2, 10)) :] or b"\n"


def _insert(dice: random.Random, data: bytes) -> bytes:
    place = dice.randrange(len(data) + 1)
    piece = dice.choice(
        (b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\xff", b"%", b"\r\n\r\n")
    )
    return data[:place] + piece + data[place:]


def _repeat(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    line = dice.randrange(len(lines))
    return b"\r\n".join([*lines[: line + 1], *lines[line:]])


def _truncate(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randint(1, len(data))]


MUTATIONS: Sequence[Callable[[random.Random, bytes], bytes]] = (
    _flip,
    _delete,
    _insert,
    _repeat,
    _truncate,
)
