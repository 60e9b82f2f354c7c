"""Harm by requests: amplifiers of memory and processor time, floods, forgeries, guesses."""

import asyncio
import json
import random
import secrets

from tests.hostile.attack import (
    Attack,
    Client,
    Ended,
    answered,
    chunked,
    get,
    kind,
    only,
    order,
    post,
)

NDJSON = "application/x-ndjson"


@kind(answered(400))
async def endless_trailers(attack: Attack) -> None:
    """E2: a body without content, whose trailers never end."""

    async def act(client: Client) -> None:
        # The pause is for copies through the loopback, which are no harm of a client's.
        begin = chunked("/api/orders") + b"0\r\n"
        await client.go_on(begin, lambda: b"a:\r\n" * 4_000, pause=0.005)

    await attack.each(16, act)


@kind(answered(400))
async def endless_extensions(attack: Attack) -> None:
    """A chunk whose extension never ends."""

    async def act(client: Client) -> None:
        begin = chunked("/api/bulk-orders") + b"1;x="
        await client.go_on(begin, lambda: b"y" * 16_000, pause=0.005)

    await attack.each(16, act)


@kind(only(401, 429))
async def keys_in_trailers(attack: Attack) -> None:
    """E3: a trailer is no header, so that it lets nobody in, nor is its scope looked at (403)."""
    head = chunked("/api/admin/refresh", "Trailer: X-API-Key")
    trailer = f"0\r\nX-API-Key: {attack.secret}\r\n\r\n".encode()
    await attack.ask(8, lambda: head + trailer, ahead=1)


@kind(lambda seen: seen.get("rejected", 0) > 0 or bool(seen.get("422")))
async def endless_garbage(attack: Attack) -> None:
    """E4: imports of lines that are none, as fast as they are taken."""

    async def act(client: Client) -> None:
        asking = asyncio.ensure_future(client.answer("import"))
        try:
            await client.send(chunked("/api/orders/import", media_type=NDJSON))
            while attack.left and not asking.done():
                await client.send(b"4000\r\n" + b"x\n" * 8_192 + b"\r\n")
            if not asking.done():
                await client.send(b"0\r\n\r\n")
        finally:
            await asking

    await attack.each(4, act)


@kind(answered(408))
async def endless_imports(attack: Attack) -> None:
    """Imports of real orders, a few now and then, without an end."""

    def chunk() -> bytes:
        lines = b"".join(order(f"import {attack.name()}") + b"\n" for _ in range(4))
        return b"%x\r\n%b\r\n" % (len(lines), lines)

    async def act(client: Client) -> None:
        begin = chunked("/api/orders/import", media_type=NDJSON)
        await client.go_on(begin, chunk, pause=0.1, name="import")

    await attack.each(32, act)


@kind(answered(408))
async def unfinished_bulks(attack: Attack) -> None:
    """E15: 60 bulks of a megabyte, of which the last byte never comes."""

    async def act(client: Client) -> None:
        asking = asyncio.ensure_future(client.answer())
        try:
            await client.send(post("/api/bulk-orders", b" " * 1_000_000)[:-1])
        finally:
            await asking

    await attack.each(60, act)


@kind(only(202, 429, 503))
async def whole_bulks(attack: Attack) -> None:
    """Guard: bulks as large as they may be, one after the other."""

    async def act(client: Client) -> None:
        while attack.left:
            names = [attack.name() for _ in range(1_000)]
            orders = [{"product_name": name, "amount": 1} for name in names]
            await client.send(post("/api/bulk-orders", json.dumps({"orders": orders}).encode()))
            try:
                await client.answer("bulk")
            except Ended:
                attack.unknown += 1_000
                raise

    await attack.each(4, act)


@kind(only(200, 429, 503))
async def whole_imports(attack: Attack) -> None:
    """Guard: imports of a thousand good lines, one after the other."""

    def request() -> bytes:
        names = [f"import {attack.name()}" for _ in range(1_000)]
        return post("/api/orders/import", b"\n".join(map(order, names)) + b"\n", media_type=NDJSON)

    async def act(client: Client) -> None:
        while attack.left:
            await client.send(request())
            await client.answer("import")

    await attack.each(4, act)


@kind(only(400, 413, 422, 429))
async def bulks_of_nothing(attack: Attack) -> None:
    """A megabyte of the smallest things that can stand in a list."""
    body = b'{"orders":[' + b"{}," * 349_000 + b"{}]}"
    await attack.ask(4, lambda: post("/api/bulk-orders", body), ahead=1)


@kind(only(400, 413, 422, 429))
async def deep_json(attack: Attack) -> None:
    """Guard: brackets within brackets, as an order and as a bulk."""
    requests = [
        post("/api/orders", b"[" * 16_000),
        post("/api/orders", b'{"product_name":' * 1_000),
        post("/api/bulk-orders", b"[" * 1_000_000),
        post("/api/bulk-orders", b'{"orders":' * 100_000),
    ]
    await attack.ask(4, lambda: random.choice(requests), ahead=1, pause=0.005)


@kind(only(400, 413, 422, 429))
async def huge_numbers(attack: Attack) -> None:
    """Guard: amounts that take a while to become a number."""
    amounts = [b"9" * 15_000, b"1e999999999", b"0." + b"1" * 15_000, b"-" + b"9" * 12_000 + b"e9"]
    requests = [
        post("/api/orders", b'{"product_name":"x","amount":' + quote + one + quote + b"}")
        for one in amounts
        for quote in (b"", b'"')
    ]
    await attack.ask(8, lambda: random.choice(requests))


@kind(only(422, 429))
async def odd_names(attack: Attack) -> None:
    """Names of marks upon marks, which take a while to be composed, or show nothing."""
    names = [
        "unread" + "\u0301\u0323" * 95,
        "\u202eunread",
        "\u200b\u2800\u3164",
        "e" + "\u0301\u0323" * 2_500,
        "\u1e9b\u0323" * 2_000,
        "\ufdfa" * 5_000,
    ]
    requests = [
        post("/api/orders", json.dumps(fields, ensure_ascii=False).encode())
        for fields in ({"product_name": name, "amount": 1} for name in names)
    ]
    await attack.ask(8, lambda: random.choice(requests))


@kind(only(431))
async def huge_heads(attack: Attack) -> None:
    """Heads of one long line, and of many short ones."""
    long = b"GET /x HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 70_000
    many = b"GET /x HTTP/1.1\r\nHost: localhost\r\n" + b"a:b\r\n" * 150 + b"\r\n"

    async def act(client: Client) -> None:
        await client.send(random.choice((long, many)))
        await client.answer()

    await attack.each(32, act)


@kind(answered(400))
async def two_lengths(attack: Attack) -> None:
    """Guard: requests whose end two parts of a chain would find in two places."""
    heads = [
        chunked("/api/orders", "Content-Length: 3"),
        post("/api/orders", b"{}", "Content-Length: 3"),
        post("/api/orders", b"{}").replace(b": 2", b": +2"),
        chunked("/api/orders").replace(b"Encoding: ", b"Encoding : ") + b"0\r\n\r\n",
    ]

    async def act(client: Client) -> None:
        await client.send(random.choice(heads))
        await client.answer()

    await attack.each(16, act)


@kind(only(200, 422, 429))
async def dust(attack: Attack) -> None:
    """Guard: a body of which each byte is a chunk with an extension."""
    body = b"1;e\r\n \r\n" * 20_000 + b"0\r\n\r\n"
    head = chunked("/api/orders/import", media_type=NDJSON)
    await attack.ask(4, lambda: head + body, ahead=1)


@kind(answered(429))
async def order_flood(attack: Attack) -> None:
    """Guard: orders as fast as they are answered, without a key, from one address."""

    async def act(client: Client) -> None:
        while attack.left:
            await client.place(32)

    async def one() -> None:
        while attack.left:
            try:
                await act(await attack.connect())
            except Ended:
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(16):
            tasks.create_task(one())


@kind(answered(429))
async def order_flood_with_a_key(attack: Attack) -> None:
    """Guard: the same of one client with a key, from all addresses."""

    async def act(client: Client) -> None:
        while attack.left:
            await client.place(32, f"X-API-Key: {attack.secret}")

    await attack.each(16, act)


@kind(lambda seen: bool(seen.get("200") or seen.get("429")) and not seen.get("503"))
async def readiness_flood(attack: Attack) -> None:
    """E13: 96 connections ask whether the service is ready, which all stores answer."""
    await attack.ask(96, lambda: get("/health/ready"), ahead=1)


@kind(answered(401, 429))
async def key_guesses(attack: Attack) -> None:
    """Keys that nobody was given, as fast as they are refused, until they are refused unread."""
    await attack.ask(
        16, lambda: get("/api/orders", f"Authorization: Bearer pp_{secrets.token_urlsafe(32)}")
    )


@kind(only(404, 405, 400, 429))
async def paths_to_nowhere(attack: Attack) -> None:
    """Paths and methods that do not exist, `%2F` for `/` among them, with a key that may write."""
    key = f"X-API-Key: {attack.secret}"

    def request() -> bytes:
        path = random.choice(
            ("/" + secrets.token_hex(8), "/api/%2e%2e/etc/passwd", "//", "/docs/x")
        )
        return random.choice(
            (
                get(path),
                post(path, b""),
                get(path).replace(b"GET", b"PATCH"),
                post("/api%2Fadmin%2Frefresh", b"", key),
            )
        )

    await attack.ask(16, request)


@kind(lambda seen: bool(seen.get("400")) and not seen.get("500") and not seen.get("503"))
async def forged_cursors(attack: Attack) -> None:
    """Guard: places in a list that this service never gave out."""

    def request() -> bytes:
        forged = random.choice(
            (secrets.token_urlsafe(24), "A" * 2_000, "%00", "-1", "eyJhIjoxfQ", "~" * 30)
        )
        return get(f"{random.choice(('/api/orders?', '/api/search?q=tea&'))}cursor={forged}")

    await attack.ask(8, request)


@kind(answered(200))
async def search_amplifiers(attack: Attack) -> None:
    """E14: planted names of long words, and queries one letter off that find them all."""
    words = ["".join(random.choices("abcdefghij", k=64)) for _ in range(3)]
    names = [f"{words[0]}{n % 10} {words[1]}{n} {words[2]}" for n in range(100)]
    orders = [{"product_name": f"{name}"[:200], "amount": 1} for name in names]

    client = await attack.connect()
    try:
        await client.send(post("/api/bulk-orders", json.dumps({"orders": orders}).encode()))
        await client.answer("bulk")
    except Ended:
        attack.unknown += len(orders)

    def request() -> bytes:
        word = random.choice(words)
        place = random.randrange(1, 60)
        typo = word[:place] + random.choice("klmn") + word[place + 1 :]
        return get(f"/api/search?q={typo}&limit=100")

    await attack.ask(4, request, ahead=1)


@kind(only(200, 429))
async def wide_reports(attack: Attack) -> None:
    """Guard: reports over all time, in the smallest steps, of every time zone."""
    zones = ("UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia")

    def request() -> bytes:
        zone = random.choice(zones)
        return get(
            random.choice(
                (
                    "/api/dashboard/sales?days=3660&live=true",
                    f"/api/sales?by=day&tz={zone}",
                    "/api/sales/products?limit=100",
                    "/api/search/suggest?q=a",
                )
            )
        )

    await attack.ask(4, request, ahead=1)


@kind(lambda seen: seen.get("rejected", 0) > 0)
async def taken_identities(attack: Attack) -> None:
    """E5: imports whose ids are those that other clients' idempotency keys would give."""

    def request() -> bytes:
        number = f"{secrets.randbits(128):032x}"
        taken = f"{number[:8]}-{number[8:12]}-8{number[13:16]}-9{number[17:20]}-{number[20:]}"
        line = (
            json.dumps({"id": taken, "product_name": "import taken", "amount": 1}).encode() + b"\n"
        )
        return post("/api/orders/import", line, media_type=NDJSON)

    await attack.ask(8, request)
