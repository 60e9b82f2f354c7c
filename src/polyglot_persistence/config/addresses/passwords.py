"""Passwords in addresses: read from the files that addresses name, and hidden where they show.

An address may name the file of its password, `password_file=/run/secrets/name`, as a parameter of a
URL or a keyword of a DSN.
"""

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from polyglot_persistence.config.secret_files import text_of

PASSWORD_FILE: Final = "password_file"  # noqa: S105  a name
TWO_PASSWORDS: Final = f"has a password and names one by {PASSWORD_FILE}; leave one of them out"

IS_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_PASSWORD_FILE_OF_URL = re.compile(rf"([?&]){PASSWORD_FILE}=([^&#]*)(&?)")
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:([^/?#@]*)@)?")


def mask(text: str) -> str:
    """Return an address with every password in it replaced by `***`."""
    if IS_URL.match(text):
        text = re.sub(r"(://[^:/?#@]*:).*@", r"\1***@", text)  # to the last @: rather too much
        return re.sub(r"(?i)([?&](?:ssl|sentinel_)?password=)[^&]*", r"\1***", text)
    return re.sub(
        r"(?is)\b((?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'?|(?:\\.|[^\s\\])+)", r"\1***", text
    )


def with_password(url: str) -> str:
    """Return a URL with the password out of the file that it names, if it names one.

    Raises:
        ValueError: the file cannot be read or is empty, or the URL has a password beside it.
    """
    match = _PASSWORD_FILE_OF_URL.search(url)
    if match is None:
        return url
    before, path, after = match.groups()
    password = quote(password_in(unquote(path)), safe="")
    rest = (before if after else "") + url[match.end() :]
    url = f"{url[: match.start()]}{rest}"
    if url.startswith("unix:"):  # has no place for it but its parameters
        return f"{url}{'&' if '?' in url else '?'}password={password}"
    login = _LOGIN.match(url)
    if login is None or ":" in (login[2] or ""):
        raise ValueError(TWO_PASSWORDS)
    return f"{login[1]}{login[2] or ''}:{password}@{url[login.end() :]}"


def password_in(path: str) -> str:
    """Return the password in a file.

    Raises:
        ValueError: it cannot be read, or is empty.
    """
    password = text_of(Path(path))
    if not password:
        raise ValueError(f"{path} is empty; write the password into it, e.g. with an editor")
    return password
