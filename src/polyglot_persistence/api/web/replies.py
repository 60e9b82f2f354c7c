"""What a route answers: status, headers and body, as bytes, for whatever server carries it.

Invariant: no server and no framework is named here, so the hot routes and the framework's routes
give byte for byte the same answers.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Header names in lower case, with their values; `content-length` is the carrier's to add."""

Reply: TypeAlias = tuple[int, Headers, bytes]
"""Status, headers, body."""

# No answer may be stored on the way: a 404 is heuristically cacheable (RFC 9110, 15.5.5), and an
# id that is unknown now may be an order in the next moment.
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
