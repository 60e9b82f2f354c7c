"""Imports of garbage without an end are ended."""

import asyncio
import json

import pytest

from tests.hostile.boundary import Client, served
from tests.hostile.grammar import TEA
from tests.support.stub_flows import LIMITS

HEAD = (
    b"POST /api/orders/import HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


async def _endless(client: Client, line: bytes) -> None:
    part = line * (16_384 // len(line) + 1)
    await client.send(HEAD)
    while not client.writer.is_closing():
        await client.send(b"%x\r\n%b\r\n" % (len(part), part))
        await asyncio.sleep(0)


@pytest.mark.parametrize("lane", ["plain", "fast"])
@pytest.mark.parametrize(
    "line", [b"x\n", b"{}\r\n", b"[[[[\n", b"z" * 300 + b"\n", b'{"product_name":"\\u200b"}\n']
)
async def test_endless_garbage_is_ended(lane: str, line: bytes) -> None:
    """With an answer, and the connection with it."""
    async with served(lane) as one:
        client = await one.connect()
        sending = asyncio.create_task(_endless(client, TEA + b"\n" + line * 2_000))
        answer = await client.answer()
        sending.cancel()
        assert (answer.status, answer.headers["connection"]) == (422, "close")
        told = json.loads(answer.body)
        assert told["rejected"] == LIMITS.import_rejected_in_a_row_max
        assert told["accepted"] == 1
