"""Address of a RabbitMQ broker: `amqp://user:password@host:port/vhost`, or `amqps` for TLS.

An empty path, or `/`, is the virtual host `/`; another one is percent-encoded.

Invariant: the text of an address never shows its password.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from polyglot_persistence.errors import ConfigurationError

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


class BrokerAddress(NamedTuple):
    """One broker's address."""

    host: str
    port: int
    username: str
    password: str
    virtual_host: str
    tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"BrokerAddress({self})"


def parse_address(text: str) -> BrokerAddress:
    """Return the parts of a URL; without a user it is guest, with the password guest.

    Raises:
        ConfigurationError: invalid URL (not repeated, for it may hold a password).
    """
    url = urlsplit(text)
    try:
        port = url.port or _PORTS[url.scheme]
    except (KeyError, ValueError):
        port = None
    if port is None or url.query or url.fragment or "/" in url.path[1:]:
        raise ConfigurationError(
            "a RabbitMQ address is amqp://user:password@host:port/vhost (or amqps), no parameters"
        )
    return BrokerAddress(
        host=url.hostname or "localhost",
        port=port,
        username=unquote(url.username or "guest"),
        password=unquote("guest" if url.password is None else url.password),
        virtual_host=unquote(url.path[1:]) or "/",
        tls=url.scheme == "amqps",
    )
