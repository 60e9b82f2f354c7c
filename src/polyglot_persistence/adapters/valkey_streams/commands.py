"""What the queue needs of a connection to Valkey; the composition root gives it one.

Invariant: adapters do not import one another, so this is a protocol, not a class of the cache's.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from polyglot_persistence.errors import PolyglotError

Argument = bytes | str | int | float


class Commands(Protocol):
    """Executes commands; bytes, int, list or None come back.

    An error reply is raised as an `UnavailableError` with the server's code in `code`; a command
    that was sent and not answered, as an `UnknownOutcomeError`.
    """

    async def execute(self, *arguments: Argument) -> Any:
        """Return the reply to one command."""

    async def pipeline(self, *commands: Sequence[Argument]) -> list[Any]:
        """Return the replies to commands sent together, or raise the first error among them."""

    async def close(self) -> None:
        """Close the connection for good."""


def error_code(error: PolyglotError) -> str:
    """Return the server's code if the error is its reply, else nothing."""
    code = getattr(error, "code", "")
    return code if isinstance(code, str) else ""
