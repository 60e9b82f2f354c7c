"""The record's history: shows whether commits were lost."""

from typing import Protocol

from polyglot_persistence.domain.history import Position


class RecordHistory(Protocol):
    """The position of the record in its history."""

    async def position(self) -> Position:
        """Return the current position; every commit that was confirmed before precedes it.

        A promoted standby, a database recovered to a moment in the past, and one that was created
        anew have another branch. A database that was set back on its own branch is behind.
        """
