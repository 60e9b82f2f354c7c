"""Hosts and origins as browsers and HTTP compare them (RFC 6454, RFC 9110 section 4.2.3)."""

import re
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443}

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]/?#@\s]+)(?::([0-9]{0,5}))?")


class Origin(NamedTuple):
    """Scheme, host and port. Two origins are equal if all three are, whatever was left out."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        is_default = self.port == DEFAULT_PORTS[self.scheme]
        return f"{self.scheme}://{self.host}{'' if is_default else f':{self.port}'}"


def parse_authority(text: str) -> tuple[str, int | None]:
    """Return host, in lower case and without a last dot, and port, if one is given.

    Raises:
        ValueError: it is no `host` or `host:port`.
    """
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        raise ValueError(f"{text!r} is not a host, with or without a port; e.g. shop.example:8080")
    return found[1].removesuffix("."), int(found[2]) if found[2] else None


def parse_origin(text: str) -> Origin:
    """Return an origin as a browser sends it.

    Raises:
        ValueError: it is none of http or https.
    """
    scheme, separator, authority = text.lower().partition("://")
    if not separator or scheme not in DEFAULT_PORTS:
        raise ValueError(f"{text!r} is not an origin; e.g. https://shop.example")
    host, port = parse_authority(authority)
    return Origin(scheme, host, DEFAULT_PORTS[scheme] if port is None else port)
