"""Hosts that this program listens on."""

import ipaddress
import re


def listen_host(text: str) -> str:
    """Return the text if a socket could be bound to it.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    if re.fullmatch(r"\[[0-9A-Fa-f:.]+(%\w+)?\]", text):  # as a URL writes it
        return text[1:-1]
    if not re.fullmatch(r"[A-Za-z0-9.:_%-]+", text):
        raise ValueError(f"{text!r} is not a host name or address; e.g. 127.0.0.1")
    return text


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
