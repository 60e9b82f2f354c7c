"""Address of PostgreSQL: a DSN in libpq's keyword form or a URL, of one server or several."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from polyglot_persistence.config.addresses.hosts import read_url
from polyglot_persistence.config.addresses.passwords import (
    IS_URL,
    PASSWORD_FILE,
    TWO_PASSWORDS,
    password_in,
    with_password,
)

_EXAMPLE = "postgresql://user:password@host:5432/dbname"
_PORTS: Final = {"postgresql": 5432, "postgres": 5432}
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)

# libpq's own, which asyncpg would send to the server as settings of the session.
_UNKNOWN = {
    "connect_timeout": "set POSTGRES_CONNECT_TIMEOUT_SECONDS instead",
    **dict.fromkeys(
        (
            *("channel_binding", "fallback_application_name", "gssencmode", "hostaddr"),
            *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"),
            *("load_balance_hosts", "replication", "require_auth", "requirepeer"),
            *("sslcompression", "sslsni", "tcp_user_timeout"),
        ),
        "leave it out",
    ),
}
_PRIMARIES = ("primary", "read-write")
"""What a server may have to be to hold the record; the first unless the DSN says the second."""

_KEYWORD = re.compile(
    r"\s*(\w+)\s*=\s*(?:'((?:\\.|[^'\\])*)'|((?:\\.|[^\s\\'])*))(?=\s|$)\s*", re.ASCII | re.DOTALL
)


def postgres_url(dsn: str) -> str:
    r"""Return a PostgreSQL DSN, in libpq's keyword form or a URL, as a URL for asyncpg.

    The keyword form is read as libpq does (manual, section 34.1.1.1): a value that is empty or
    holds a space stands in single quotes, and \ escapes. Either form may name several servers, of
    which only a primary is used.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    if IS_URL.match(dsn):
        dsn = with_password(dsn)
        _check(read_url(dsn, _PORTS, _EXAMPLE).query)
        return dsn
    keywords = _keywords(dsn)
    _check(keywords)
    if PASSWORD_FILE in keywords:
        if "password" in keywords:
            raise ValueError(TWO_PASSWORDS)
        keywords["password"] = password_in(keywords.pop(PASSWORD_FILE))
    user, password = keywords.pop("user", ""), keywords.pop("password", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    host, port = keywords.pop("host", ""), keywords.pop("port", "")
    host = ",".join(
        f"[{one}]" if re.fullmatch(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", one) else one  # IPv6
        for one in host.split(",")
    )
    if "/" in host or "," in host or not host:  # a socket's directory, or several hosts
        place = ""
        keywords |= {key: value for key, value in (("host", host), ("port", port)) if value}
    else:
        place = f"{host}:{port}" if port else host
    path = quote(keywords.pop("dbname", ""), safe="")
    query = urlencode(keywords, quote_via=quote)
    return (
        f"postgresql://{f'{login}@' if login else ''}{place}/{path}{f'?{query}' if query else ''}"
    )


def _keywords(dsn: str) -> dict[str, str]:
    keywords: dict[str, str] = {}
    position = 0
    while position < len(dsn):
        match = _KEYWORD.match(dsn, position)
        if not match:
            raise ValueError(
                "not keyword=value pairs (quote a value that is empty or holds a space or quote); "
                "e.g. user=postgres password=secret dbname=ecommerce host=postgres"
            )
        name, quoted, plain = match.groups()
        keywords[name] = re.sub(
            r"\\(.)", r"\1", plain if quoted is None else quoted, flags=re.DOTALL
        )
        position = match.end()
    return keywords


def _check(keywords: Mapping[str, str]) -> None:
    for keyword in keywords:
        if keyword in _UNKNOWN:
            raise ValueError(f"{keyword} is not supported: {_UNKNOWN[keyword]}")
    wanted = keywords.get("target_session_attrs", _PRIMARIES[0])
    if wanted not in _PRIMARIES:
        raise ValueError(
            "target_session_attrs is none of primary, read-write: no other server can hold the "
            "record; leave it out"
        )
    hosts, ports = keywords.get("host", "").split(","), keywords.get("port", "").split(",")
    if ports != [""] and not all(map(_PORT.fullmatch, ports)):
        raise ValueError(f"the port is not a number; e.g. {_EXAMPLE}")
    if len(hosts) > 1 and not all(hosts):
        raise ValueError("names a server without a host; e.g. host=one,two")
    if len(ports) > 1 and len(ports) != len(hosts):
        raise ValueError("there must be one port for all hosts, or one for each")
