"""Crash accounting in the record, so that the counts survive a worker's crash."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Attempts(Protocol):
    """How often a worker began an attempt at a subject and is not known to have survived it."""

    async def attempted(self, subjects: Sequence[str]) -> frozenset[str]:
        """Return the subjects with an attempt that is not known to be survived."""

    async def begin_attempts(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """Count one more attempt at each suspect; return the counts.

        A count survives the caller's crash, but perhaps not a simultaneous crash of PostgreSQL.
        """

    async def take_back_attempts(self, subjects: Sequence[str]) -> None:
        """Undo `begin_attempts` for an attempt that was interrupted without a crash."""

    async def end_attempts(self, subjects: Sequence[str]) -> None:
        """Delete the attempts at subjects that survived one, and all older than a day."""
