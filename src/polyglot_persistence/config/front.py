"""What stands in front of the API, as settings write it down: hosts, origins, proxies, a path."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

from polyglot_persistence.domain.origin import Origin, is_prefix, parse_authority, parse_origin

Network: TypeAlias = IPv4Network | IPv6Network


def parse_hosts(text: str) -> frozenset[str] | None:
    """Return names of hosts; None for `auto`.

    Raises:
        ValueError: one of them is none.
    """
    if text == "auto":
        return None
    hosts = [parse_authority(word) for word in _words(text)]
    for host, port in hosts:
        if port is not None:
            raise ValueError(f"{host}:{port} has a port; write {host}, which stands for all ports")
    return frozenset(host for host, _ in hosts)


def parse_origins(text: str) -> frozenset[Origin]:
    """Return origins.

    Raises:
        ValueError: one of them is none.
    """
    return frozenset(parse_origin(word) for word in _words(text))


def parse_networks(text: str) -> Sequence[Network]:
    """Return networks; an address is a network of its own.

    Raises:
        ValueError: one of them is none.
    """
    networks = []
    for word in _words(text):
        try:
            networks.append(ip_network(word))
        except ValueError as error:
            raise ValueError(f"{error}; e.g. 127.0.0.1 10.0.0.0/8") from None
    return networks


def parse_prefix(text: str) -> str:
    """Return the path below which the API is reached; empty if it has none.

    Raises:
        ValueError: it is no such path.
    """
    if text == "none":
        return ""
    if not is_prefix(text):
        raise ValueError(f"{text!r} is not a path like /polyglot, without a slash at its end")
    return text


def _words(text: str) -> Sequence[str]:
    return [] if text == "none" else text.replace(",", " ").split()
