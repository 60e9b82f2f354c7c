"""The dead letters port over a simulated PostgreSQL."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from polyglot_persistence.domain.dead_letter import (
    DeadLetterRow,
    LetterCounts,
    LetterFilter,
    LetterGroup,
    Stage,
)
from polyglot_persistence.ports.leadership import Lead
from tests.simulation.stores.orders import SimulatedLead
from tests.simulation.stores.record import OutboxRow, RecordServer

GROUPS_MAX = 100
PAYLOAD_BYTES_MAX = 1_000
TURN_SECONDS_MAX = 5.0

_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NUMBER = re.compile(r"(byte|character|column|position) \d+")


class SimulatedDeadLetters:
    """`ports.DeadLetters` of one process."""

    def __init__(self, record: RecordServer, *, turn_seconds_max: float = TURN_SECONDS_MAX) -> None:
        self._record = record
        self._turn_seconds_max = turn_seconds_max

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        """Return the latest that match; of a payload its beginning."""
        rows = [row for row in self._chosen(chosen) if before is None or row.id < before]
        return [
            row._replace(letter=row.letter._replace(payload=row.letter.payload[:PAYLOAD_BYTES_MAX]))
            for row in sorted(rows, key=lambda row: -row.id)[:letters_max]
        ]

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        """Count by stage and reason, where ids and positions make no difference."""
        rows = self._chosen(chosen)
        groups: dict[tuple[Stage, str], tuple[int, datetime]] = {}
        for row in rows:
            reason = _NUMBER.sub(r"\1 <n>", _ID.sub("<id>", row.letter.reason))
            letters, last_at = groups.get((row.letter.stage, reason), (0, row.last_at))
            groups[row.letter.stage, reason] = letters + 1, max(last_at, row.last_at)
        counted = [
            LetterGroup(stage, reason, letters, last_at)
            for (stage, reason), (letters, last_at) in groups.items()
        ]
        counted.sort(key=lambda group: (-group.letters, group.stage.value, group.reason))
        return LetterCounts(len(rows), counted[:GROUPS_MAX])

    async def read(self, letter_ids: Sequence[int]) -> Sequence[DeadLetterRow]:
        """Return letters whole."""
        self._record.reading()
        letters = self._record.letters
        return [letters[i] for i in sorted(set(letter_ids)) if i in letters]

    async def of_units(self, unit_ids: Sequence[UUID]) -> Sequence[int]:
        """Return the ids of all letters of units."""
        self._record.reading()
        rows = self._record.letters.values()
        return sorted(row.id for row in rows if row.letter.unit_id in unit_ids)

    async def discard(self, letter_ids: Sequence[int]) -> None:
        """Delete letters."""
        with self._record.transaction():
            for letter_id in letter_ids:
                self._record.letters.remove(letter_id)

    async def reindex(self, letter_ids: Sequence[int]) -> None:
        """Put the orders of letters of the index into the outbox instead."""
        record = self._record
        with record.transaction() as now:
            taken = [
                record.letters[i]
                for i in sorted(set(letter_ids))
                if i in record.letters and record.letters[i].letter.stage is Stage.INDEX
            ]
            for row in taken:
                record.letters.remove(row.id)
            ids = dict.fromkeys(row.letter.order_id for row in taken if row.letter.order_id)
            if ids:
                record.outbox.put(record.new_id(), OutboxRow(now, tuple(ids)))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Lead]:
        """Wait for the lock."""
        with self._record.session() as session:
            await self._record.lock("dead letters", session, seconds_max=self._turn_seconds_max)
            yield SimulatedLead(self._record, session)

    def _chosen(self, chosen: LetterFilter) -> list[DeadLetterRow]:
        self._record.reading()
        return [row for row in self._record.letters.values() if _matches(row, chosen)]


def _matches(row: DeadLetterRow, chosen: LetterFilter) -> bool:
    letter = row.letter
    return (
        (chosen.reason is None or chosen.reason.lower() in letter.reason.lower())
        and (chosen.stage is None or letter.stage is chosen.stage)
        and (chosen.order_id is None or letter.order_id == chosen.order_id)
        and (chosen.unit_id is None or letter.unit_id == chosen.unit_id)
        and (chosen.since is None or row.last_at >= chosen.since)
        and (chosen.until is None or row.last_at < chosen.until)
    )
