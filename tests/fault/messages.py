"""Messages that nobody should ever have put into the queue, and how they get there all the same."""

import json
import re
import uuid
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from pamqp import commands

from polyglot_persistence.adapters.rabbitmq.connection import open_connection
from polyglot_persistence.config.addresses.rabbitmq import read_rabbitmq
from tests.support.cache import new_client
from tests.support.queues import Deaf

AT_ONCE = 500
HEADERS = ("orders", "accepted_at", "schema")
NUMBERS = (0, 1, 7, -1, 2**31, 2**53 + 1, 2**62, 2**63 - 1)
WORDS = ("many", "", "1e9", "-0", "٣", "9" * 5_000, "\x00", "None")
JUNK = (
    b"",
    b"[]",
    b"{}",
    b"null",
    b"[[[[" * 2_000,
    b"[1e999]",
    b'[{"order":{}}]',
    b"\xff\xfe\x00",
    b'"\\ud800"',
    b"[" + b"null," * 500 + b"null]",
)
_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class FuzzedMessage(NamedTuple):
    """Bytes with headers; a valid one must be persisted, whatever its neighbours are."""

    body: bytes
    headers: dict[str, int | str]
    valid_ids: Sequence[str] = ()

    @property
    def ids(self) -> list[str]:
        """Everything in it that looks like an id."""
        return [found.decode() for found in _ID.findall(self.body)]


def fuzzed(count: int, seed: int) -> list[FuzzedMessage]:
    """Return so many messages: valid ones, mutated ones, and any bytes."""
    rng = Random(f"messages {seed}")
    kinds = (_valid, _mutated, _mutated, _spliced, _any_bytes)
    return [rng.choice(kinds)(rng) for _ in range(count)]


def _valid(rng: Random) -> FuzzedMessage:
    body, ids = _body(rng)
    return FuzzedMessage(body, _headers(rng), ids)


def _mutated(rng: Random) -> FuzzedMessage:
    body = bytearray(_body(rng)[0])
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(body))
        match rng.randrange(4):
            case 0:
                body[place] = rng.randrange(256)
            case 1:
                del body[place : place + rng.randint(1, 40)]
            case 2:
                body[place:place] = rng.randbytes(rng.randint(1, 8))
            case _:
                body[place:place] = rng.choice((b"0" * 50, b"\\u0000", b"-", b'"', b"[", b"}]"))
        if not body:
            body = bytearray(b" ")
    return FuzzedMessage(bytes(body), _headers(rng))


def _spliced(rng: Random) -> FuzzedMessage:
    """A valid message in which one value is another."""
    items = json.loads(_body(rng)[0])
    item = rng.choice(items)
    values: tuple[object, ...] = (*NUMBERS, *WORDS[:4], None, True, [], {}, 1e308, -1.5)
    if rng.random() < 0.5:
        item[rng.choice(("accepted_at", "unit_id", "unit_size", "schema"))] = rng.choice(values)
    else:
        field = rng.choice(("id", "product_name", "amount", "created_at"))
        item["order"][field] = rng.choice(values)
    return FuzzedMessage(json.dumps(items).encode(), _headers(rng))


def _any_bytes(rng: Random) -> FuzzedMessage:
    if rng.random() < 0.2:
        return FuzzedMessage(rng.choice(JUNK), _headers(rng))
    return FuzzedMessage(rng.randbytes(rng.randint(1, 400)), _headers(rng))


def _body(rng: Random) -> tuple[bytes, list[str]]:
    items, ids = [], []
    for _ in range(rng.randint(1, 4)):
        order_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        ids.append(order_id)
        order = {
            "id": order_id,
            "product_name": rng.choice(("kettle", "Käse „alt“ 🧀", "x" * 200)),
            "amount": rng.choice((0, 12.5, 9999999999.99)),
            "created_at": "2026-11-01T10:20:30.000001Z",
        }
        items.append({"accepted_at": 1_763_863_562_123_456, "order": order})
    return json.dumps(items, ensure_ascii=False).encode(), ids


def _headers(rng: Random) -> dict[str, int | str]:
    """Return headers of any kind, but for a schema that is newer: such a message has to wait."""
    headers: dict[str, int | str] = {"orders": 1, "accepted_at": 1_763_863_562_123_456, "schema": 1}
    if rng.random() < 0.5:
        return headers
    for name in HEADERS:
        match rng.randrange(4):
            case 0:
                del headers[name]
            case 1:
                headers[name] = rng.choice(WORDS)
            case 2 if name != "schema":
                headers[name] = rng.choice(NUMBERS)
            case _:
                continue
    return headers


async def put_into_stream(url: str, messages: Sequence[FuzzedMessage]) -> None:
    """Append them as anybody could who reaches the server."""
    client = new_client(url)
    try:
        for start in range(0, len(messages), AT_ONCE):
            appends = []
            for message in messages[start : start + AT_ONCE]:
                fields = [part for header in message.headers.items() for part in header]
                appends.append(("XADD", "order_queue", "*", "body", message.body, *fields))
            await client.pipeline(*appends)
    finally:
        await client.close()


async def put_into_rabbitmq(url: str, messages: Sequence[FuzzedMessage]) -> None:
    """Publish them as anybody could who reaches the broker."""
    connection = await open_connection(
        read_rabbitmq(url), connect_timeout_seconds=5, timeout_seconds=120
    )
    try:
        channel = await connection.channel(Deaf())
        for message in messages:
            channel.send_content(
                commands.Basic.Publish(routing_key="order_queue"),
                commands.Basic.Properties(headers=dict(message.headers), delivery_mode=2),
                message.body,
            )
        # The answer to what was sent last says that all before it has arrived.
        await channel.call(
            commands.Queue.Declare(queue="order_queue", passive=True), commands.Queue.DeclareOk
        )
    finally:
        await connection.close()
