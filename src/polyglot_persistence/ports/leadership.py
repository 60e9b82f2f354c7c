"""Leadership: one process at a time has a role."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Lead(Protocol):
    """A role that this process has, alone."""

    async def confirm(self) -> None:
        """Return if the role is still this process's.

        Raises:
            UnavailableError: it may be another's by now; leave the context.
        """


class Leadership(Protocol):
    """Roles that one process at a time has."""

    def lead(self, role: str) -> AbstractAsyncContextManager[Lead | None]:
        """Try to be the only process in a role (advisory lock); yield None if another is.

        The role lasts as long as the context and the connection behind it.
        """
