"""The queue's view of a connection to Valkey; the composition root provides one.

Invariant: adapters do not import one another, so this is a protocol, not a class of the cache's.
"""

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from polyglot_persistence.errors import PolyglotError, UnavailableError, UnknownOutcomeError

Argument = bytes | str | int | float


class Commands(Protocol):
    """Executes commands; returns bytes, int, list or None.

    An error reply raises an `UnavailableError` with the server's code in `code`; a command without
    a reply raises an `UnknownOutcomeError`.
    """

    async def execute(self, *arguments: Argument) -> Any:
        """Return the reply to one command."""

    async def pipeline(self, *commands: Sequence[Argument]) -> list[Any]:
        """Return the replies to commands sent together, or raise the first error among them."""

    async def close(self) -> None:
        """Close the connection for good."""


def error_code(error: PolyglotError) -> str:
    """Return the server's code if the error is its reply, else an empty string."""
    code = getattr(error, "code", "")
    return code if isinstance(code, str) else ""


async def without_effect(call: Awaitable[Any]) -> Any:
    """Return the reply to a command that may be repeated: without a reply it is as if not sent."""
    try:
        return await call
    except UnknownOutcomeError as error:
        raise UnavailableError(str(error)) from error
