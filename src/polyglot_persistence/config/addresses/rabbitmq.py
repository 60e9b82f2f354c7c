"""Address of RabbitMQ: `amqp://user:password@host:port,host:port/vhost`, or `amqps` for TLS.

An empty path, or `/`, is the virtual host `/`; another one is percent-encoded. Several hosts are
the nodes of one cluster.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote

from polyglot_persistence.config.addresses.hosts import Host, read_url
from polyglot_persistence.config.addresses.passwords import with_password
from polyglot_persistence.config.addresses.redis import SERVER_PORTS, read_redis

_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_EXAMPLE: Final = "amqp://guest:guest@rabbitmq:5672/"


class BrokerAddress(NamedTuple):
    """Where the nodes of a broker are."""

    hosts: tuple[Host, ...]
    username: str
    password: str
    virtual_host: str
    tls: bool

    def __str__(self) -> str:
        return ",".join(map(str, self.hosts))

    def __repr__(self) -> str:
        return f"BrokerAddress({self})"


def queue_url(text: str) -> str:
    """Return the URL if it is one of a queue; its scheme picks the adapter.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    text = with_password(text)
    scheme = text.partition("://")[0]
    if scheme in SERVER_PORTS:
        read_redis(text)
    elif scheme in _PORTS:
        read_rabbitmq(text)
    else:
        raise ValueError(
            f"not a URL of scheme {', '.join((*_PORTS, *SERVER_PORTS))}; e.g. {_EXAMPLE}"
        )
    return text


def read_rabbitmq(text: str) -> BrokerAddress:
    """Return the parts of a URL; without a user it is guest, with the password guest.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    url = read_url(text, _PORTS, _EXAMPLE)
    if not url.hosts:
        raise ValueError(f"names no host; e.g. {_EXAMPLE}")
    if url.query or "/" in url.path[1:]:
        raise ValueError(f"has parameters or a path of several parts; e.g. {_EXAMPLE}")
    return BrokerAddress(
        hosts=url.hosts,
        username=url.username or "guest",
        password="guest" if url.password is None else url.password,
        virtual_host=unquote(url.path[1:]) or "/",
        tls=url.scheme == "amqps",
    )
