"""The simulated record, which passes the contract tests, with its tables in view of a test.

What no real server does on demand, a test adds in a subclass: the call itself stays the verified
one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from polyglot_persistence.domain.dead_letter import DeadLetter
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import StoredOrder
from tests.simulation.stores.orders import SimulatedOrders
from tests.simulation.stores.record import ONLY, RecordServer


class VisibleRecord(SimulatedOrders):
    """The record of one process, empty at first; raising the epoch can be made to fail."""

    def __init__(self, clock: Clock) -> None:
        self.server = RecordServer(clock)
        super().__init__(self.server)
        self.epoch_error: Exception | None = None
        self.epochs_raised = 0
        self.raises_epochs = asyncio.Event()
        """Raising one waits for it."""
        self.raises_epochs.set()

    @property
    def rows(self) -> Mapping[UUID, StoredOrder]:
        """All orders."""
        return self.server.orders

    @property
    def letters(self) -> Sequence[DeadLetter]:
        """All dead letters, the earliest first."""
        return [row.letter for row in self.server.letters.values()]

    @property
    def attempts(self) -> Mapping[str, int]:
        """The attempts that were not survived, by subject."""
        return {subject: one.attempts for subject, one in self.server.suspects.items()}

    def begin_epochs(self, number: int) -> str:
        """Have an epoch, as some process may have made it; return its text."""
        with self.server.transaction():
            self.server.epochs.put(ONLY, number)
        return f"{self.server.timeline}.{number}"

    async def new_epoch(self) -> str:
        if self.epoch_error is not None:
            raise self.epoch_error
        await self.raises_epochs.wait()
        self.epochs_raised += 1
        return await super().new_epoch()
