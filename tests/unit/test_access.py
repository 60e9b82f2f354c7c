"""API keys, scopes and rates: how they are written, and whom they admit."""

import asyncio
import re

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.routes import ROUTES, Route
from polyglot_persistence.api.web import rate_limits
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.failed_authentication import FailedAuthentication
from polyglot_persistence.api.web.rate_limits import RateLimits
from polyglot_persistence.domain.access import (
    ApiKey,
    Rate,
    Scope,
    digest_of,
    new_api_key,
    parse_api_keys,
    parse_rate,
    parse_scopes,
    public_prefix,
    read_key_list,
    shown_api_keys,
)
from polyglot_persistence.domain.order import derived_id
from polyglot_persistence.errors import (
    ForbiddenError,
    TooManyRequestsError,
    UnauthenticatedError,
)
from tests.support.scripted import FakeClock
from tests.support.stub_flows import LIMITS, StubFlows

GRANTED = (Scope.READ, Scope.WRITE, Scope.ADMIN)
NOBODY: frozenset[Scope] = frozenset()
LOCAL = (b"host", b"localhost:8080")


def key_of(name: str, *scopes: Scope) -> ApiKey:
    """Return a key whose secret is its name."""
    return ApiKey(name, frozenset(scopes), digest_of(name.encode()))


def sent(secret: str) -> list[tuple[bytes, bytes]]:
    return [LOCAL, (b"x-api-key", secret.encode())]


GUARDED = build_app(
    StubFlows().as_flows(),
    LIMITS,
    clock=FakeClock(),
    stopping=asyncio.Event(),
    access=Access([key_of(scope.value, scope) for scope in GRANTED], without_key=NOBODY),
)
"""Knows a key for each scope, named after it."""


# --- who may ask for what ----------------------------------------------------------------------


ROLES = {
    "nobody": [LOCAL],
    "stranger": sent("unknown"),
    **{scope.value: sent(scope.value) for scope in GRANTED},
    "all": sent("all"),
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("role", ROLES)
def test_each_role_gets_what_its_scopes_say(route: Route, role: str) -> None:
    """Every route of the table with every role, where keys are set up."""
    keys = [key_of(scope.value, scope) for scope in GRANTED]
    access = Access([*keys, key_of("all", *GRANTED)], without_key=NOBODY)
    if route.scope is Scope.PUBLIC or role in ("all", route.scope.value):
        expected = "" if route.scope is Scope.PUBLIC else role
        assert access.admit(route.scope, ROLES[role], "") == (expected, ())
    elif role in ("nobody", "stranger"):
        with pytest.raises(UnauthenticatedError) as refused:
            access.admit(route.scope, ROLES[role], "")
        assert refused.value.code == ("" if role == "nobody" else "invalid_token")
    else:
        with pytest.raises(ForbiddenError, match=f"the scope {route.scope.value}$"):
            access.admit(route.scope, ROLES[role], "")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_each_route_asks_for_its_scope_over_http(route: Route) -> None:
    """The table's word is what the application does, for HEAD as for GET."""
    client = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(GUARDED), base_url="http://localhost"
    )
    path = re.sub(r"\{\w+\}", "1", route.path)
    methods = [route.method, "HEAD"] if route.method == "GET" else [route.method]
    others = [scope.value for scope in GRANTED if scope is not route.scope]
    async with client:
        for method in methods:
            if route.scope is Scope.PUBLIC:
                answer = await client.request(method, path)
                assert answer.status_code not in (401, 403)
                continue
            nobody = await client.request(method, path)
            stranger = await client.request(method, path, headers={"x-api-key": "unknown"})
            assert (nobody.status_code, stranger.status_code) == (401, 401)
            assert nobody.headers["www-authenticate"] == 'Bearer realm="polyglot-persistence"'
            assert 'error="invalid_token"' in stranger.headers["www-authenticate"]
            for other in others:
                answer = await client.request(
                    method, path, headers={"authorization": f"Bearer {other}"}
                )
                assert answer.status_code == 403
                challenge = answer.headers["www-authenticate"]
                assert f'error="insufficient_scope", scope="{route.scope.value}"' in challenge


def test_without_keys_orders_are_everybodys_and_operating_is_nobodys() -> None:
    """The default of a service on servers: a key that nobody set up opens nothing."""
    access = Access()
    assert access.unrestricted
    for headers in ([LOCAL], sent("whatever")):
        for scope in (Scope.READ, Scope.WRITE):
            assert access.admit(scope, headers, "").client == ""
        with pytest.raises(UnauthenticatedError, match="API_KEYS"):
            access.admit(Scope.ADMIN, headers, "")


def test_a_key_takes_nothing_from_what_everybody_may() -> None:
    """Where reading is everybody's, a key that only writes reads, too."""
    access = Access([key_of("shop", Scope.WRITE)], without_key=frozenset({Scope.READ}))
    assert access.admit(Scope.READ, sent("shop"), "").client == "shop"
    assert access.admit(Scope.READ, [LOCAL], "").client == ""
    with pytest.raises(ForbiddenError):
        access.admit(Scope.ADMIN, sent("shop"), "")


def test_a_key_that_is_taken_out_is_refused_at_once() -> None:
    """And the one that replaced it is the same client: its idempotency keys stay its own."""
    old, new = key_of("old", Scope.WRITE), key_of("new", Scope.WRITE)
    access = Access([old._replace(name="shop")], without_key=NOBODY)
    before = access.admit(Scope.WRITE, sent("old"), "").client
    access.replace_keys([new._replace(name="shop")])
    after = access.admit(Scope.WRITE, sent("new"), "").client
    assert derived_id(before, "k") == derived_id(after, "k") != derived_id("", "k")
    with pytest.raises(UnauthenticatedError):
        access.admit(Scope.WRITE, sent("old"), "")


# --- how they are written ----------------------------------------------------------------------


def test_a_new_key_is_known_by_its_line() -> None:
    """What is printed for the server admits what is printed for the client, and hides it."""
    secret, key = new_api_key("shop", [Scope.WRITE, Scope.READ])
    other, _ = new_api_key("shop", [Scope.READ])
    assert secret != other
    assert len(secret) > 40
    assert secret not in key.line
    assert parse_api_keys(f"# of the shop\n{key.line} # rotated in spring\n\n") == [key]
    access = Access(parse_api_keys(key.line), without_key=NOBODY)
    assert access.admit(Scope.WRITE, sent(secret), "").client == "shop"


@pytest.mark.parametrize(
    "text",
    [
        "pp_4aVerySecretKey",
        "shop:read:pp_4aVerySecretKey",
        "shop:read:" + "g" * 64,
        "shop:root:" + "a" * 64,
        "shop::" + "a" * 64,
        "shop:public:" + "a" * 64,
        ":read:" + "a" * 64,
        "a name:read:" + "a" * 64,
        f"a:read:{'a' * 64} b:read:{'a' * 64}",
        "pp_4aVerySecretKey:read:x",
    ],
)
def test_a_wrong_entry_is_refused_without_repeating_it(text: str) -> None:
    """Somebody may have written the key itself where its hash belongs."""
    with pytest.raises(ValueError, match=r"entr(y|ies)") as refused:
        parse_api_keys(text)
    assert "SecretKey" not in str(refused.value)
    assert shown_api_keys(text) == "***"


@pytest.mark.parametrize(
    "bad",
    [
        "shop:wrte:" + "a" * 64,
        "pp_4aVerySecretKey",
        "a:b",
        "shop:read",
        "\ufeffshop",
        "shop:read:é",
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_entries_beside_a_bad_one_count(bad: str, place: int) -> None:
    """Wherever it stands, and it is named by its number alone."""
    good = [key_of("a", Scope.READ), key_of("b", Scope.WRITE)]
    lines = [key.line for key in good]
    lines.insert(place, bad)
    keys, faults = read_key_list("\n".join(lines))
    assert keys == good
    assert len(faults) == 1
    assert faults[0].startswith(f"entry {place + 1}")
    assert bad not in faults[0]


def test_of_two_entries_with_one_hash_neither_counts() -> None:
    """Its key would be two clients', so that each could use the other's idempotency keys."""
    one, other = key_of("one", Scope.READ), key_of("other", Scope.READ)
    twin = one._replace(name="twin")
    keys, faults = read_key_list(f"{one.line} {other.line} {twin.line} {one.line}")
    assert keys == [other]
    assert len(faults) == 1
    more = f"{one.name}:read,write:{one.digest.hex()}"
    assert read_key_list(f"{one.line} {one.line} {more}").keys == []


@pytest.mark.parametrize(
    "text",
    [
        "{0}\n{0}",
        "{0} {1} {0}",
        "{0} # first\n{1}\n{0} # again\n{0}",
        "{1} {upper}",
        "{0} {turned}",
    ],
)
def test_an_entry_that_is_there_twice_is_one_key(text: str) -> None:
    """However it is written: letters of the hash, order of the scopes."""
    one, other = key_of("one", Scope.READ, Scope.WRITE), key_of("other", Scope.READ)
    name, scopes, digest = one.line.split(":")
    upper = f"{other.name}:read:{other.digest.hex().upper()}"
    turned = f"{name}:{','.join(reversed(scopes.split(',')))}:{digest}"
    keys, faults = read_key_list(text.format(one.line, other.line, upper=upper, turned=turned))
    assert faults == []
    assert len(keys) == len(set(keys))
    assert set(keys) <= {one, other}
    assert keys


@given(st.text())
def test_no_text_of_keys_is_a_bug(text: str) -> None:
    """Anything is keys, or refused as a `ValueError`."""
    try:
        keys = parse_api_keys(text)
    except ValueError:
        return
    assert parse_api_keys(" ".join(key.line for key in keys)) == keys


def test_what_is_shown_of_keys_has_no_hash() -> None:
    """Names and scopes are worth seeing."""
    key = key_of("shop", Scope.READ, Scope.ADMIN)
    assert shown_api_keys(f"{key.line}\n") == "shop:read,admin:***"


def test_scopes_and_rates_are_read() -> None:
    """And what is none is refused."""
    assert parse_scopes("read,admin") == {Scope.READ, Scope.ADMIN}
    assert parse_rate("600/60") == Rate(600, 60)
    for wrong in ("", "read;write", "READ", "public"):
        with pytest.raises(ValueError, match="scopes are"):
            parse_scopes(wrong)
    for wrong in ("", "600", "0/60", "600/0", "-1/60", "1.5/60", "600/60/60", "600 / 60"):
        with pytest.raises(ValueError, match="requests/seconds"):
            parse_rate(wrong)


# --- rates -------------------------------------------------------------------------------------


async def test_a_rate_is_a_burst_and_then_even() -> None:
    """A whole window's requests at once, then one a step; a refusal costs nothing."""
    clock = FakeClock()
    limits = RateLimits(Rate(10, 60), clock.monotonic)
    for left in reversed(range(10)):
        headers = dict(limits.take("shop"))
        assert headers[b"ratelimit"].startswith(b'"client";r=%d;' % left)
        assert headers[b"ratelimit-policy"] == b'"client";q=10;w=60'
    for _ in range(100):
        with pytest.raises(TooManyRequestsError) as refused:
            limits.take("shop")
        assert refused.value.retry_after_seconds == 6
    limits.take("another")
    for _ in range(30):
        await clock.sleep(6)
        limits.take("shop")
        with pytest.raises(TooManyRequestsError):
            limits.take("shop")


async def test_whoever_waits_as_told_is_served() -> None:
    """`Retry-After` is never too short, at any rate."""
    for rate in (Rate(1, 1), Rate(3, 7), Rate(7, 3), Rate(1, 600), Rate(999, 60)):
        clock = FakeClock()
        limits = RateLimits(rate, clock.monotonic)
        served = 0
        for _ in range(3 * rate.requests):
            try:
                limits.take("shop")
            except TooManyRequestsError as refused:
                await clock.sleep(refused.retry_after_seconds)
                limits.take("shop")
            served += 1
        assert served == 3 * rate.requests


def test_clients_are_forgotten_before_memory_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses cost an attacker nothing."""
    monkeypatch.setattr(rate_limits, "CLIENTS_MAX", 3)
    limits = RateLimits(Rate(1, 60), FakeClock().monotonic)
    for number in range(100):
        limits.take(f"address {number}")
    with pytest.raises(TooManyRequestsError):
        limits.take("address 99")
    limits.take("address 0")


def test_an_address_is_no_name() -> None:
    """Nobody's key can share a rate with somebody's address."""
    access = Access(
        [key_of("10.0.0.1", Scope.READ)],
        without_key=frozenset({Scope.READ}),
        rate_limits=RateLimits(Rate(1, 60), FakeClock().monotonic),
    )
    access.admit(Scope.READ, [LOCAL], "10.0.0.1")
    access.admit(Scope.READ, sent("10.0.0.1"), "10.0.0.1")
    with pytest.raises(TooManyRequestsError):
        access.admit(Scope.READ, [LOCAL], "10.0.0.1")
    for _ in range(3):
        access.admit(Scope.PUBLIC, [LOCAL], "10.0.0.1")  # probes are not counted


# --- requests that fail, and requests that go on -----------------------------------------------


class Failing:
    """An API that one route of needs a key, asked from chosen addresses."""

    def __init__(self, rate: Rate | None) -> None:
        self.clock = FakeClock()
        limits = None if rate is None else RateLimits(rate, self.clock.monotonic, policy=b"failed")
        self.secret, key = new_api_key("shop", [Scope.READ])
        access = Access(
            [key],
            without_key=NOBODY,
            failures=FailedAuthentication(limits, RateLimits(Rate(3, 60), self.clock.monotonic)),
        )
        self.app = build_app(
            StubFlows().as_flows(),
            LIMITS,
            clock=self.clock,
            stopping=asyncio.Event(),
            access=access,
        )

    async def get(self, address: str, secret: str | None) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.app, client=(address, 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
            return await client.get("/api/orders", headers=headers)


@pytest.mark.parametrize("wrong", [None, "pp_", "x" * 46, "pp_" + "A" * 43])
async def test_failures_are_limited_by_address_and_valid_keys_never(wrong: str | None) -> None:
    """429 instead of 401, with the time to wait; a neighbour with a key notices nothing."""
    failing = Failing(Rate(5, 60))
    assert [(await failing.get("10.0.0.7", wrong)).status_code for _ in range(5)] == [401] * 5
    for _ in range(3):
        refused = await failing.get("10.0.0.7", wrong)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "12")
        assert refused.headers["ratelimit-policy"] == '"failed";q=5;w=60'
    assert (await failing.get("10.0.0.7", failing.secret)).status_code == 200
    assert (await failing.get("10.0.0.8", wrong)).status_code == 401
    await failing.clock.sleep(12)
    assert (await failing.get("10.0.0.7", wrong)).status_code == 401
    assert (await failing.get("10.0.0.7", wrong)).status_code == 429


async def test_an_ipv6_client_is_its_network() -> None:
    """It has 2 ** 64 addresses of one."""
    failing = Failing(Rate(5, 60))
    for host in range(5):
        assert (await failing.get(f"2001:db8:1:2::{host}", None)).status_code == 401
    assert (await failing.get("2001:db8:1:2:ffff::1", None)).status_code == 429
    assert (await failing.get("2001:db8:1:3::1", None)).status_code == 401


async def test_failures_are_logged_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    """Who, where and why; of a key its public beginning, of anything else nothing."""
    failing = Failing(None)
    secret, _ = new_api_key("gone", [])
    for sent_secret in (None, secret, "hunter2", *(["flood"] * 100)):
        assert (await failing.get("10.0.0.7", sent_secret)).status_code == 401
    await failing.clock.sleep(60)
    await failing.get("10.0.0.9", None)
    lines = [
        record.__dict__["fields"]
        for record in caplog.records
        if record.message == "authentication_failed"
    ]
    assert [(line["reason"], line["key_prefix"]) for line in lines] == [
        ("no_key", ""),
        ("invalid_token", secret[:7]),
        ("invalid_token", ""),
        ("no_key", ""),
    ]
    assert [line["not_logged"] for line in lines] == [0, 0, 0, 100]
    assert {line["address"] for line in lines} == {"10.0.0.7", "10.0.0.9"}
    assert {line["route"] for line in lines} == {"/api/orders"}
    assert not {secret, "hunter2", "flood"} & {str(value) for line in lines for value in line}
    assert secret not in caplog.text


@pytest.mark.parametrize(
    "secret",
    ["", "pp_", "pp_abcdefgh", "x" * 46, "pp_" + "é" * 43, "pp_" + "a" * 44, " pp_" + "a" * 43],
)
def test_what_is_no_key_has_no_public_beginning(secret: str) -> None:
    """It may be a password of somewhere else."""
    assert public_prefix(secret.encode()) == ""


def test_only_requests_that_would_be_refused_now_end() -> None:
    """A key that is rotated under the same name is another one; what anybody may do goes on."""
    shop, other = key_of("shop", Scope.READ), key_of("other", Scope.READ, Scope.WRITE)
    access = Access([shop, other], without_key=frozenset({Scope.READ}))
    reading = access.until_revoked(Scope.READ, sent("shop"))
    writing = access.until_revoked(Scope.WRITE, sent("other"))
    anybody = access.until_revoked(Scope.READ, [LOCAL])
    access.replace_keys([other, shop._replace(name="renamed")])
    assert [one.is_set() for one in (reading, writing, anybody)] == [False] * 3
    access.replace_keys([shop, other._replace(scopes=frozenset({Scope.READ}))])
    assert (reading.is_set(), writing.is_set(), anybody.is_set()) == (False, True, False)
    access.replace_keys([key_of("new", Scope.READ)])
    assert (reading.is_set(), anybody.is_set()) == (True, False)
