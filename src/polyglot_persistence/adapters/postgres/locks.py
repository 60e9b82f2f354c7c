"""Advisory locks by name, per database, so that several installations can share a server."""

import hashlib

from polyglot_persistence.adapters.postgres.pool import Session


def lock_key(name: str) -> int:
    """Return the key of the advisory lock for a name in this project."""
    digest = hashlib.sha256(f"polyglot-persistence {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class SessionLead:
    """A role held by a session lock."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def confirm(self) -> None:
        """Any answer proves it: the session holds the lock."""
        await self._session.fetch("confirm_lead")
