"""Dead letters: operator actions."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from polyglot_persistence.domain.dead_letter import (
    DeadLetterRow,
    LetterCounts,
    LetterFilter,
)
from polyglot_persistence.ports.leadership import Lead


class DeadLetters(Protocol):
    """Operator actions on dead letters. `Orders.bury` writes the letters."""

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        """Return letters with a lower id than `before`, the highest first; payloads may be cut."""

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        """Count the matching letters by stage and reason."""

    async def read(self, letter_ids: Sequence[int]) -> Sequence[DeadLetterRow]:
        """Return the existing ones of the letters, whole, by id."""

    async def of_units(self, unit_ids: Sequence[UUID]) -> Sequence[int]:
        """Return the ids of all letters of these units."""

    async def discard(self, letter_ids: Sequence[int]) -> None:
        """Delete letters, except those that another transaction is deleting."""

    async def reindex(self, letter_ids: Sequence[int]) -> None:
        """Move letters of stage index, and no others, to the outbox in one transaction."""

    def turn(self) -> AbstractAsyncContextManager[Lead]:
        """Wait for the exclusive right, among all processes, to replay or discard.

        Raises:
            UnavailableError: the lock was not released in time.
        """
