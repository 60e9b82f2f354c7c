"""Access: scopes, API keys and rates, in the form that operators write.

A key is 256 random bits, so a single SHA-256 is the right hash for it. Slow, salted hashes are for
passwords, which can be guessed; nobody can try more than a vanishing part of all keys. And the
server hashes the key of each request, so a slow hash would help a flooding client.

Invariant: no error in here repeats its input: it may be a key, written where its hash belongs.
"""

import enum
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple

API_KEY_PREFIX = "pp_"
"""Lets people and scanners for leaked secrets recognize a key of this service."""

_KEY_BYTES = 32
_KEY = re.compile(rb"pp_[A-Za-z0-9_-]{43}")
_PUBLIC_CHARACTERS = len(API_KEY_PREFIX) + 4
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_RATE = re.compile(r"([0-9]{1,9})/([0-9]{1,5})")


class Scope(enum.Enum):
    """The permission that a route requires; none includes another."""

    PUBLIC = "public"
    """None: probes, and pages that hold no data."""
    READ = "read"
    """Read orders and everything derived from them."""
    WRITE = "write"
    """Place orders."""
    ADMIN = "admin"
    """Operate the service."""


_GRANTED = {scope.value: scope for scope in Scope if scope is not Scope.PUBLIC}


class ApiKey(NamedTuple):
    """The server's data of a key; never the key itself."""

    name: str
    """The client's name. It outlives its keys: a rotated key keeps the name, and so the idempotency
    keys; two keys of one name may be valid at the same time."""
    scopes: frozenset[Scope]
    digest: bytes
    """`digest_of(key)`."""

    @property
    def line(self) -> str:
        """The key in the form that `parse_api_keys` reads."""
        scopes = ",".join(word for word, scope in _GRANTED.items() if scope in self.scopes)
        return f"{self.name}:{scopes}:{self.digest.hex()}"


class Rate(NamedTuple):
    """At most this many requests in any window of this many seconds."""

    requests: int
    window_seconds: int


def new_api_key(name: str, scopes: Sequence[Scope]) -> tuple[str, ApiKey]:
    """Return a new key, which is stored nowhere, and the server's data of it.

    Raises:
        ValueError: the name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a name has up to 64 letters, digits, dots, dashes and underscores")
    secret = API_KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    return secret, ApiKey(name, frozenset(scopes), digest_of(secret.encode()))


def digest_of(secret: bytes) -> bytes:
    """Return the hash that identifies a key."""
    return hashlib.sha256(secret).digest()


def public_prefix(secret: bytes) -> str:
    """Return the beginning of a key, by which its owner recognizes it; empty if it is no key.

    It holds 24 of the 256 bits, which is no help in guessing the rest.
    """
    return secret[:_PUBLIC_CHARACTERS].decode() if _KEY.fullmatch(secret) else ""


def parse_scopes(text: str) -> frozenset[Scope]:
    """Return the scopes of a comma-separated list.

    Raises:
        ValueError: a scope is unknown, or the list is empty.
    """
    words = text.split(",")
    if not all(word in _GRANTED for word in words):
        raise ValueError(f"scopes are {', '.join(_GRANTED)}, with commas in between")
    return frozenset(_GRANTED[word] for word in words)


class KeyList(NamedTuple):
    """The keys of a text, and the faults of its other entries."""

    keys: Sequence[ApiKey]
    faults: Sequence[str]
    """Each gives the number of an entry and never repeats the entry."""


def read_key_list(text: str) -> KeyList:
    """Return the keys of a text: `name:scopes:hash`, with white space in between.

    A `#` after white space, or first on its line, begins a comment. Equal entries are one key.
    Different entries with the same hash are both rejected: the key would belong to two clients.
    """
    keys: dict[bytes, ApiKey] = {}
    twice: set[bytes] = set()
    faults = []
    for number, entry in enumerate(_entries(text), 1):
        name, scopes, digest = _parts(entry)
        if not (_NAME.fullmatch(name) and _DIGEST.fullmatch(digest)):
            faults.append(
                f"entry {number} is not name:scopes:hash, with the SHA-256 of the key in "
                "hexadecimal (`polyglot api-keys new` prints one)"
            )
            continue
        try:
            key = ApiKey(name, parse_scopes(scopes), bytes.fromhex(digest))
        except ValueError as error:
            faults.append(f"entry {number}: {error}")
            continue
        if keys.setdefault(key.digest, key) != key:
            twice.add(key.digest)
            faults.append(
                f"entry {number} has the hash of another entry and another name or scopes, so that "
                "neither counts"
            )
    return KeyList([key for key in keys.values() if key.digest not in twice], faults)


def listed_entries(text: str) -> Sequence[str]:
    """Return the entries of such a text, in order, with `?` for each that has no name and hash.

    `read_key_list` reads the same from these entries as from the text, and they contain no secret.
    """
    return [
        entry if _NAME.fullmatch(name) and _DIGEST.fullmatch(digest) else "?"
        for entry in _entries(text)
        for name, _, digest in [_parts(entry)]
    ]


def _entries(text: str) -> Sequence[str]:
    return re.sub(r"(?m)(?:^|(?<=\s))#.*$", "", text).split()


def _parts(entry: str) -> tuple[str, str, str]:
    """Return name, scopes and hash, as far as they are present."""
    name, _, rest = entry.partition(":")
    scopes, _, digest = rest.partition(":")
    return name, scopes, digest


def parse_api_keys(text: str) -> Sequence[ApiKey]:
    """Return the keys of a text in which every entry is valid.

    Raises:
        ValueError: names the invalid entry and its fault.
    """
    keys, faults = read_key_list(text)
    if faults:
        raise ValueError(faults[0])
    return keys


def shown_api_keys(text: str) -> str:
    """Return the text without its hashes, or stars if it is unreadable."""
    try:
        keys = parse_api_keys(text)
    except ValueError:
        return "***"
    return " ".join(f"{key.line.rpartition(':')[0]}:***" for key in keys)


def parse_rate(text: str) -> Rate:
    """Return the rate of a text like `600/60`.

    Raises:
        ValueError: the text is not a rate.
    """
    match = _RATE.fullmatch(text)
    if not match or not int(match[1]) or not int(match[2]):
        raise ValueError(f"{text!r} is not requests/seconds; e.g. 600/60")
    return Rate(int(match[1]), int(match[2]))
