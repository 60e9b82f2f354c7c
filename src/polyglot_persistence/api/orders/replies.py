"""Answers about one order, for the hot routes and for the framework's handlers of the same routes.

Invariant: both lanes use these functions (and `requests.parse_order`), so they answer alike.
"""

from typing import Literal, TypeAlias
from uuid import UUID

from polyglot_persistence.api.web.replies import JSON_HEADERS, Headers, Reply
from polyglot_persistence.domain.order import id_text
from polyglot_persistence.flows.reading.read import Read

Stage: TypeAlias = Literal["processing", "persisted", "dead-lettered"]

HIT_HEADERS: Headers = (*JSON_HEADERS, (b"x-cache", b"HIT"))
MISS_HEADERS: Headers = (*JSON_HEADERS, (b"x-cache", b"MISS"))


def accepted_reply(
    order_id: UUID, status: Stage = "processing", headers: Headers = (), prefix: str = ""
) -> Reply:
    """Return the answer to an accepted order: 201 if it is persisted, else 202."""
    text = id_text(order_id)
    location = b"/api/orders/" + text
    if prefix:
        location = prefix.encode() + location
    return (
        201 if status == "persisted" else 202,
        (*JSON_HEADERS, (b"location", location), *headers),
        b'{"order_id":"%b","status":"%b"}' % (text, status.encode()),
    )


def read_reply(read: Read) -> Reply:
    """Return the answer for an order that was read."""
    return hit_reply(read.body) if read.hit else (200, MISS_HEADERS, read.body)


def hit_reply(body: bytes) -> Reply:
    """Return the answer for an order from the cache or this process's memory, given its JSON."""
    return 200, HIT_HEADERS, body
