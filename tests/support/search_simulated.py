"""The simulated search engine for the contract suite."""

from collections.abc import Sequence

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.domain.order import Order
from polyglot_persistence.ports.audit import SearchContents
from polyglot_persistence.ports.rebuild import RebuildTarget
from polyglot_persistence.ports.search import SearchIndex
from tests.simulation.stores.search import (
    SearchEngineServer,
    SimulatedContents,
    SimulatedSearch,
    SimulatedTarget,
)
from tests.support.search_indexes import ForgetfulEngine
from tests.support.turns import taking_turns

SHOWN_AFTER_SECONDS = 0.05
"""Short, since tests wait for it."""


class Simulated(ForgetfulEngine):
    """An engine in this process."""

    def __init__(self) -> None:
        self.server = SearchEngineServer(SystemClock(), shown_after_seconds=SHOWN_AFTER_SECONDS)
        self._processes: list[tuple[SearchIndex, SimulatedSearch]] = []
        self._kept_changes = 0

    def process(self) -> SearchIndex:
        """Return an index that can be closed alone."""
        index = SimulatedSearch(self.server)
        self._processes.append((taking_turns(index), index))
        return self._processes[-1][0]

    def contents(self) -> SearchContents:
        """Return what the current index holds."""
        return taking_turns(SimulatedContents(self.server))

    async def end(self, index: SearchIndex) -> None:
        """Close it."""
        await next(own for given, own in self._processes if given is index).close()

    async def wipe(self) -> None:
        """Remove every index."""
        self.server.wipe()

    def keep(self) -> None:
        """Count what no search shows yet."""
        self._kept_changes = self.server.pending_changes()

    async def go_back(self) -> None:
        """Restart it without what came since."""
        for _, index in self._processes:
            await index.close()
        self.server.stop()
        self.server.start(lost_changes=self.server.pending_changes() - self._kept_changes)

    async def make_foreign(self, form: int) -> None:
        """Let the current one be of another form."""
        self.server.make_foreign(form)

    async def make_version_1(self, orders: Sequence[Order]) -> None:
        """There was no simulated one."""
        raise NotImplementedError

    def target(self) -> RebuildTarget:
        """Return what builds it anew."""
        return taking_turns(SimulatedTarget(self.server))

    async def parts(self) -> int:
        """Count the indexes."""
        return len(self.server.indexes)

    async def close(self) -> None:
        """Nothing is open."""
