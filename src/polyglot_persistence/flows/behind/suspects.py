"""Crash accounting: a row outlives an attempt only if the worker crashed during it.

```
  (no row) --begin--> row: attempts + 1 --survived--> (no row)
                        |    ^      |
                        |    |      +--cut short, the record is away--> attempts - 1, later
                        +----+
                      the worker died; the next one begins again
```

Invariant: while a suspect is attempted, this process persists nothing else, so a suspect is not
charged with a crash that another order caused.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from polyglot_persistence.errors import PolyglotError, UnknownOutcomeError
from polyglot_persistence.ports.attempts import Attempts

DEATHS_MAX = 5
"""A unit that was alone in this many crashes is condemned. Fewer may be chance: an operator, or a
machine out of memory, kills workers as well."""


class Suspects:
    """The attempts of one process at suspects."""

    def __init__(self, record: Attempts) -> None:
        self._record = record
        self._entrance = asyncio.Lock()
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._cut_short: set[str] = set()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Work concurrently with other users of `together`, and never with a user of `alone`."""
        async with self._entrance:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Work while no other task of this process does."""
        async with self._entrance:
            await self._empty.wait()
            yield

    async def deadly(self, subjects: Sequence[str]) -> frozenset[str]:
        """Return the subjects that workers have crashed on, as far as is known.

        Raises as `attempt` does.
        """
        await self._take_back()
        return await self._record.attempted(subjects)

    @asynccontextmanager
    async def attempt(self, subject: str) -> AsyncIterator[int]:
        """Yield the number of crashed attempts; a normal exit records that this one survived.

        Leaving with an error of a store records nothing about the subject.

        Raises:
            UnavailableError: the record is away; try again.
            UnknownOutcomeError: likewise.
        """
        async with self.attempts([subject]) as deaths:
            yield deaths[subject]

    @asynccontextmanager
    async def attempts(self, subjects: Sequence[str]) -> AsyncIterator[Mapping[str, int]]:
        """Yield the number of crashed attempts at each subject, as `attempt` does for one.

        Raises:
            UnavailableError: the record is away; try again.
            UnknownOutcomeError: likewise.
        """
        await self._take_back()
        try:
            attempts = await self._record.begin_attempts(subjects)
        except (UnknownOutcomeError, asyncio.CancelledError):
            self._cut_short.update(subjects)
            raise
        try:
            yield {subject: count - 1 for subject, count in attempts.items()}
            await self._record.end_attempts(subjects)
        except (PolyglotError, asyncio.CancelledError):
            self._cut_short.update(subjects)
            raise

    async def _take_back(self) -> None:
        if not self._cut_short:
            return
        subjects, self._cut_short = self._cut_short, set()
        try:
            await self._record.take_back_attempts(sorted(subjects))
        except (PolyglotError, asyncio.CancelledError):
            self._cut_short |= subjects
            raise
