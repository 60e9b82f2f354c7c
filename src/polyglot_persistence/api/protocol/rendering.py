"""Renders the heads of answers as bytes, the same in both lanes.

Names are written as the Go peer writes them, for people who grep for `X-Cache`.
"""

from http import HTTPStatus

from polyglot_persistence.api.orders.replies import HIT_HEADERS, MISS_HEADERS
from polyglot_persistence.api.web.replies import JSON_HEADERS, Headers

STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
CONTINUE = STATUS_LINES[HTTPStatus.CONTINUE] + b"\r\n"
CLOSE_LINE = b"Connection: close\r\n"

_names: dict[bytes, bytes] = {}


def lines(headers: Headers) -> bytes:
    """Return headers as lines."""
    rendered = _RENDERED.get(id(headers))  # ids are unique: these objects live for ever
    if rendered is not None:
        return rendered
    if headers[: len(JSON_HEADERS)] == JSON_HEADERS:
        return _JSON_LINES + _each_line(headers[len(JSON_HEADERS) :])
    return _each_line(headers)


_last_rendered: tuple[Headers, bytes] = ((), b"")


def default_lines(headers: Headers) -> bytes:
    """Return the lines of the default headers, which change once a second."""
    global _last_rendered  # noqa: PLW0603  one value, replaced whole, in one thread
    if _last_rendered[0] is not headers:
        _last_rendered = (headers, _each_line(headers))
    return _last_rendered[1]


def _each_line(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % (_shown(name), value) for name, value in headers])


def _shown(name: bytes) -> bytes:
    shown = _names.get(name)
    if shown is None:
        shown = _names[name] = name.title()
    return shown


_JSON_LINES = _each_line(JSON_HEADERS)
_RENDERED = {id(headers): _each_line(headers) for headers in (HIT_HEADERS, MISS_HEADERS)}
