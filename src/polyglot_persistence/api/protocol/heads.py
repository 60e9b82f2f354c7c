"""Parses a request's head: connection, framing of the body, and target.

The parser below (llhttp) refuses invalid HTTP/1.x: other line ends, folded headers, characters that
a header may not have, two lengths, a length beside a transfer coding. This module implements the
rest of RFC 9112 that the parser leaves to its caller.

Invariant: nothing here depends on the lane, so both refuse the same heads.
"""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from polyglot_persistence.api.web.problems import MALFORMED, UNSUPPORTED_MEDIA, Kind
from polyglot_persistence.api.web.replies import Headers
from polyglot_persistence.domain.origin import parse_authority

_UNSUPPORTED_CODING = UNSUPPORTED_MEDIA._replace(
    status=501, title="The server does not take this transfer coding"
)

HOST_BYTES_MAX = 260
"""A name of the DNS with a port has at most 259."""

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE)
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_SLASH = re.compile("%2f", re.IGNORECASE)

# A request with one of these headers is not plain. `connection: keep-alive` is HTTP/1.1's default,
# and keys are read in either lane.
_UNUSUAL = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-encoding",
        b"expect",
        b"idempotency-key",
        b"last-event-id",
        b"origin",
        b"prefer",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
    }
)

_KEYS = (b"authorization", b"x-api-key")

# That say one thing, as Host and Content-Type do, so that of two every reader could choose another
# (RFC 9110, 5.3).
_ONCE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"expect",
        b"idempotency-key",
        b"last-event-id",
        b"origin",
        b"x-api-key",
    }
)


class BadHeadError(Exception):
    """The head breaks a rule of HTTP, so the end of its request is uncertain."""

    def __init__(self, detail: str, kind: Kind = MALFORMED) -> None:
        super().__init__(detail)
        self.detail = detail
        self.kind = kind


class Head:
    """The parsed headers; made by `read_head`.

    The defaults are the class's, so that making one costs next to nothing.
    """

    version = "1.1"
    keep_alive = True
    is_plain = True
    """Whether no header needs the framework's handlers."""
    content_type: bytes | None = None
    length: int | None = None
    is_chunked = False
    expects_continue = False
    has_key = False
    """Whether the headers may contain an API key."""
    host = b""
    """Of the Host header; empty without one, which only HTTP/1.0 may be."""


def read_head(version: str, headers: Headers) -> Head:
    """Parse headers whose names are in lower case.

    Raises:
        BadHeadError: they break a rule.
    """
    head = Head() if version == "1.1" else _old_head(version)
    host: bytes | None = None
    unusual = 0
    for name, value in headers:
        if name == b"host":
            if host is not None:
                raise _twice(name)
            host = value
        elif name == b"content-length":
            head.length = int(value)
        elif name == b"content-type":
            _take_content_type(head, value)
        elif name in _UNUSUAL:
            unusual += 1
            _read_unusual(head, name, value)
    if unusual > 1:
        _check_once(headers)
    if host is None:
        _check_hostless(version)
    elif not is_host(host):
        raise BadHeadError(
            "the Host header is no host, with or without a port up to 65535; e.g. shop.example:8080"
        )
    else:
        head.host = host
    return head


def _check_hostless(version: str) -> None:
    if version == "1.1":
        raise BadHeadError("there is no Host header")


def _old_head(version: str) -> Head:
    if version != "1.0":
        raise BadHeadError("this is not an HTTP/1.1 request")
    head = Head()
    head.version = version
    head.keep_alive = head.is_plain = False
    return head


def _take_content_type(head: Head, value: bytes) -> None:
    if head.content_type is not None:
        raise _twice(b"content-type")
    head.content_type = value


def _twice(name: bytes) -> BadHeadError:
    return BadHeadError(f"there is more than one {name.decode().title()} header")


def is_host(value: bytes) -> bool:
    """Whether a value may stand in a Host header: a host, with or without a port, or nothing.

    What is too long is not remembered as such.
    """
    return len(value) <= HOST_BYTES_MAX and _is_host(value)


@lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    if not value or not _HOST.fullmatch(value):
        return not value
    try:
        parse_authority(value.decode("ascii"))
    except ValueError:
        return False
    return True


def _check_once(headers: Headers) -> None:
    names = [name for name, _ in headers if name in _ONCE]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise _twice(name)


def _read_unusual(head: Head, name: bytes, value: bytes) -> None:
    if name == b"connection" and value.lower() == b"keep-alive":
        return
    if name in _KEYS:
        head.has_key = True
        return
    head.is_plain = False
    if name == b"connection":
        if b"close" in [token.strip() for token in value.lower().split(b",")]:
            head.keep_alive = False
    elif name == b"expect":
        head.expects_continue = head.version == "1.1" and value.lower() == b"100-continue"
    elif name == b"transfer-encoding":
        if head.version == "1.0":
            raise BadHeadError("HTTP/1.0 has no Transfer-Encoding")
        if head.is_chunked or value.lower() != b"chunked":
            raise BadHeadError(
                "the only transfer coding that is accepted is chunked, once", _UNSUPPORTED_CODING
            )
        head.is_chunked = True


class Target(NamedTuple):
    """The parts of a request's target."""

    path: str
    """Decoded, except `%2F`: an encoded slash does not separate steps."""
    raw_path: bytes
    query: bytes
    host: bytes | None
    """Host of an absolute target; it replaces the Host header (RFC 9112, 3.2.2)."""


def read_target(method: bytes, target: bytes) -> Target:
    """Return the parts of a target.

    Raises:
        BadHeadError: its form is invalid for a server.
    """
    host: bytes | None = None
    if b"#" in target:
        raise BadHeadError("the target must not have a fragment")
    if target.startswith(b"/"):
        raw_path, _, query = target.partition(b"?")
    elif target == b"*" and method == b"OPTIONS":
        raw_path, query = target, b""
    elif found := _ABSOLUTE.fullmatch(target):
        host, raw_path, query = found[1], found[2] or b"/", found[3] or b""
        if not host or not is_host(host):
            raise BadHeadError("the target names no host")
    else:
        raise BadHeadError("the target is neither a path nor an http URI")
    path = raw_path.decode("ascii")
    if "%" in path:
        path = unquote(_SLASH.sub("%252F", path))
    return Target(path, raw_path, query, host)


def with_host(headers: Headers, host: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers with another host."""
    return [(b"host", host), *(one for one in headers if one[0] != b"host")]


def without_prefix(target: bytes, prefix: str) -> bytes:
    """Return a target without the path prefix, if a proxy left that there."""
    rest = target.removeprefix(prefix.encode())
    if len(rest) < len(target) and rest[:1] in (b"/", b"?", b""):
        return rest if rest[:1] == b"/" else b"/" + rest
    return target


def in_ascii(line: bytes) -> bytes:
    """Return a request line with what is not ASCII percent-encoded.

    Tools that people type addresses into (curl, `nc`, scripts) send the bytes as they are, which
    is no URI. A browser would send what this returns.
    """
    return _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line)
