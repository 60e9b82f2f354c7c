"""What stands in front: hosts, origins, proxies and a path prefix."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2
import pytest

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.protocol.front import Front
from polyglot_persistence.api.protocol.heads import BadHeadError
from polyglot_persistence.bootstrap.boundary import front_of
from polyglot_persistence.config import load
from polyglot_persistence.domain.origin import Origin, parse_origin
from polyglot_persistence.errors import ConfigurationError, ForbiddenError, MisdirectedError
from tests.support.scripted import FakeClock
from tests.support.stub_flows import LIMITS, OPEN, StubFlows

LOCAL = {"API_HOST": "127.0.0.1"}
SHOP = "https://shop.example"


def front(**settings: str) -> Front:
    """Return the front that these settings make."""
    return front_of(load(settings))


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


# --- hosts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "host", "known"),
    [
        (LOCAL, "localhost", True),
        (LOCAL, "LOCALHOST:8080", True),
        (LOCAL, "localhost.:8080", True),
        (LOCAL, "127.0.0.1:8080", True),
        (LOCAL, "127.1.2.3", True),
        (LOCAL, "[::1]:8080", True),
        (LOCAL, "evil.example:8080", False),
        (LOCAL, "localhost.evil.example", False),
        (LOCAL, "localhost:8080:80", False),
        (LOCAL, "10.0.0.7", False),
        (LOCAL, "[2001:db8::1]", False),
        ({"API_HOST": "localhost"}, "evil.example", False),
        ({"API_HOST": "::1"}, "evil.example", False),
        (LOCAL | {"ALLOWED_HOSTS": "shop.example, www.shop.example"}, "Shop.example:81", True),
        (LOCAL | {"ALLOWED_HOSTS": "shop.example"}, "127.0.0.1", True),
        (LOCAL | {"ALLOWED_HOSTS": "shop.example"}, "evil.example", False),
        ({}, "anything.example", True),
        ({"ALLOWED_HOSTS": "shop.example"}, "anything.example", False),
        ({"ALLOWED_HOSTS": "shop.example"}, "shop.example", True),
        ({"ALLOWED_HOSTS": "shop.example"}, "localhost:8080", True),
        ({"ALLOWED_HOSTS": "shop.example"}, "10.0.0.9:8080", True),  # a probe of the own address
        ({"ALLOWED_HOSTS": "shop.example"}, "10.0.0.8:8080", False),
        ({"ALLOWED_HOSTS": "[2001:db8::1]"}, "[2001:DB8::1]:80", True),
    ],
)
def test_which_hosts_are_answered_for(settings: dict[str, str], host: str, known: bool) -> None:
    """On the loopback its names only; no page of elsewhere can make a browser send these."""
    headers = encoded({"host": host})
    if known:
        front(**settings).check_host(headers, "10.0.0.9")
    else:
        with pytest.raises(MisdirectedError, match="ALLOWED_HOSTS"):
            front(**settings).check_host(headers, "10.0.0.9")


# --- origins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "allowed"),
    [
        ("https://shop.example", "shop.example", None, True),
        ("https://shop.example", "shop.example:443", None, True),
        ("https://shop.example:443", "shop.example", None, True),
        ("http://shop.example", "shop.example:80", None, True),
        ("http://shop.example:80", "SHOP.example", None, True),
        ("https://SHOP.example:8080", "shop.example:8080", None, True),
        ("http://[::1]:8080", "[::1]:8080", None, True),
        ("https://shop.example", "shop.example", "https", True),
        ("http://shop.example", "shop.example", "https", False),
        ("https://shop.example", "shop.example:443", "http", False),
        ("https://shop.example", "shop.example:80", None, False),
        ("http://shop.example", "shop.example:443", None, False),
        ("http://shop.example:8080", "shop.example", None, False),
        ("http://shop.example", "shop.example:8080", None, False),
        ("http://shop.example:8080.evil.example", "shop.example:8080", None, False),
        ("http://evil.example", "shop.example", None, False),
        ("http://shop.example:80x", "shop.example", None, False),
        ("null", "shop.example", None, False),
        ("file://shop.example", "shop.example", None, False),
        ("https://app.example", "shop.example", None, True),
        ("https://app.example:443", "shop.example", None, True),
        ("http://app.example", "shop.example", None, False),
    ],
)
def test_pages_of_other_origins_change_nothing(
    origin: str, host: str, scheme: str | None, allowed: bool
) -> None:
    """Default ports are equal (RFC 6454, 4); a refusal names both, and what to set."""
    trusting = front(TRUSTED_ORIGINS="https://app.example")
    headers = encoded({"host": host, "origin": origin})
    for method in ("GET", "HEAD", "OPTIONS"):
        trusting.check_origin(method, headers, scheme)
    if allowed:
        trusting.check_origin("POST", headers, scheme)
        return
    with pytest.raises(ForbiddenError, match="cross-origin") as refused:
        trusting.check_origin("POST", headers, scheme)
    assert origin in str(refused.value)
    assert host in str(refused.value)
    assert "TRUSTED_ORIGINS=" in str(refused.value) or "only origins of http" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HTTPS://Shop.Example:443", "https://shop.example"),
        ("http://shop.example:8080", "http://shop.example:8080"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_shown_as_a_browser_sends_it(text: str, shown: str) -> None:
    """Without the default port."""
    assert str(parse_origin(text)) == shown
    assert isinstance(parse_origin(text), Origin)


@asynccontextmanager
async def client_of(front: Front, host: str = "localhost") -> AsyncIterator[httpx2.AsyncClient]:
    app = build_app(
        StubFlows().as_flows(),
        LIMITS,
        clock=FakeClock(),
        stopping=asyncio.Event(),
        access=OPEN,
        front=front,
    )
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        yield client


ORDER = {"product_name": "Tea", "amount": 1}


async def test_a_trusted_origin_may_call_and_read() -> None:
    """Preflights are answered for it, and it reads refusals, too; without a key being looked at."""
    async with client_of(front(TRUSTED_ORIGINS=f"{SHOP} http://localhost:3000")) as client:
        for path in ("/api/orders", "/api/orders/import", "/api/nothing"):
            preflight = await client.options(
                path,
                headers={
                    "origin": SHOP,
                    "access-control-request-method": "POST",
                    "access-control-request-headers": "content-type,x-api-key",
                },
            )
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == SHOP
            assert "POST" in preflight.headers["access-control-allow-methods"]
            allowed = preflight.headers["access-control-allow-headers"].lower().split(", ")
            assert {"authorization", "content-type", "idempotency-key", "x-api-key"} <= {*allowed}
        placed = await client.post("/api/orders", json=ORDER, headers={"origin": SHOP})
        assert placed.status_code == 202
        refused = await client.post("/api/orders", json={}, headers={"origin": SHOP})
        assert refused.status_code == 422
        missing = await client.get("/api/nothing", headers={"origin": SHOP})
        for answer in (placed, refused, missing):
            assert answer.headers["access-control-allow-origin"] == SHOP
            assert "origin" in answer.headers["vary"]
            assert "Location" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("settings", [{}, {"TRUSTED_ORIGINS": SHOP}])
@pytest.mark.parametrize("origin", ["https://evil.example", "http://shop.example", "null"])
async def test_all_other_origins_get_no_word(settings: dict[str, str], origin: str) -> None:
    """CORS is opt-in: no header of it without a setting, or for another origin."""
    async with client_of(front(**settings)) as client:
        preflight = await client.options(
            "/api/orders", headers={"origin": origin, "access-control-request-method": "POST"}
        )
        read = await client.get("/health/live", headers={"origin": origin})
        written = await client.post("/api/orders", json=ORDER, headers={"origin": origin})
    assert (preflight.status_code, read.status_code, written.status_code) == (405, 200, 403)
    for answer in (preflight, read, written):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/api/orders", "/health/ready", "/metrics", "/nothing"])
async def test_no_route_answers_for_another_host(path: str) -> None:
    """Whatever scope it needs."""
    async with client_of(front(**LOCAL), host="evil.example:8080") as client:
        answer = await client.get(path)
    assert answer.status_code == 421
    assert answer.json()["type"] == "/problems#misdirected"
    assert "evil.example" in answer.json()["detail"]


# --- proxies -----------------------------------------------------------------------------------

PROXY = "127.0.0.1"
TRUSTED = {"TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8 2001:db8::/32"}


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({}, PROXY),
        ({"x-forwarded-for": "198.51.100.7"}, "198.51.100.7"),
        ({"x-forwarded-for": "198.51.100.7:4711"}, "198.51.100.7"),
        ({"x-forwarded-for": "6.6.6.6, 198.51.100.7"}, "198.51.100.7"),
        ({"x-forwarded-for": "6.6.6.6, 198.51.100.7, 10.1.2.3"}, "198.51.100.7"),
        ({"x-forwarded-for": "10.9.9.9,10.1.2.3"}, "10.9.9.9"),
        ({"x-forwarded-for": "2001:4860::1, 2001:db8::5"}, "2001:4860::1"),
        ({"x-forwarded-for": "[2001:4860::1]:443"}, "2001:4860::1"),
        ({"x-forwarded-for": "198.51.100.7, nonsense, 10.1.2.3"}, "10.1.2.3"),
        ({"x-forwarded-for": "unknown"}, PROXY),
        ({"forwarded": "for=198.51.100.7"}, "198.51.100.7"),
        ({"forwarded": 'For="[2001:4860::1]:4711";proto=https'}, "2001:4860::1"),
        ({"forwarded": 'for=6.6.6.6, for="198.51.100.7:80", for=10.1.2.3'}, "198.51.100.7"),
        ({"forwarded": "for=_hidden, for=10.1.2.3"}, "10.1.2.3"),
        ({"forwarded": 'by="a,b;c";for=198.51.100.7'}, "198.51.100.7"),
        ({"forwarded": "for=198.51.100.7", "x-forwarded-for": "198.51.100.7"}, "198.51.100.7"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_not_trusted(
    headers: dict[str, str], client: str
) -> None:
    """What a client wrote itself stands before it, and is not reached."""
    assert front(**TRUSTED).seen(PROXY, encoded(headers)).client == client


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({"forwarded": "for=1.1.1.1;proto=https;host=shop.example"}, ("https", b"shop.example")),
        (
            {"forwarded": 'for=6.6.6.6;host=evil.example, for=1.1.1.1;host="shop.example:8080"'},
            (None, b"shop.example:8080"),
        ),
        (
            {
                "x-forwarded-for": "1.1.1.1",
                "x-forwarded-proto": "https",
                "x-forwarded-host": "shop.example",
            },
            ("https", b"shop.example"),
        ),
        (
            {
                "x-forwarded-for": "1.1.1.1, 10.0.0.1",
                "x-forwarded-proto": "https, http",
                "x-forwarded-host": "evil.example, shop.example, inner",
            },
            ("https", b"shop.example"),
        ),
        ({"x-forwarded-proto": "gopher"}, (None, None)),
    ],
)
def test_scheme_and_host_are_those_of_the_same_hop(
    headers: dict[str, str], seen: tuple[str | None, bytes | None]
) -> None:
    """Of a chain of proxies, what the one says that told of the client."""
    found = front(**TRUSTED).seen(PROXY, encoded(headers))
    assert (found.scheme, found.host) == seen


@pytest.mark.parametrize(
    "headers",
    [
        {"forwarded": "for=6.6.6.6", "x-forwarded-for": "198.51.100.7"},
        {"x-forwarded-for": "198.51.100.7", "x-forwarded-prefix": "//evil.example"},
        {"x-forwarded-prefix": "/a b"},
        {"x-forwarded-prefix": "polyglot"},
        {"x-forwarded-prefix": "/../x"},
        {"x-forwarded-prefix": "/a/./b"},
        {"x-forwarded-host": "shop.example:evil"},
        {"forwarded": "for=1.1.1.1;host=shop.example:99999"},
        {"x-forwarded-prefix": "/a/../b?"},
        {"x-forwarded-host": "shop.example/evil"},
        {"forwarded": 'for=1.1.1.1;host="a b"'},
    ],
)
def test_what_contradicts_itself_is_refused(headers: dict[str, str]) -> None:
    """One of two that differ was written by the client, and passed on."""
    with pytest.raises(BadHeadError):
        front(**TRUSTED).seen(PROXY, encoded(headers))


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("127.0.0.1", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("127.0.0.2", False),
        ("11.0.0.1", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("a.sock", False),
    ],
)
def test_who_is_trusted(address: str, trusted: bool) -> None:
    """Addresses and networks, also of IPv4 in IPv6; nobody without a setting."""
    assert front(**TRUSTED).trusts(address) is trusted
    assert not front().trusts(address)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ALLOWED_HOSTS", "shop.example:8080"),
        ("ALLOWED_HOSTS", "https://shop.example"),
        ("TRUSTED_ORIGINS", "shop.example"),
        ("TRUSTED_ORIGINS", "https://shop.example/path"),
        ("TRUSTED_ORIGINS", "*"),
        ("TRUSTED_ORIGINS", "null"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "*"),
        ("PATH_PREFIX", "polyglot"),
        ("PATH_PREFIX", "/polyglot/"),
        ("PATH_PREFIX", "//evil.example"),
    ],
)
def test_a_wrong_value_is_refused_at_the_start(name: str, text: str) -> None:
    """In one line that names the variable."""
    with pytest.raises(ConfigurationError, match=name):
        load({name: text})
