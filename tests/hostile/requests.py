"""Requests as bytes, for both lanes."""

import pytest

from tests.hostile.grammar import ONE, TEA

LANES = pytest.mark.parametrize("lane", ["plain", "fast"])
JSON = b"Content-Type: application/json\r\n"


def post(
    more: bytes = b"", *, target: bytes = b"/api/orders", body: bytes = TEA, length: int = -1
) -> bytes:
    size = len(body) if length < 0 else length
    head = b"POST %b HTTP/1.1\r\nHost: t\r\n%b%bContent-Length: %d\r\n\r\n"
    return head % (target, JSON, more, size) + body


def chunked(parts: bytes, more: bytes = b"") -> bytes:
    head = b"POST /api/orders HTTP/1.1\r\nHost: t\r\n%b%bTransfer-Encoding: chunked\r\n\r\n"
    return head % (JSON, more) + parts


GET = b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n" % ONE
WHOLE = b"%x\r\n%b\r\n" % (len(TEA), TEA)
