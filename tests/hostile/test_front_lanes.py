"""What stands in front, over sockets and in both lanes alike."""

import json

import pytest

from polyglot_persistence.api.access import Access
from polyglot_persistence.api.front import Front
from polyglot_persistence.api.rate_limits import RateLimits
from polyglot_persistence.bootstrap.front import front_of
from polyglot_persistence.config import load
from polyglot_persistence.domain.access import Rate
from tests.hostile.boundary import served
from tests.support.scripted import FakeClock

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
