"""Harm by connections: many, silent, slow, half closed, unread, and pipelines.

A guard is a kind that did no harm before there was a boundary, and must not do any later.
"""

import asyncio
import contextlib
from itertools import count

from tests.hostile.attack import (
    Attack,
    Client,
    Ended,
    Seen,
    answered,
    chunked,
    get,
    kind,
    order,
    post,
)

HEALTH = get("/health/live")
TEA = b'{"product_name":"unread","amount":1}'


def _answers(seen: Seen) -> int:
    return sum(number for status, number in seen.items() if status.isdigit())


@kind(lambda seen: bool(seen.get("503")) and seen.get("closed", 0) > 100)
async def silence_after_an_answer(attack: Attack) -> None:
    """E1: 300 clients of one address ask, send an empty line, and then nothing."""

    async def one() -> None:
        while attack.left:
            try:
                client = await attack.connect()
                await client.send(HEALTH)
                if (await client.answer())[0] == 200:
                    await client.send(b"\r\n")
                await client.end()
                client.writer.close()
            except Ended:
                pass
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(300):
            tasks.create_task(one())


@kind(lambda seen: seen.get("closed", 0) > 100)
async def silence_from_the_start(attack: Attack) -> None:
    """400 clients of all addresses connect, and send nothing."""

    async def act(client: Client) -> None:
        await client.end()

    await attack.each(400, act, pause=0.2)


@kind(answered(503))
async def crowds(attack: Attack) -> None:
    """More connections than may be open, from as many addresses as it takes; all stay."""

    async def act(client: Client) -> None:
        await client.send(b"GET / HTTP/1.1\r\n")
        await client.answer()

    await attack.each(800, act, pause=0.5)


@kind(lambda seen: seen.get("reset", 0) > 200)
async def comings_and_goings(attack: Attack) -> None:
    """Guard: connections that are opened and reset again, some of them within a request."""
    number = count()

    async def act(client: Client) -> None:
        if next(number) % 2:
            await client.send(post("/api/orders", TEA))
        client.reset()
        attack.seen["reset"] += 1

    await attack.each(8, act, pause=0.002)


@kind(answered(408))
async def slow_heads(attack: Attack) -> None:
    """200 heads that come byte by byte, and never end."""

    async def act(client: Client) -> None:
        await client.go_on(b"GET / HTTP/1.1\r\nHost: localhost\r\n", lambda: b"x", pause=0.1)

    await attack.each(200, act)


@kind(answered(408))
async def slow_orders(attack: Attack) -> None:
    """E7: 200 orders that come byte by byte on the way past the framework."""

    async def act(client: Client) -> None:
        cut = post("/api/orders", order("unread" * 50))[:-300]
        await client.go_on(cut, lambda: b"x", pause=0.2)

    await attack.each(200, act)


@kind(answered(408))
async def slow_chunks(attack: Attack) -> None:
    """100 bulks in chunks of one byte, which come as slowly as they may, and more slowly."""

    async def act(client: Client) -> None:
        await client.go_on(chunked("/api/bulk-orders"), lambda: b"1\r\n \r\n", pause=0.2)

    await attack.each(100, act)


@kind(answered(408))
async def promises(attack: Attack) -> None:
    """200 clients expect a 100, get it, and send nothing."""

    async def act(client: Client) -> None:
        head = post("/api/bulk-orders", b" " * 1_000, "Expect: 100-continue")[:-1_000]
        await client.send(head)
        while (await client.answer())[0] == 100:
            pass

    await attack.each(200, act)


@kind(lambda seen: bool(seen.get("cut")))
async def unread_answers(attack: Attack) -> None:
    """Guard: 40 clients ask for the largest page again and again, and read nothing."""

    async def one(number: int) -> None:
        while attack.left:
            try:
                client = await attack.connect(number, receive_bytes=4_096)
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await client.send(get("/openapi.json") * 200)
                while True:
                    await asyncio.sleep(0.1)
                    await client.send(b"\r\n")
            except Ended:
                attack.seen["cut"] += 1
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(one(number))


@kind(lambda seen: bool(seen.get("202")) and seen.get("closed", 0) <= _answers(seen))
async def half_closed(attack: Attack) -> None:
    """Orders of clients that close their side after each, and are answered all the same."""

    async def act(client: Client) -> None:
        name = attack.name()
        await client.send(post("/api/orders", order(name)))
        client.writer.write_eof()
        await client.answer(name)
        await client.end()

    await attack.each(16, act)


@kind(answered(202, 400))
async def pipelines_with_a_wrong_end(attack: Attack) -> None:
    """E11: fifty orders in one piece, and then bytes that are no request."""

    async def act(client: Client) -> None:
        await client.place(50, behind=b"\0\r\n")
        await client.answer()

    await attack.each(4, act)


@kind(answered(202, 408))
async def pipelines_without_an_end(attack: Attack) -> None:
    """E11: fifty orders in one piece, and then half a head."""

    async def act(client: Client) -> None:
        await client.place(50, behind=b"GET / HTTP/1.1\r\nHost: lo")
        await client.answer()

    await attack.each(4, act)


@kind(lambda seen: seen.get("200", 0) > 300)
async def pipelines_of_megabytes(attack: Attack) -> None:
    """Eight clients send as many questions as fit, and read as slowly as they may."""

    async def act(client: Client) -> None:
        await client.send(get("/health/live") * 2_000)
        for _ in range(2_000):
            await client.answer()

    await attack.each(8, act)


@kind(lambda seen: bool(seen.get("503")) and not seen.get("torn"))
async def live_streams(attack: Attack) -> None:
    """E11: more streams of live figures than there may be, and into each of them garbage."""

    async def act(client: Client) -> None:
        await client.send(get("/api/live"))
        status, _ = await client.answer()
        if status == 200:
            await client.send(b"\0\r\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(attack.left):
                    while part := await client.reader.read(65_536):
                        attack.seen["torn"] += b"HTTP/1.1" in part

    await attack.each(120, act, pause=0.2)
