"""The proxies, hosts and origins that the settings trust.

Invariant: client, scheme, host and path prefix in forwarding headers count only if they come from a
trusted proxy. In a chain, a hop counts only if the hop before it is trusted, so text that a client
wrote never counts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, TypeVar

from polyglot_persistence.api.protocol.heads import HOST_BYTES_MAX, BadHeadError, is_host
from polyglot_persistence.api.web.problems import HEAD_TOO_LARGE
from polyglot_persistence.api.web.replies import Headers
from polyglot_persistence.domain.origin import (
    DEFAULT_PORTS,
    Origin,
    is_prefix,
    parse_authority,
    parse_origin,
)
from polyglot_persistence.errors import ForbiddenError, MisdirectedError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SHOWN_MAX = 200

FORWARDED_BYTES_MAX = 8 * 1024
"""Of all that proxies say of one request; as long as the longest header that nginx passes on."""
HOPS_MAX = 32
"""Maximum length of a chain of trusted proxies."""
ORIGIN_BYTES_MAX = len("https://") + HOST_BYTES_MAX
PREFIX_CHARACTERS_MAX = 256

_FORWARDED = b"forwarded"
_FOR, _PROTO, _HOST, _PREFIX = (
    b"x-forwarded-" + name for name in (b"for", b"proto", b"host", b"prefix")
)
_OF_PROXIES = frozenset({_FORWARDED, _FOR, _PROTO, _HOST, _PREFIX})

# One parameter of an element, or none, and what separates it from the next (RFC 7239, section 4).
# Possessive, so that nothing is looked at twice: what does not match ends the reading.
_PAIR = re.compile(
    r"[ \t]*+(?:([!#$%&'*+.^_`|~0-9A-Za-z-]++)=(?:\"((?:[^\"\\]|\\.)*+)\"|([^\",;\s]*+)))?+"
    r"[ \t]*+([,;]|\Z)"
)
_ESCAPED = re.compile(r"\\(.)")
_NODE = re.compile(r"\[([^\]]+)\](?::[^:]*)?|([^:]+):[^:]*")
_Value = TypeVar("_Value")


class Seen(NamedTuple):
    """A request as the proxies received it."""

    client: str
    scheme: str | None
    """None: unknown."""
    host: bytes | None
    prefix: str | None


@dataclass
class Front:
    """The trusted proxies, the hosts, the trusted origins and the path prefix of the settings."""

    _: KW_ONLY
    hosts: frozenset[str] | None = None
    origins: frozenset[Origin] = frozenset()
    proxies: Sequence[IPv4Network | IPv6Network] = ()
    prefix: str = ""

    def trusts(self, address: str) -> bool:
        """Whether an address is a trusted proxy's."""
        if not self.proxies:
            return False
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self.proxies)

    # --- which host ---

    def knows_host(self, host: bytes, own: str) -> bool:
        """Whether requests that came in on the address `own` may be for a host.

        Names of the loopback and the address itself always may: no page of elsewhere can make a
        browser send them (DNS rebinding), and probes do.
        """
        return self.hosts is None or _is_own(host, own) or _host_of(host) in self.hosts

    def check_host(self, headers: Headers, own: str) -> None:
        """Refuse a request for another host.

        Raises:
            MisdirectedError: the host is none of those that requests may be for.
        """
        host = header(headers, b"host")
        if host and not self.knows_host(host, own):
            raise MisdirectedError(
                f"this server does not answer for {_shown(host)}; if it is one of its names, "
                f"set ALLOWED_HOSTS={_host_of(host)}"
            )

    # --- which origin ---

    def trusts_origin(self, origin: bytes) -> bool:
        """Whether pages of an origin may send requests."""
        return bool(self.origins) and _origin_of(origin) in self.origins

    def check_origin(self, method: str, headers: Headers, scheme: str | None = None) -> None:
        """Refuse a cross-origin request of a browser, unless it cannot modify data.

        `scheme` is the one that the client used, if that is known.

        Raises:
            ForbiddenError: the page's origin is neither the host that is asked nor trusted.
        """
        sent = header(headers, b"origin")
        if sent is None or method in _SAFE_METHODS:
            return  # not a browser: browsers send it unless the method is GET or HEAD
        origin = _origin_of(sent)
        host = header(headers, b"host") or b""
        if origin is not None:
            if origin in self.origins or _same(origin, host, scheme):
                return
            advice = f"set TRUSTED_ORIGINS={origin} to let it"
        else:
            advice = "only origins of http and https can be trusted"
        asked = f"{scheme}://{_shown(host)}" if scheme else _shown(host)
        raise ForbiddenError(
            f"cross-origin requests from {_shown(sent)} may not modify data at {asked}; if it "
            "is this service's own page, have the proxy pass the Host header on unchanged, else "
            f"{advice}"
        )

    # --- what proxies say ---

    def seen(self, peer: str, headers: Headers) -> Seen:
        """Return what a trusted proxy, the peer, and those before it say of a request.

        Raises:
            BadHeadError: it cannot be read, or contradicts itself: a proxy passed on what it
                should have dropped.
        """
        said = _said(headers)
        elements = _elements(said.get(_FORWARDED, ""))
        hops = _listed(said, _FOR)
        client, used = self._client(peer, [one.get("for", "") for one in elements])
        if hops or not elements:
            by_hops = self._client(peer, hops)
            if elements and by_hops[0] != client:
                raise BadHeadError(
                    "Forwarded and X-Forwarded-For name different clients; the proxy has to drop "
                    "the one that it does not set"
                )
            client, used = by_hops
        if elements:
            element = _at(elements, used) or {}
            scheme, host = element.get("proto", ""), element.get("host", "")
        else:
            scheme = _at(_listed(said, _PROTO), used) or ""
            host = _at(_listed(said, _HOST), used) or ""
        prefix = _at(_listed(said, _PREFIX), used)
        if prefix is not None and (prefix := prefix.rstrip("/")):
            _check_prefix(prefix)
        encoded = host.encode("latin-1", "replace")
        if not is_host(encoded):
            raise BadHeadError("the forwarded host is invalid")
        known = scheme.lower() if scheme.lower() in DEFAULT_PORTS else None
        return Seen(client, known, encoded or None, prefix)

    def _client(self, peer: str, hops: Sequence[str]) -> tuple[str, int]:
        """Return the nearest address that is not a trusted proxy, and the number of hops to it.

        What is no address (`unknown`, `_hidden`) ends the search: the proxy that wrote it counts.
        """
        client = peer
        for used, hop in enumerate(reversed(hops), 1):
            if used > HOPS_MAX:
                raise BadHeadError(f"it names more than {HOPS_MAX} trusted proxies in a row")
            address = _address_of(hop)
            if address is None:
                return client, used
            client = address
            if not self.trusts(client):
                return client, used
        return client, len(hops)


ANY_FRONT = Front()
"""Trusts no proxy, and accepts every host."""


def header(headers: Headers, wanted: bytes) -> bytes | None:
    """Return the value of the first header of a name."""
    return next((value for name, value in headers if name == wanted), None)


def _said(headers: Headers) -> Mapping[bytes, str]:
    """Return the forwarding headers; several headers of one name are joined."""
    said: dict[bytes, str] = {}
    size = 0
    for name, value in headers:
        if name in _OF_PROXIES:
            size += len(value)
            if size > FORWARDED_BYTES_MAX:
                detail = f"what proxies say may have {FORWARDED_BYTES_MAX} bytes"
                raise BadHeadError(detail, HEAD_TOO_LARGE)
            text = value.decode("latin-1")
            said[name] = f"{said[name]},{text}" if name in said else text
    return said


def _listed(said: Mapping[bytes, str], name: bytes) -> Sequence[str]:
    text = said.get(name)
    return [one.strip() for one in text.split(",")] if text else []


def _elements(text: str) -> Sequence[Mapping[str, str]]:
    """Return the elements of `Forwarded`, each as its parameters; empty ones are left out.

    Raises:
        BadHeadError: it is no such list. What a client began and did not end would swallow what
            the proxy says.
    """
    elements: list[Mapping[str, str]] = []
    element: dict[str, str] = {}
    place = 0
    separator = "," if text else ""
    while separator:
        found = _PAIR.match(text, place)
        if found is None or (found[1] and found[1].lower() in element):
            raise BadHeadError("Forwarded does not follow RFC 7239")
        name, quoted, bare, separator = found.groups()
        if name:
            element[name.lower()] = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
        if separator != ";" and element:
            elements.append(element)
            element = {}
        place = found.end()
    return elements


def _check_prefix(prefix: str) -> None:
    if len(prefix) > PREFIX_CHARACTERS_MAX:
        raise BadHeadError(
            f"X-Forwarded-Prefix must have at most {PREFIX_CHARACTERS_MAX} characters"
        )
    if not is_prefix(prefix):
        raise BadHeadError("X-Forwarded-Prefix must be a path like /polyglot")


def _at(values: Sequence[_Value], used: int) -> _Value | None:
    """Return the value of the proxy that named the client, counted from the end."""
    return values[-min(max(used, 1), len(values))] if values else None


def _address_of(node: str) -> str | None:
    found = _NODE.fullmatch(node) if node.count(":") == 1 or node[:1] == "[" else None
    try:
        return str(ip_address((found[1] or found[2]) if found else node))
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _host_of(host: bytes) -> str:
    """Return a host without its port; empty if it is none."""
    try:
        return parse_authority(host.decode("latin-1"))[0]
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def _is_own(host: bytes, own: str) -> bool:
    name = _host_of(host)
    if name == "localhost":
        return True
    try:
        ip = ip_address(name.strip("[]"))
    except ValueError:
        return False
    return ip.is_loopback or str(ip) == own.partition("%")[0].removeprefix("::ffff:")


def _origin_of(origin: bytes) -> Origin | None:
    """Return an origin; None if it is none, or too long to be one, which is not remembered."""
    return _parsed_origin(origin) if len(origin) <= ORIGIN_BYTES_MAX else None


@lru_cache(maxsize=256)
def _parsed_origin(origin: bytes) -> Origin | None:
    try:
        return parse_origin(origin.decode("latin-1"))
    except ValueError:
        return None


def _same(origin: Origin, host: bytes, scheme: str | None) -> bool:
    """Whether an origin is that of a host; of one without a port, its scheme's default counts."""
    try:
        name, port = parse_authority(host.decode("latin-1"))
    except ValueError:
        return False
    known = scheme or origin.scheme
    return origin == (known, name, DEFAULT_PORTS[known] if port is None else port)


def _shown(value: bytes) -> str:
    return value[:_SHOWN_MAX].decode("ascii", "backslashreplace")
