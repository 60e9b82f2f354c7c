"""Answers of routes: status, headers and body as bytes, independent of the server.

Invariant: no server or framework is used here, so both lanes give the same answers byte for byte.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Header names in lower case, with their values; the server adds `content-length`."""

Reply: TypeAlias = tuple[int, Headers, bytes]
"""Status, headers, body."""

# No proxy may store an answer: a 404 is heuristically cacheable (RFC 9110, 15.5.5), and an unknown
# id may be an order a moment later.
COMMON_HEADERS: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
JSON_HEADERS: Headers = ((b"content-type", b"application/json"), *COMMON_HEADERS)

_encoder = msgspec.json.Encoder(decimal_format="number")


def encode_json(value: Any) -> bytes:
    """Return JSON with every Decimal as an exact number."""
    return _encoder.encode(value)


def next_link(path: str) -> Headers:
    """Return the header that names the next page (RFC 8288)."""
    return ((b"link", f'<{path}>; rel="next"'.encode()),)


def json_reply(status: int, value: Any, headers: Headers = ()) -> Reply:
    """Return `value` as JSON."""
    return status, (*JSON_HEADERS, *headers), _encoder.encode(value)
