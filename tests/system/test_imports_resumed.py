"""A keyed import that real processes cut short, resumed as the answer says: each line once.

It is cut by an orderly stop, by the death of the API, and by stores that stand still until the
import gives up.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from polyglot_persistence.domain.order import derived_id
from tests.support.api import Api
from tests.support.eventually import eventually
from tests.support.processes import Up, alive, polyglot_up

pytestmark = pytest.mark.timeout(240)

CHUNK = 5
SENT = 13
"""Lines that are sent before the cut; as many as fill chunks are accepted, behind the first line,
which goes alone."""
ACCEPTED = 11
ENVIRONMENT = {"IMPORT_CHUNK_ORDERS": str(CHUNK), "IMPORT_WAIT_SECONDS": "4"}
"""It waits longer than a command of Valkey may take, so that its last attempts are refused by a
breaker after its first had an unknown outcome."""
ANSWER_SECONDS = 40.0

EQUAL = [{"product_name": "Coffee", "amount": 3.5}] * 20
DIFFERENT = [{"product_name": f"Article {n}", "amount": n} for n in range(1, 21)]
KINDS = [("equal", EQUAL), ("different", DIFFERENT)]


@dataclass
class Ended:
    """How an import ended: status and JSON, or a hang-up (0)."""

    status: int
    out: dict[str, Any]


class Sender:
    """One import over a connection of its own, sent as it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, lines: Sequence[object]) -> None:
        body = _ndjson(lines)
        self._writer.write(b"%x\r\n%b\r\n" % (len(body), body))
        await self._writer.drain()

    async def ended(self) -> Ended:
        """Return the answer to what was sent, though the body has no end."""
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                answer = await self._reader.read()
            except ConnectionError:
                answer = b""
        head, _, body = answer.partition(b"\r\n\r\n")
        return Ended(int(head.split()[1]), json.loads(body)) if body else Ended(0, {})


@asynccontextmanager
async def sending(api: Api, key: str | None) -> AsyncIterator[Sender]:
    """Begin an import whose body comes in parts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    head = (
        "POST /api/orders/import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: application/x-ndjson\r\n"
    )
    head += f"Idempotency-Key: {key}\r\n" if key else ""
    writer.write(f"{head}\r\n".encode())
    try:
        yield Sender(reader, writer)
    finally:
        writer.close()


def _ndjson(lines: Sequence[object]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def sent_whole(api: Api, key: str, lines: Sequence[object], first_line: int = 1) -> Ended:
    """Send a body that ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    body = _ndjson(lines)
    head = (
        f"POST /api/orders/import?first_line={first_line} HTTP/1.1\r\nHost: localhost\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\nIdempotency-Key: {key}\r\n"
        "Content-Type: application/x-ndjson\r\n\r\n"
    )
    writer.write(head.encode() + body)
    try:
        return await Sender(reader, writer).ended()
    finally:
        writer.close()


async def accepted_more(api: Api, orders: int, before: float = 0.0) -> None:
    """Wait until this API process has accepted so many more."""

    async def look() -> None:
        assert (await api.metrics())["polyglot_orders_accepted_total"] >= before + orders

    await eventually(look)


async def is_resumed(up: Api, key: str, lines: Sequence[dict[str, Any]], ended: Ended) -> None:
    """Send what the answer to the cut import asks for; then each line is one order."""
    if ended.status == 0:
        done = await sent_whole(up, key, lines)
    else:
        first = ended.out["first_line_not_accepted"]
        assert f"?first_line={first}" in ended.out["detail"]
        done = await sent_whole(up, key, lines[first - 1 :], first)
        # As accepted or not: what was unknown counts by what came of it.
        counted = ended.out.get("accepted", 0) + done.out["accepted"] + done.out["unchanged"]
        assert counted == len(lines), (ended, done)
    assert done.status == 200, done
    assert done.out["rejected"] == 0, done
    await is_stored_once(up, key, lines)
    again = await sent_whole(up, key, lines)
    assert again.out == {**done.out, "accepted": 0, "unchanged": len(lines)}
    await is_stored_once(up, key, lines)


async def is_stored_once(up: Api, key: str, lines: Sequence[dict[str, Any]]) -> None:
    """Wait until the record holds each line under the id of its number, and no other with it."""
    expected = {
        str(derived_id("", key, number)): (line["product_name"], line["amount"])
        for number, line in enumerate(lines, 1)
    }
    for order_id in expected:
        await up.persisted(order_id)
    names = {line["product_name"] for line in lines}
    orders = (await up.request("GET", "/api/orders?limit=200")).json["orders"]
    found = {
        one["id"]: (one["product_name"], one["amount"])
        for one in orders
        if one["product_name"] in names
    }
    assert found == expected
    assert len(orders) < 200


async def test_an_import_that_a_stop_cut_is_resumed(tmp_path: Path) -> None:
    """The answer counts what was accepted, and the rest goes to the process that comes next."""
    ends = []
    async with polyglot_up(tmp_path / "data", environment=ENVIRONMENT) as up:
        async with sending(up, "equal") as equal, sending(up, "different") as different:
            for sender, (_, lines) in zip((equal, different), KINDS, strict=True):
                await sender.send(lines[:SENT])
            await accepted_more(up, 2 * ACCEPTED)
            up.process.send(signal.SIGTERM)
            ends = [await equal.ended(), await different.ended()]
        await up.process.ended()
    assert [end.status for end in ends] == [503, 503]
    assert [end.out["first_line_not_accepted"] for end in ends] == [SENT + 1] * 2
    async with polyglot_up(tmp_path / "data", environment=ENVIRONMENT) as up:
        refused = await sent_whole(up, "different", DIFFERENT[SENT:])
        assert refused.status == 422, refused
        assert "first_line" in refused.out["detail"]
        for (key, lines), end in zip(KINDS, ends, strict=True):
            await is_resumed(up, key, lines, end)


async def test_an_import_whose_answer_was_lost_is_sent_again(tmp_path: Path) -> None:
    """The API dies (kill -9) within it; the whole body stores what is missing of it."""
    async with polyglot_up(tmp_path / "data", environment=ENVIRONMENT) as up:
        for key, lines in KINDS:
            before = (await up.metrics())["polyglot_orders_accepted_total"]
            async with sending(up, key) as sender:
                await sender.send(lines[:SENT])
                await accepted_more(up, ACCEPTED, before)
                await api_killed(up)
                assert await sender.ended() == Ended(0, {})
            await eventually(lambda: is_ready(up), retried=(OSError,))
            await is_resumed(up, key, lines, Ended(0, {}))


async def api_killed(up: Up) -> None:
    pid = up.pid_of("api")
    os.kill(pid, signal.SIGKILL)

    async def is_gone() -> None:
        assert not alive(pid)

    await eventually(is_gone)


async def is_ready(up: Api) -> None:
    answer = await up.request("GET", "/health/ready")
    assert answer.json["mode"] == "normal"


async def test_an_import_that_stores_held_up_is_resumed(tmp_path: Path) -> None:
    """504 with the lines that may be stored, although the last attempts at them were refused.

    They are stored, once the store goes on.
    """
    async with polyglot_up(tmp_path / "data", environment=ENVIRONMENT) as up:
        valkey = up.pid_of("valkey-server")
        unkeyed = [{"product_name": "Without a key", "amount": 1}] * 20
        for key, lines, accepted in [*[(*kind, 1) for kind in KINDS], (None, unkeyed, CHUNK)]:
            await eventually(lambda: is_ready(up))
            before = (await up.metrics())["polyglot_orders_accepted_total"]
            async with sending(up, key) as sender:
                await sender.send(lines[:accepted])
                await accepted_more(up, accepted, before)
                os.kill(valkey, signal.SIGSTOP)
                try:
                    await sender.send(lines[accepted : accepted + CHUNK])
                    ended = await sender.ended()
                finally:
                    os.kill(valkey, signal.SIGCONT)
            assert ended.status == 504, ended
            numbers = list(range(accepted + 1, accepted + CHUNK + 1))
            assert ended.out["lines_unknown"] == ended.out["lines_not_accepted"] == numbers
            await eventually(lambda: is_ready(up))
            if key:
                await is_resumed(up, key, lines, ended)
        await eventually(lambda: are_stored(up, "Without a key", 2 * CHUNK))


async def are_stored(up: Api, name: str, orders: int) -> None:
    answer = await up.request("GET", "/api/orders?limit=200")
    found = {UUID(one["id"]) for one in answer.json["orders"] if one["product_name"] == name}
    assert len(found) == orders
