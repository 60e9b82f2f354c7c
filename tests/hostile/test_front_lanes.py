"""What stands in front, over sockets and in both lanes alike."""

import json
import re

import pytest

from polyglot_persistence.api.protocol.front import Front
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.rate_limits import RateLimits
from polyglot_persistence.bootstrap.boundary import front_of
from polyglot_persistence.config import load
from polyglot_persistence.domain.access import Rate
from tests.hostile.boundary import served
from tests.support.scripted import FakeClock

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
LANES = pytest.mark.parametrize("lane", ["plain", "fast"])
BODY = b'{"product_name":"Tea","amount":1}'


def front(**settings: str) -> Front:
    return front_of(load(settings))


def post(target: str = "/api/orders", host: str = "localhost", **headers: str) -> bytes:
    """Return a plain request that places an order."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"{more}Content-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


@LANES
async def test_an_order_for_another_host_is_refused(lane: str) -> None:
    """Also on a connection on which one for a host that is known went before."""
    async with served(lane, front=front(API_HOST="127.0.0.1")) as one:
        client = await one.connect()
        for host, status in (
            ("localhost:8080", 202),
            ("evil.example", 421),
            ("localhost:8080", 202),
            ("127.0.0.1", 202),
            ("evil.example:8080", 421),
        ):
            await client.send(post(host=host))
            assert (await client.answer()).status == status
        assert len(one.flows.accepted) == 3


@LANES
@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({}, False),
        ({"TRUSTED_PROXIES": "10.0.0.0/8"}, False),
        ({"TRUSTED_PROXIES": "127.0.0.1"}, True),
    ],
)
async def test_rates_count_clients_behind_a_trusted_proxy(
    lane: str, settings: dict[str, str], own: bool
) -> None:
    """Each has a rate of its own; what others say of their address is not believed."""
    access = Access(rate_limits=RateLimits(Rate(1, 60), FakeClock().monotonic))
    async with served(lane, access=access, front=front(**settings)) as one:
        client = await one.connect()
        statuses = []
        for address in ("198.51.100.1", "198.51.100.2", "198.51.100.1"):
            await client.send(post(X_Forwarded_For=address))
            statuses.append((await client.answer()).status)
    assert statuses == ([202, 202, 429] if own else [202, 429, 429])


@LANES
@pytest.mark.parametrize(
    ("settings", "target", "headers", "location"),
    [
        ({}, "/api/orders", {}, "/api/orders/"),
        ({}, "/api/orders", {"X_Forwarded_Prefix": "/evil"}, "/api/orders/"),
        ({"PATH_PREFIX": "/polyglot"}, "/api/orders", {}, "/polyglot/api/orders/"),
        ({"PATH_PREFIX": "/polyglot"}, "/polyglot/api/orders", {}, "/polyglot/api/orders/"),
        (
            {"TRUSTED_PROXIES": "127.0.0.1"},
            "/api/orders",
            {"X_Forwarded_Prefix": "/a/b/"},
            "/a/b/api/orders/",
        ),
        (
            {"TRUSTED_PROXIES": "127.0.0.1", "PATH_PREFIX": "/polyglot"},
            "/api/orders",
            {"X_Forwarded_Prefix": "/a"},
            "/a/api/orders/",
        ),
    ],
)
async def test_a_location_stands_below_the_prefix(
    lane: str, settings: dict[str, str], target: str, headers: dict[str, str], location: str
) -> None:
    """Whether or not the proxy strips it; of one that is not trusted nothing is taken."""
    async with served(lane, front=front(**settings)) as one:
        answer = await one.ask(post(target, **headers))
        assert answer.status == 202
        assert answer.headers["location"].startswith(location)


@LANES
async def test_the_page_and_its_links_work_below_a_prefix(lane: str) -> None:
    """They are relative, so that the path that a browser shows is what counts."""
    async with served(lane, front=front(PATH_PREFIX="/polyglot")) as one:
        for path in ("/polyglot/", "/polyglot", "/polyglot/page/main.js", "/polyglot/docs"):
            answer = await one.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert answer.status == 200, path
            assert b'"/api' not in answer.body
            assert b'"/page' not in answer.body
        other = await one.ask(b"GET /polyglotx/docs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert other.status == 404


@LANES
@pytest.mark.parametrize(
    ("settings", "target", "headers", "base"),
    [
        ({"PATH_PREFIX": "/polyglot"}, "/polyglot", {}, "/polyglot/"),
        ({"PATH_PREFIX": "/polyglot"}, "/polyglot?q=tea", {}, "/polyglot/"),
        ({"PATH_PREFIX": "/a/b"}, "/", {}, "/a/b/"),
        ({"TRUSTED_PROXIES": "127.0.0.1"}, "/", {"X_Forwarded_Prefix": "/a"}, "/a/"),
        ({"TRUSTED_PROXIES": "127.0.0.1"}, "/a", {"X_Forwarded_Prefix": "/a/"}, "/a/"),
        ({}, "/", {"X_Forwarded_Prefix": "/a"}, None),
        ({}, "/", {}, None),
    ],
)
async def test_the_page_says_what_its_links_are_below(
    lane: str, settings: dict[str, str], target: str, headers: dict[str, str], base: str | None
) -> None:
    """So they work where a browser asked for it without the slash, by any kind of proxy."""
    async with served(lane, front=front(**settings)) as one:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        answer = await one.ask(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        assert answer.status == 200
        found = re.findall(rb'<base href="([^"]*)">', answer.body)
        assert found == ([base.encode()] if base else [])
        assert answer.body.find(b"<base") < answer.body.find(b'href="page/')
        policy = answer.headers["content-security-policy"]
        assert ("base-uri 'self'" if base else "base-uri 'none'") in policy


@LANES
@pytest.mark.parametrize(
    "prefix", ["/../x", "/a/..", "/./a", "/.", "/..", "//evil.example", "/a//b", "/a\\b"]
)
async def test_a_prefix_that_a_browser_would_leave_is_refused(lane: str, prefix: str) -> None:
    """What begins with it would not be below it, or at another host."""
    async with served(lane, front=front(TRUSTED_PROXIES="127.0.0.1")) as one:
        answer = await one.ask(post(X_Forwarded_Prefix=prefix))
        assert answer.status == 400
        assert "X-Forwarded-Prefix" in json.loads(answer.body)["detail"]


@LANES
async def test_a_forwarded_host_and_scheme_make_the_origin(lane: str) -> None:
    """So the page behind a proxy that ends TLS may place orders, and another may not."""
    trusting = front(
        API_HOST="127.0.0.1", TRUSTED_PROXIES="127.0.0.1", ALLOWED_HOSTS="shop.example"
    )
    async with served(lane, front=trusting) as one:
        for origin, status in (
            ("https://shop.example", 202),
            ("http://shop.example", 403),
            ("https://evil.example", 403),
        ):
            answer = await one.ask(
                post(
                    host="127.0.0.1:8080",
                    X_Forwarded_Host="shop.example",
                    X_Forwarded_Proto="https",
                    Origin=origin,
                )
            )
            assert answer.status == status
            if status == 403:
                assert "https://shop.example" in json.loads(answer.body)["detail"]
        stranger = await one.ask(post(host="127.0.0.1", X_Forwarded_Host="evil.example"))
        assert stranger.status == 421


@LANES
@pytest.mark.parametrize(
    "body",
    [
        b'{"product_name":"Tea","amount":1,"amount":2}',
        b'{"product_name":"Tea","product_name":"Rug","amount":2}',
        b'{"product_name":"Tea","amount":1,"\\u0061mount":2}',
    ],
)
async def test_an_order_with_a_member_twice_is_refused(lane: str, body: bytes) -> None:
    """With the same words, and nothing is stored."""
    async with served(lane) as one:
        head = (
            b"POST /api/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        answer = await one.ask(head + body)
        assert answer.status == 422
        assert "is given twice" in json.loads(answer.body)["errors"][0]["detail"]
        assert not one.flows.accepted


@LANES
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\0\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
        (post(Transfer_Encoding="gzip, chunked").replace(b"Content-Length: 33\r\n", b""), 501),
    ],
)
async def test_what_is_refused_unread_is_kept_nowhere(lane: str, data: bytes, status: int) -> None:
    """The connection's own refusals are problems with the headers of all others."""
    async with served(lane) as one:
        answer = await one.ask(data)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


FORWARDED = [
    *((f"for=203.0.113.{n}", 202) for n in range(3)),
    ("for=198.51.100.1;host=localhost;proto=https", 202),
    ('for="[2001:4860::1]:4711", for=127.0.0.1', 202),
    ("", 202),
    (",,for=203.0.113.9 , ", 202),
    ("for=unknown", 202),
    ('for="', 400),
    ('for="\\", for=203.0.113.1', 400),
    ("nonsense", 400),
    ("for=203.0.113.1;for=203.0.113.2", 400),
    ("for=203.0.113.1 for=203.0.113.2", 400),
    ("host=evil.example", 421),
    ("host=" + "a" * 300, 400),
    (",".join(["for=127.0.0.1"] * 33), 400),
    (",".join(["for=127.0.0.1"] * 32), 202),
    ("a" * 8_192, 400),
    ("a" * 8_193, 431),
    ('for="' + '\\"' * 4_000, 400),
]


@LANES
@pytest.mark.parametrize(("said", "status"), FORWARDED, ids=range(len(FORWARDED)))
async def test_what_a_proxy_says_is_read_alike(lane: str, said: str, status: int) -> None:
    """In both lanes, and not at all if the proxy is not trusted."""
    async with served(lane, front=front(API_HOST="127.0.0.1", TRUSTED_PROXIES="127.0.0.1")) as one:
        assert (await one.ask(post(Forwarded=said))).status == status
        assert len(one.flows.accepted) == (status == 202)
    async with served(lane, front=front(API_HOST="127.0.0.1")) as one:
        assert (await one.ask(post(Forwarded=said))).status == 202


async def test_both_lanes_answer_alike_behind_a_front() -> None:
    """Hosts, origins, proxies, prefixes and parameters, each with each: all but the date."""
    one_front = front(
        API_HOST="127.0.0.1",
        TRUSTED_PROXIES="127.0.0.1",
        TRUSTED_ORIGINS="https://app.example",
        ALLOWED_HOSTS="shop.example",
        PATH_PREFIX="/polyglot",
    )
    requests = [
        post(target, host, **headers)
        for target in ("/api/orders", "/polyglot/api/orders", "/api/orders?x=1", "/api%2Forders")
        for host in ("localhost", "shop.example:443", "evil.example", "a" * 300)
        for headers in (
            {},
            {"Origin": "https://app.example"},
            {"Origin": "https://evil.example"},
            {"Origin": "https://" + "a" * 500},
            {"Forwarded": "for=203.0.113.1;host=shop.example;proto=https"},
            {"Forwarded": 'for="'},
            {"X_Forwarded_For": "203.0.113.1", "X_Forwarded_Prefix": "/other"},
            {"X_Forwarded_Host": "evil.example"},
        )
    ]
    asked = b"Access-Control-Request-Method: POST\r\nContent-Type"
    requests += [
        one.replace(b"POST", b"OPTIONS", 1).replace(b"Content-Type", asked, 1) for one in requests
    ]
    answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
    for lane in ("plain", "fast"):
        async with served(lane, front=one_front) as one:
            answers[lane] = []
            for request in requests:
                status, headers, body = await one.ask(request)
                del headers["date"]
                kept = (_ID.sub("ID", headers.get("location", "")), _ID.sub("ID", body.decode()))
                headers["location"] = kept[0]
                answers[lane].append((status, headers, kept[1].encode()))
    for request, plain, fast in zip(requests, answers["plain"], answers["fast"], strict=True):
        assert plain == fast, request
    assert {status for status, *_ in answers["fast"]} >= {200, 202, 400, 403, 404, 421}
