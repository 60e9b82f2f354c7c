"""Hosts, origins and path prefixes as in browsers and HTTP (RFC 6454, RFC 9110, 4.2.3)."""

import re
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443}

PORT_MAX = 65_535

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]/?#@\s]+)(?::([0-9]{0,5}))?")


# No dot segment: a browser resolves `/../x` to `/x`, which is below no prefix.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+")


class Origin(NamedTuple):
    """Scheme, host and port. Two origins are equal if all three are, defaults included."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        is_default = self.port == DEFAULT_PORTS[self.scheme]
        return f"{self.scheme}://{self.host}{'' if is_default else f':{self.port}'}"


def parse_authority(text: str) -> tuple[str, int | None]:
    """Return the host, in lower case and without a final dot, and the port, if given.

    Raises:
        ValueError: the text is not `host` or `host:port`.
    """
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None or int(found[2] or 0) > PORT_MAX:
        raise ValueError(f"{text!r} is not a host, with or without a port; e.g. shop.example:8080")
    return found[1].removesuffix("."), int(found[2]) if found[2] else None


def parse_origin(text: str) -> Origin:
    """Return an origin, given in the form that a browser sends.

    Raises:
        ValueError: the text is not an http or https origin.
    """
    scheme, separator, authority = text.lower().partition("://")
    if not separator or scheme not in DEFAULT_PORTS:
        raise ValueError(f"{text!r} is not an origin; e.g. https://shop.example")
    host, port = parse_authority(authority)
    return Origin(scheme, host, DEFAULT_PORTS[scheme] if port is None else port)


def is_prefix(text: str) -> bool:
    """Return whether a text is a path like `/polyglot`, below which a proxy may publish the API."""
    return _PREFIX.fullmatch(text) is not None
