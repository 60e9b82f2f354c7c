"""The `DeadLetters` port: listing, reading and removing dead letters.

Invariant: a replay holds no row lock, since the persist transaction deletes the rows itself. A
separate lock, the turn, serializes operators.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg

from polyglot_persistence.adapters.postgres.locks import SessionLead, lock_key
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.domain.dead_letter import (
    DeadLetter,
    DeadLetterRow,
    LetterCounts,
    LetterFilter,
    LetterGroup,
    Stage,
)
from polyglot_persistence.ports.leadership import Lead

GROUPS_MAX: Final = 100
"""More kinds of reasons than anybody reads."""

_ID_MAX: Final = 2**63 - 1
_TURN: Final = lock_key("dead letters")


class PostgresDeadLetters:
    """The dead letters over a pool; a turn takes a connection of its own."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        """A payload is cut to 1,000 bytes."""
        below = _ID_MAX if before is None else before
        records = await self._pool.read("dead_letters", below, *_arguments(chosen), letters_max)
        return [dead_letter_row(record) for record in records]

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        """Reads every letter: about a second for a million."""
        records = await self._pool.read("dead_letter_groups", *_arguments(chosen), GROUPS_MAX)
        groups = [
            LetterGroup(Stage(r["stage"]), r["reason"], r["letters"], r["last_at"]) for r in records
        ]
        return LetterCounts(records[0]["total"] if records else 0, groups)

    async def read(self, letter_ids: Sequence[int]) -> Sequence[DeadLetterRow]:
        records = await self._pool.read("dead_letters_by_ids", letter_ids)
        return [dead_letter_row(record) for record in records]

    async def of_units(self, unit_ids: Sequence[UUID]) -> Sequence[int]:
        records = await self._pool.read("dead_letters_of_units", unit_ids)
        return [record["id"] for record in records]

    async def discard(self, letter_ids: Sequence[int]) -> None:
        await self._pool.write("discard", letter_ids)

    async def reindex(self, letter_ids: Sequence[int]) -> None:
        await self._pool.write("reindex", letter_ids)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Lead]:
        """Waits up to a statement's deadline; first come, first served."""
        async with self._pool.dedicated() as session:
            await session.fetch("take_turn", _TURN)
            yield SessionLead(session)


def dead_letter_row(record: asyncpg.Record) -> DeadLetterRow:
    """Return the dead letter of a row; its id is the column `dead_id`."""
    letter = DeadLetter(
        record["order_id"],
        record["unit_id"],
        record["payload"],
        record["reason"],
        Stage(record["stage"]),
        record["attempts"],
    )
    return DeadLetterRow(record["dead_id"], letter, record["first_at"], record["last_at"])


def _arguments(chosen: LetterFilter) -> Sequence[object]:
    return (
        chosen.reason,
        None if chosen.stage is None else chosen.stage.value,
        chosen.order_id,
        chosen.unit_id,
        chosen.since,
        chosen.until,
    )
