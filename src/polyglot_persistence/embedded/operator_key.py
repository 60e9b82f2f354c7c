"""The API key by which the owner of a `polyglot up` operates it, in its data directory.

A file that only the owner can read proves who asks. An address does not: whatever reaches the port
by a proxy on this machine has the same one.
"""

import os
from pathlib import Path

from polyglot_persistence.domain.access import ApiKey, Scope, digest_of, new_api_key
from polyglot_persistence.errors import ConfigurationError

FILE = "operator.key"
NAME = "operator"

_SCOPES = (Scope.READ, Scope.WRITE, Scope.ADMIN)
_SECRET_BYTES_MAX = 256


def operator_key(data_dir: Path) -> tuple[str, ApiKey]:
    """Return the key and what the API is to know of it; make the file if there is none.

    Raises:
        ConfigurationError: the file cannot be read or written, or holds no key.
    """
    path = data_dir / FILE
    try:
        secret = _read(path)
        if secret is None:
            secret, _ = new_api_key(NAME, _SCOPES)
            _write(path, secret)
    except OSError as error:
        raise ConfigurationError(f"cannot use {path}: {error.strerror}") from error
    if not secret:
        raise ConfigurationError(
            f"{path} is empty; delete it, and the next start makes another key"
        )
    return secret, ApiKey(NAME, frozenset(_SCOPES), digest_of(secret.encode()))


def _read(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        return file.read(_SECRET_BYTES_MAX).strip()


def _write(path: Path, secret: str) -> None:
    """Write the file whole or not at all."""
    new = path.with_name(f"{FILE}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secret}\n")
    new.replace(path)
