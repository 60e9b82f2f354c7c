"""Attempts at what may kill its worker, counted in the record so that the count survives it."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Attempts(Protocol):
    """How often a worker began with a subject and is not known to have survived it."""

    async def attempted(self, subjects: Sequence[str]) -> frozenset[str]:
        """Return those of the subjects of which an attempt is not known to be survived."""

    async def begin_attempts(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """Count one more attempt at what may kill its worker; return how many there are now.

        It outlives the caller's death, but perhaps not one of PostgreSQL at the same moment.
        """

    async def take_back_attempts(self, subjects: Sequence[str]) -> None:
        """Count one attempt less: whoever made it lives, and it was cut short all the same."""

    async def end_attempts(self, subjects: Sequence[str]) -> None:
        """Forget all attempts, for one was survived; and those of anything older than a day."""
