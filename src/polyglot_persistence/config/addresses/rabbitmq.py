"""Address of RabbitMQ: `amqp://user:password@host:port,host:port/vhost`, or `amqps` for TLS.

An empty path, or `/`, is the virtual host `/`; another one is percent-encoded. Several hosts are
the nodes of one cluster. Its management API: `http://user:password@host:port,host:port`.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote

from polyglot_persistence.config.addresses.hosts import Host, read_url
from polyglot_persistence.config.addresses.passwords import with_password
from polyglot_persistence.config.addresses.redis import SERVER_PORTS, read_redis

_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_MANAGEMENT_PORTS: Final = {"http": 15672, "https": 15671}
_EXAMPLE: Final = "amqp://guest:guest@rabbitmq:5672/"
_MANAGEMENT_EXAMPLE: Final = "http://rabbitmq:15672"


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


class ManagementAddress(NamedTuple):
    """Where the nodes' management API is, and as whom to ask about the virtual host."""

    urls: tuple[str, ...]
    username: str
    password: str
    virtual_host: str

    def __repr__(self) -> str:
        return f"ManagementAddress({', '.join(self.urls)})"


def management_url(text: str) -> str | None:
    """Return the URL if it is one of the management API; None for the text `none`.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    if text == "none":
        return None
    text = with_password(text)
    url = read_url(text, _MANAGEMENT_PORTS, _MANAGEMENT_EXAMPLE)
    if not url.hosts or url.query:
        raise ValueError(f"names no host, or has parameters; e.g. {_MANAGEMENT_EXAMPLE}")
    return text


def read_management(text: str, broker: BrokerAddress) -> ManagementAddress:
    """Return the parts of such a URL; without a user it is the broker's.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    url = read_url(text, _MANAGEMENT_PORTS, _MANAGEMENT_EXAMPLE)
    return ManagementAddress(
        tuple(f"{url.scheme}://{host}{url.path.rstrip('/')}" for host in url.hosts),
        url.username or broker.username,
        (url.password or "") if url.username else broker.password,
        broker.virtual_host,
    )
