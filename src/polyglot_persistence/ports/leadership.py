"""Leadership: one process at a time has a role."""

from typing import Protocol


class Lead(Protocol):
    """A role that this process has, alone."""

    async def confirm(self) -> None:
        """Return if the role is still this process's.

        Raises:
            UnavailableError: it may be another's by now; leave the context.
        """
