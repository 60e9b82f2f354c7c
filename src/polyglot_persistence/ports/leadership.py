"""Leadership: one process at a time holds a role."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Lead(Protocol):
    """A role held by this process alone."""

    async def confirm(self) -> None:
        """Return if this process still holds the role.

        Raises:
            UnavailableError: another process may hold it by now; leave the context.
        """


class Leadership(Protocol):
    """Roles, each held by one process at a time."""

    def lead(self, role: str) -> AbstractAsyncContextManager[Lead | None]:
        """Try to hold a role exclusively (advisory lock); yield None if another process does.

        The role lasts as long as the context and the connection behind it.
        """
