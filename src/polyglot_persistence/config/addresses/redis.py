"""Address of a Redis or Valkey server, or of the sentinels that know it.

    host:port    redis://user:password@host:port/db    unix:///path?db=1&password=secret
    redis+sentinel://user:password@host:port,host:port/name/db?sentinel_password=secret

rediss:// and valkeys:// are the same over TLS. User and password are the server's;
`sentinel_username` and `sentinel_password` are the sentinels' own.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote

from polyglot_persistence.config.addresses.hosts import Host, hosts_in, read_url
from polyglot_persistence.config.addresses.passwords import IS_URL, with_password

SERVER_PORTS: Final = {
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), 6379),
    "unix": None,
}
"""The schemes of one server, each with its default port."""

_SENTINEL_PORTS: Final = {
    f"{scheme}+sentinel": 26379 for scheme in SERVER_PORTS if scheme != "unix"
}
_TLS: Final = ("rediss", "valkeys")
_EXAMPLE: Final = "redis://:password@redis:6379/0"
_SENTINEL_EXAMPLE: Final = "redis+sentinel://:password@sentinel-1:26379,sentinel-2:26379/polyglot/0"
_PARAMETERS: Final = ("db", "username", "password", "sentinel_username", "sentinel_password")


class RedisAddress(NamedTuple):
    """Where a server is, or the sentinels that know where."""

    hosts: tuple[Host, ...]
    """The server, or the sentinels; empty for a Unix socket."""
    socket_path: str | None
    username: str | None
    password: str | None
    database: int
    tls: bool
    name: str | None = None
    """The name that the sentinels know the server by; None: `hosts` is the server itself."""
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    def __str__(self) -> str:
        places = self.socket_path or ",".join(map(str, self.hosts))
        return f"{self.name} of {places}" if self.name else places

    def __repr__(self) -> str:
        return f"RedisAddress({self})"


def cache_address(text: str) -> str:
    """Return the text if it is an address; a password out of a file is in it.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    if IS_URL.match(text):
        text = with_password(text)
    read_redis(text)
    return text


def read_redis(text: str) -> RedisAddress:
    """Return the parts of an address.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    if not IS_URL.match(text):
        try:
            [host] = hosts_in(text, 0, "")
        except ValueError:
            raise ValueError("not host:port and not a URL; e.g. redis:6379") from None
        return RedisAddress((host,), None, None, None, 0, tls=False)
    url = read_url(text, SERVER_PORTS | _SENTINEL_PORTS, _EXAMPLE)
    by_sentinels = url.scheme in _SENTINEL_PORTS
    example = _SENTINEL_EXAMPLE if by_sentinels else _EXAMPLE
    unknown = url.query.keys() - set(_PARAMETERS if by_sentinels else _PARAMETERS[:3])
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(sorted(unknown))}; e.g. {example}")
    if url.scheme == "unix":
        name, database = None, ""
    elif not url.hosts:
        raise ValueError(f"names no host; e.g. {example}")
    elif by_sentinels:
        name, _, database = unquote(url.path).strip("/").partition("/")
        if not name:
            raise ValueError(f"has no name of a server; e.g. {example}")
    else:
        name, database = None, url.path.strip("/")
        if len(url.hosts) > 1:
            raise ValueError(
                f"names several servers, of which one would be used; e.g. {_SENTINEL_EXAMPLE}"
            )
    database = database or url.query.get("db", "0")
    if not (database.isascii() and database.isdigit()):
        raise ValueError(f"the database is not a number; e.g. {example}")
    return RedisAddress(
        hosts=url.hosts,
        socket_path=unquote(url.path) if url.scheme == "unix" else None,
        username=url.username or url.query.get("username"),
        password=url.password or url.query.get("password"),
        database=int(database),
        tls=url.scheme.startswith(_TLS),
        name=name,
        sentinel_username=url.query.get("sentinel_username"),
        sentinel_password=url.query.get("sentinel_password"),
    )
