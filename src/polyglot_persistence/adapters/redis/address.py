"""Address of a Redis or Valkey server, in the forms that an operator may write.

    host:port    redis://user:password@host:port/db    unix:///path?db=1&password=secret
    rediss:// and valkeys:// are the same over TLS

Invariant: the text of an address never shows its password.
"""

from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from polyglot_persistence.errors import ConfigurationError

PORT_DEFAULT: Final = 6379
_TCP = frozenset({"redis", "valkey"})
_TLS = frozenset({"rediss", "valkeys"})


class RedisAddress(NamedTuple):
    """One server's address; `socket_path` is set instead of host and port for a Unix socket."""

    host: str
    port: int
    socket_path: str | None
    username: str | None
    password: str | None
    database: int
    tls: bool

    def __str__(self) -> str:
        return self.socket_path or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"RedisAddress({self})"


def parse_address(text: str) -> RedisAddress:
    """Return the parts of an address.

    Raises:
        ConfigurationError: invalid address (not repeated, for it may hold a password).
    """
    url = urlsplit(text if "://" in text else f"redis://{text}")
    if url.scheme not in _TCP | _TLS | {"unix"}:
        raise ConfigurationError(
            f"a Redis address begins with redis, rediss, valkey, valkeys or unix, not {url.scheme}"
        )
    try:
        return _from_url(url)
    except ValueError as error:
        raise ConfigurationError(
            "a Redis address is host:port, redis://user:password@host:port/db, or"
            " unix:///path?db=0&password=..."
        ) from error


def _from_url(url: SplitResult) -> RedisAddress:
    query = parse_qs(url.query, strict_parsing=bool(url.query))
    unix = url.scheme == "unix"
    if not query.keys() <= {"db", "username", "password"} or (unix and not url.path):
        raise ValueError(url.scheme)
    path = "" if unix else url.path.strip("/")
    return RedisAddress(
        host=url.hostname or "localhost",
        port=url.port or PORT_DEFAULT,
        socket_path=unquote(url.path) if unix else None,
        username=unquote(url.username or "") or query.get("username", [None])[0],
        password=unquote(url.password or "") or query.get("password", [None])[0],
        database=int(path or query.get("db", ["0"])[0]),
        tls=url.scheme in _TLS,
    )
