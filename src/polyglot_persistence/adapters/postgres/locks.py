"""Advisory locks by name. They are per database, so that several installations share a server."""

import hashlib


def lock_key(name: str) -> int:
    """Return the advisory lock's key that stands for a name in this project."""
    digest = hashlib.sha256(f"polyglot-persistence {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
