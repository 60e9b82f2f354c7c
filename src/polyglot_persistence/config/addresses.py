"""Addresses of the stores: what is a valid one, and how to show one without its password.

An address may name the file of its password, `password_file=/run/secrets/name`, as a parameter of a
URL or a keyword of a DSN; what is returned has the password in it.

Invariant: no error in here repeats an address: it may hold a password.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from polyglot_persistence.config.secret_files import text_of

VALKEY_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")

_POSTGRES_EXAMPLE = "postgresql://user:password@host:5432/dbname"
_IS_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_PASSWORD_FILE = "password_file"  # noqa: S105  a name
_PASSWORD_FILE_OF_URL = re.compile(rf"([?&]){_PASSWORD_FILE}=([^&#]*)(&?)")
_LOGIN = re.compile(r"(\w+://)(?:([^/?#@]*)@)?")

# libpq's own, which asyncpg would send to the server as settings of the session.
_POSTGRES_UNKNOWN = {
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
_TWO_PASSWORDS = f"has a password and names one by {_PASSWORD_FILE}; leave one of them out"

_PRIMARIES = ("primary", "read-write")
"""What a server may have to be to hold the record; the first unless the DSN says the second."""

_SERVERS = re.compile(r"(\w+://(?:[^/?#]*@)?)([^/?#]*)(.*)", re.DOTALL)
_KEYWORD = re.compile(
    r"\s*(\w+)\s*=\s*(?:'((?:\\.|[^'\\])*)'|((?:\\.|[^\s\\'])*))(?=\s|$)\s*", re.ASCII | re.DOTALL
)


def mask(text: str) -> str:
    """Return an address with every password in it replaced by `***`."""
    if _IS_URL.match(text):
        text = re.sub(r"(://[^:/?#@]*:).*@", r"\1***@", text)  # to the last @: rather too much
        return re.sub(r"(?i)([?&](?:ssl)?password=)[^&]*", r"\1***", text)
    return re.sub(
        r"(?is)\b((?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'?|(?:\\.|[^\s\\])+)", r"\1***", text
    )


def cache_address(text: str) -> str:
    """Return the address if it is one of Redis or Valkey: host:port or a URL.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    if _IS_URL.match(text):
        return _url(text, VALKEY_SCHEMES, "redis://:password@redis:6379/0")
    host, _, port = text.rpartition(":")
    if not host or not _PORT.fullmatch(port) or not 0 < int(port) < 1 << 16:
        raise ValueError("not host:port and not a URL; e.g. redis:6379")
    return text


def queue_url(text: str) -> str:
    """Return the URL if it is one of a queue; its scheme picks the adapter.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    return _url(text, ("amqp", "amqps", *VALKEY_SCHEMES), "amqp://guest:guest@rabbitmq:5672/")


def search_url(text: str) -> str:
    """Return the URL if it is one of a search index; its scheme picks the adapter.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    return _url(text, ("http", "https", "tantivy"), "http://elasticsearch:9200")


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


def postgres_url(dsn: str) -> str:
    r"""Return a PostgreSQL DSN, in libpq's keyword form or a URL, as a URL for asyncpg.

    The keyword form is read as libpq does (manual, section 34.1.1.1): a value that is empty or
    holds a space stands in single quotes, and \ escapes. Either form may name several servers, of
    which only a primary is used.

    Raises:
        ValueError: saying what is wrong, with an example.
    """
    if _IS_URL.match(dsn):
        dsn = _with_password(dsn)
        match = _SERVERS.fullmatch(dsn)
        head, places, tail = match.groups() if match else (dsn, "", "")
        for place in places.split(","):
            if places and not place:
                raise ValueError(f"names a server without a host; e.g. {_POSTGRES_EXAMPLE}")
            _url(f"{head}{place}{tail}", ("postgresql", "postgres"), _POSTGRES_EXAMPLE)
        query = urlsplit(f"{head}{tail}").query
        keywords = dict(parse_qsl(query, keep_blank_values=True))
        _check(keywords)
        return dsn
    keywords = _keywords(dsn)
    _check(keywords)
    if _PASSWORD_FILE in keywords:
        if "password" in keywords:
            raise ValueError(_TWO_PASSWORDS)
        keywords["password"] = _password(keywords.pop(_PASSWORD_FILE))
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
        if keyword in _POSTGRES_UNKNOWN:
            raise ValueError(f"{keyword} is not supported: {_POSTGRES_UNKNOWN[keyword]}")
    wanted = keywords.get("target_session_attrs", _PRIMARIES[0])
    if wanted not in _PRIMARIES:
        raise ValueError(
            "target_session_attrs is none of primary, read-write: no other server can hold the "
            "record; leave it out"
        )
    hosts, ports = keywords.get("host", "").split(","), keywords.get("port", "").split(",")
    if ports != [""] and not all(map(_PORT.fullmatch, ports)):
        raise ValueError(f"the port is not a number; e.g. {_POSTGRES_EXAMPLE}")
    if len(hosts) > 1 and not all(hosts):
        raise ValueError("names a server without a host; e.g. host=one,two")
    if len(ports) > 1 and len(ports) != len(hosts):
        raise ValueError("there must be one port for all hosts, or one for each")


def _with_password(url: str) -> str:
    """Return a URL with the password out of the file that it names, if it names one."""
    match = _PASSWORD_FILE_OF_URL.search(url)
    if match is None:
        return url
    before, path, after = match.groups()
    password = quote(_password(unquote(path)), safe="")
    rest = (before if after else "") + url[match.end() :]
    url = f"{url[: match.start()]}{rest}"
    if url.startswith("unix:"):  # has no place for it but its parameters
        return f"{url}{'&' if '?' in url else '?'}password={password}"
    login = _LOGIN.match(url)
    if login is None or ":" in (login[2] or ""):
        raise ValueError(_TWO_PASSWORDS)
    return f"{login[1]}{login[2] or ''}:{password}@{url[login.end() :]}"


def _password(path: str) -> str:
    password = text_of(Path(path))
    if not password:
        raise ValueError(f"{path} is empty; write the password into it, e.g. with an editor")
    return password


def _url(text: str, schemes: Sequence[str], example: str) -> str:
    text = _with_password(text)
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"not a URL of scheme {', '.join(schemes)}; e.g. {example}")
    try:
        parts = urlsplit(text)
        port = parts.port
        parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        raise ValueError(f"not a valid URL; e.g. {example}") from None
    if parts.netloc.count("@") > 1:
        raise ValueError(f"write @ in a user or password as %40; e.g. {example}")
    if parts.scheme in ("unix", "tantivy"):
        if parts.netloc or not parts.path.strip("/"):
            raise ValueError(f"needs an absolute path; e.g. {parts.scheme}:///var/lib/store")
    elif port == 0:
        raise ValueError(f"0 is not a port; e.g. {example}")
    elif not parts.hostname and not parts.scheme.startswith("postgres"):
        raise ValueError(f"names no host; e.g. {example}")
    return text
