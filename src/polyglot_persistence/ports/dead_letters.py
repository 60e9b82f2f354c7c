"""Dead letters, as an operator handles them."""

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
    """What operators do with the dead letters. `Orders.bury` writes them."""

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        """Return letters with a lower id than `before`, the highest first; payloads may be cut."""

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        """Return how many letters match, by stage and reason."""

    async def read(self, letter_ids: Sequence[int]) -> Sequence[DeadLetterRow]:
        """Return those of the letters that are there, whole, by id."""

    async def of_units(self, unit_ids: Sequence[UUID]) -> Sequence[int]:
        """Return the ids of all letters of these units."""

    async def discard(self, letter_ids: Sequence[int]) -> None:
        """Delete letters. One that is just being deleted by others is left to them."""

    async def reindex(self, letter_ids: Sequence[int]) -> None:
        """Move letters of stage index, and no others, to the outbox in one transaction."""

    def turn(self) -> AbstractAsyncContextManager[Lead]:
        """Wait to be the only one, of all processes, who replays or discards.

        Raises:
            UnavailableError: another is at it for too long.
        """
