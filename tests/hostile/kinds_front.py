"""Harm by what is said of hosts, origins and proxies, and by names that come too often."""

import itertools
import json
import random
import secrets

from tests.hostile.attack import (
    ORIGIN,
    PROXY,
    Attack,
    answered,
    get,
    kind,
    only,
    order,
    post,
)


@kind(only(421))
async def foreign_hosts(attack: Attack) -> None:
    """E10: a page whose name leads here reads nothing, places nothing and operates nothing."""
    requests = [
        one.replace(b"localhost", b"evil.example:8080")
        for one in (
            post("/api/admin/refresh", b""),
            post("/api/orders", order("unread")),
            get("/api/orders?limit=1"),
        )
    ]
    await attack.ask(8, lambda: random.choice(requests))


@kind(only(400, 421))
async def long_hosts(attack: Attack) -> None:
    """Hosts of 60 KB, each another one, and as many of the length that a name may have."""
    number = itertools.count()

    def request() -> bytes:
        size = random.choice((240, 60_000))
        return get("/health/live").replace(b"localhost", b"h%d" % next(number) + b"a" * size)

    await attack.ask(8, request, ahead=2)


@kind(answered(200, 403))
async def preflights(attack: Attack) -> None:
    """Questions of browsers, which no key goes with; and changes from 60-KB origins."""
    asked = ", ".join(f"x-{number}" for number in range(800))
    preflight = get(
        "/api/orders",
        f"Origin: {ORIGIN}",
        "Access-Control-Request-Method: POST",
        f"Access-Control-Request-Headers: {asked}",
    ).replace(b"GET", b"OPTIONS", 1)

    def request() -> bytes:
        if random.random() < 0.8:
            return preflight
        return post("/api/orders", order("unread"), f"Origin: https://{secrets.token_hex(30_000)}")

    await attack.ask(16, request)


@kind(only(400, 431))
async def words_of_proxies(attack: Attack) -> None:
    """Lists without an end in `Forwarded` and its like, which a trusted proxy passes on."""
    lists = [
        f"{name}: {begin}{part * (size // len(part))}"
        for size in (8_000, 60_000)
        for name, begin, part in (
            ("Forwarded", "", "a"),
            ("Forwarded", '"', '\\"'),
            ("Forwarded", 'for="', '\\"'),
            ("Forwarded", f"for={PROXY}", f",for={PROXY}"),
            ("X-Forwarded-For", PROXY, f",{PROXY}"),
            ("X-Forwarded-Prefix", "", "/a"),
            ("X-Forwarded-Host", "a/", "a."),
        )
    ]
    requests = [get("/health/live", one) for one in lists]
    await attack.ask(8, lambda: random.choice(requests), ahead=1, address=PROXY)


@kind(lambda seen: seen.get("202", 0) > 0 and seen.get("429", 0) > 0)
async def false_addresses(attack: Attack) -> None:
    """Guard: orders of a client of a trusted proxy, which writes an address before its own."""

    def request() -> bytes:
        false = f"203.0.113.{random.randrange(256)}, 2001:db8::{random.randrange(9_999)}"
        return post("/api/orders", order("unread"), f"X-Forwarded-For: {false}, 198.51.100.7")

    await attack.ask(16, request, ahead=16, address=PROXY)


@kind(only(400, 429))
async def many_parameters(attack: Attack) -> None:
    """60 KB of parameters, of one name or of thousands, on routes that know a few."""
    queries = [
        "&".join(f"a{number:x}={number:x}" for number in range(6_000)),
        "limit=1&" * 7_000,
        "%41&" * 15_000,
        "%&" * 30_000,
        "limit=1&" + "+&" * 29_000,
    ]
    requests = [
        get(f"{path}?{query}") for query in queries for path in ("/api/orders", "/api/search")
    ]
    await attack.ask(8, lambda: random.choice(requests), ahead=1)


@kind(only(422, 429))
async def members_twice(attack: Attack) -> None:
    """Orders, bulks and lines whose members come a thousand times."""
    amounts = b",".join([b'"amount":1'] * 1_000)
    one = b'{"product_name":"unread",' + amounts + b"}"
    requests = [
        post("/api/orders", one),
        post("/api/orders/import", one + b"\n", media_type="application/x-ndjson"),
        post("/api/bulk-orders", b'{"orders":[' + one + b"]}"),
        post("/api/bulk-orders", b'{"orders":[' + b",".join([one] * 80) + b"]}"),
        post("/api/bulk-orders", json.dumps({f"a{n}": n for n in range(11_000)}).encode()),
    ]
    await attack.ask(4, lambda: random.choice(requests), ahead=1)


@kind(only(400, 422, 429))
async def lines_of_nothing(attack: Attack) -> None:
    """Bulks of a megabyte of line ends, or of brackets that end where they begin."""
    bodies = [
        b"\n" * 1_000_000,
        b"[" + b"\r\n" * 500_000,
        b'{"orders":[' + b",".join([b"[" * 400 + b"]" * 400] * 1_000) + b"]}",
    ]
    await attack.ask(4, lambda: post("/api/bulk-orders", random.choice(bodies)), ahead=1)
