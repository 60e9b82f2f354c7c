"""A store's URL, which may name several hosts: `scheme://login@host:port,host:port/path?query`."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

_URL: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://(?:([^/?#]*)@)?([^/?#]*)([^?#]*)(?:\?([^#]*))?", re.DOTALL
)
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^:\[\]\s@]*))(?::([0-9]{0,5}))?")
_PORT_MAX: Final = (1 << 16) - 1


class Host(NamedTuple):
    """One host of a store."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class StoreUrl(NamedTuple):
    """The parts of a URL, escapes undone except in its path."""

    scheme: str
    username: str | None
    password: str | None
    hosts: tuple[Host, ...]
    """Empty if none is named."""
    path: str
    query: Mapping[str, str]

    def __repr__(self) -> str:
        return f"StoreUrl({self.scheme}://{','.join(map(str, self.hosts))})"


def read_url(text: str, ports: Mapping[str, int | None], example: str) -> StoreUrl:
    """Return the parts of a URL; `ports` has the default port of each allowed scheme.

    None there: a URL of the scheme names a path of this machine, and no host.

    Raises:
        ValueError: saying what is wrong, with an example, and without the URL.
    """
    scheme, colon, _ = text.partition("://")
    if not colon or scheme not in ports:
        raise ValueError(f"not a URL of scheme {', '.join(ports)}; e.g. {example}")
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError(f"not a valid URL; e.g. {example}")
    _, login, places, path, parameters = match.groups()
    if "@" in (login or ""):
        raise ValueError(f"write @ in a user or password as %40; e.g. {example}")
    username, colon, password = (login or "").partition(":")
    try:
        pairs = parse_qsl(parameters or "", keep_blank_values=True, strict_parsing=bool(parameters))
    except ValueError:
        raise ValueError(f"not a valid URL; e.g. {example}") from None
    port = ports[scheme]
    if port is None and (places or not path.strip("/")):
        raise ValueError(f"needs an absolute path; e.g. {scheme}:///var/lib/store")
    return StoreUrl(
        scheme,
        unquote(username) or None,
        unquote(password) if colon else None,
        hosts_in(places, port, example) if places and port else (),
        path,
        dict(pairs),
    )


def hosts_in(text: str, port_default: int, example: str) -> tuple[Host, ...]:
    """Return the hosts of a list, `host:port,host`.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    return tuple(_host(place, port_default, example) for place in text.split(","))


def _host(text: str, port_default: int, example: str) -> Host:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(f"not a valid URL; e.g. {example}")
    port = int(match[3]) if match[3] else port_default
    if port == 0:
        raise ValueError(f"0 is not a port; e.g. {example}")
    if port > _PORT_MAX:
        raise ValueError(f"not a valid URL; e.g. {example}")
    name = match[1] or match[2]
    if not name:
        raise ValueError(f"names a server without a host; e.g. {example}")
    return Host(name, port)
