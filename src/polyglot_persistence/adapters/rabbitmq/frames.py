"""Decodes frames from the broker, so that no message can break the connection.

A publisher can put any bytes into a message's properties and routing key: invalid UTF-8, an
impossible time, tables nested ten thousand deep. A decoder that raises on one of them ends the
connection, the broker redelivers the message, and the queue is stuck for good. So this module reads
the properties that the adapter needs and skips the rest by length; pamqp decodes the broker's own
methods.

Layout: AMQP 0-9-1, 2.3.5 and 4.2.6; field types as in RabbitMQ's errata, section 3.
"""

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.heartbeat import Heartbeat

FRAME_HEAD: Final = struct.Struct(">BHI")
"""Type, channel and size, before each frame."""

FRAME_BODY: Final = 3
FRAME_OVERHEAD_BYTES: Final = 8
"""The head, and one byte that ends the frame."""

_FRAME_METHOD: Final = 1
_FRAME_HEADER: Final = 2
_FRAME_END: Final = 0xCE

_METHOD: Final = struct.Struct(">HH")
_DELIVER: Final = (60, 60)
_GET_OK: Final = (60, 71)
_TAG: Final = struct.Struct(">QB")
"""Delivery tag, and whether it was delivered before."""

_CONTENT: Final = struct.Struct(">HHQH")
"""Class, weight, body size, and flags of the properties that follow."""

_LENGTH: Final = struct.Struct(">I")

_INTEGERS: Final = {
    ord(code): struct.Struct(">" + layout)
    for code, layout in zip("bBsuIilL", "bBhHiIqq", strict=True)
}
_SKIPPED_BYTES: Final = dict(zip(b"tfdDTV", (1, 4, 8, 5, 8, 0), strict=True))
_SKIPPED_BY_LENGTH: Final = b"AFx"
_TEXT: Final = ord("S")


class Properties(NamedTuple):
    """The properties of a message that this adapter reads."""

    content_type: str = ""
    headers: Mapping[str, int | str] = {}
    """Integers and texts; headers of other types or with invalid UTF-8 are left out."""
    delivery_mode: int = 0
    message_id: str = ""


class Header(NamedTuple):
    """The frame between a message's method and its body."""

    body_size: int
    properties: Properties


def unmarshal(data: bytes) -> Frame | Header | ContentBody | Heartbeat | object:
    """Decode one whole frame, including its head and end byte.

    Raises:
        PAMQPException, LookupError, ValueError, struct.error: the bytes are not AMQP.
    """
    if data[-1] != _FRAME_END:
        raise ValueError("a frame that does not end")
    payload = memoryview(data)[FRAME_HEAD.size : -1]
    if data[0] == _FRAME_HEADER:
        return _header(payload)
    if data[0] == _FRAME_METHOD:
        method = _METHOD.unpack_from(payload)
        if method == _DELIVER:
            tag, redelivered = _TAG.unpack_from(payload, _after_short(payload, _METHOD.size))
            return commands.Basic.Deliver(delivery_tag=tag, redelivered=bool(redelivered & 1))
        if method == _GET_OK:
            tag, redelivered = _TAG.unpack_from(payload, _METHOD.size)
            (messages,) = _LENGTH.unpack_from(payload, len(payload) - _LENGTH.size)
            return commands.Basic.GetOk(
                delivery_tag=tag, redelivered=bool(redelivered & 1), message_count=messages
            )
    return frame.unmarshal(data)[2]


def _header(payload: memoryview) -> Header:
    _, _, body_size, flags = _CONTENT.unpack_from(payload)
    try:
        return Header(body_size, _properties(payload, flags, _CONTENT.size))
    except (LookupError, struct.error):  # truncated
        return Header(body_size, Properties())


def _properties(payload: memoryview, flags: int, at: int) -> Properties:
    """Read properties in the order of their flags, which begin at the highest bit."""
    content_type = message_id = ""
    headers: dict[str, int | str] = {}
    delivery_mode = 0
    if flags & 1 << 15:
        content_type, at = _short(payload, at)
    if flags & 1 << 14:  # content_encoding
        at = _after_short(payload, at)
    if flags & 1 << 13:
        headers, at = _table(payload, at)
    if flags & 1 << 12:
        delivery_mode, at = payload[at], at + 1
    if flags & 1 << 11:  # priority
        at += 1
    for bit in (10, 9, 8):  # correlation_id, reply_to, expiration
        if flags & 1 << bit:
            at = _after_short(payload, at)
    if flags & 1 << 7:
        message_id, at = _short(payload, at)
    return Properties(content_type, headers, delivery_mode, message_id)


def _table(payload: memoryview, at: int) -> tuple[dict[str, int | str], int]:
    """Return the fields of a table, up to one of an unknown type, and where the table ends."""
    (size,) = _LENGTH.unpack_from(payload, at)
    at += _LENGTH.size
    end = at + size
    fields: dict[str, int | str] = {}
    while at < end:
        name, at = _short(payload, at)
        code, at = payload[at], at + 1
        if integer := _INTEGERS.get(code):
            (fields[name],) = integer.unpack_from(payload, at)
            at += integer.size
        elif code in _SKIPPED_BYTES:
            at += _SKIPPED_BYTES[code]
        elif code == _TEXT or code in _SKIPPED_BY_LENGTH:
            (length,) = _LENGTH.unpack_from(payload, at)
            at += _LENGTH.size
            if code == _TEXT and (text := _text(payload[at : at + length])) is not None:
                fields[name] = text
            at += length
        else:
            break
    return fields, end


def _short(payload: memoryview, at: int) -> tuple[str, int]:
    end = _after_short(payload, at)
    return _text(payload[at + 1 : end]) or "", end


def _after_short(payload: memoryview, at: int) -> int:
    return at + 1 + payload[at]


def _text(data: memoryview) -> str | None:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return None
