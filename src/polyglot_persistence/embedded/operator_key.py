"""The API key by which the owner of a `polyglot up` operates it, in its data directory.

A file that only the owner can read proves who asks. An address does not: whatever reaches the port
by a proxy on this machine has the same one.
"""

from polyglot_persistence.domain.access import ApiKey, Scope, digest_of, new_api_key
from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.errors import ConfigurationError

FILE = "operator.key"
NAME = "operator"

_SCOPES = (Scope.READ, Scope.WRITE, Scope.ADMIN)
_SECRET_BYTES_MAX = 256


def operator_key(data: Directory) -> tuple[str, ApiKey]:
    """Return the key and what the API is to know of it; make the file if there is none.

    Raises:
        ConfigurationError: the file cannot be read or written, or holds no key.
    """
    path = data.path / FILE
    try:
        text = data.read(FILE, _SECRET_BYTES_MAX)
        if text is None:
            secret, _ = new_api_key(NAME, _SCOPES)
            data.write(FILE, f"{secret}\n")
        else:
            secret = text.decode("ascii", errors="replace").strip()
    except OSError as error:
        raise ConfigurationError(f"cannot use {path}: {error.strerror}") from error
    if not secret:
        raise ConfigurationError(
            f"{path} is empty; delete it, and the next start makes another key"
        )
    return secret, ApiKey(NAME, frozenset(_SCOPES), digest_of(secret.encode()))
