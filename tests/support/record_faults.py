"""A record and its standby under faults, really and simulated."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.ports.record import Record
from tests.simulation.stores.orders import SimulatedOrders
from tests.simulation.stores.record import RecordServer
from tests.support.record import onlooker, pool_on
from tests.support.standby import Pair, pair_of_servers


class FaultyRecord(ABC):
    """A migrated primary, and a standby that follows it."""

    @abstractmethod
    def store(self) -> Record:
        """Return the record as another process would have it."""

    @abstractmethod
    async def cut_off(self) -> None:
        """Let the standby have everything until now, and nothing more."""

    @abstractmethod
    async def fail_over(self) -> None:
        """Kill the primary and promote the standby."""

    @abstractmethod
    async def stop(self) -> None:
        """Take the primary away."""

    @abstractmethod
    async def start(self) -> None:
        """Give it back."""

    @abstractmethod
    async def cut_sessions(self) -> None:
        """End every connection of the program's, as an administrator would."""

    @abstractmethod
    async def refuse_writes(self) -> None:
        """Make every session read-only by default, the present ones too."""


class RealRecord(FaultyRecord):
    """PostgreSQL twice."""

    def __init__(self, pair: Pair, pool: PostgresPool) -> None:
        self._pair = pair
        self._pool = pool

    def store(self) -> Record:
        return PostgresRecord(self._pool)

    async def cut_off(self) -> None:
        await self._pair.caught_up()
        await self._pair.cut_off()

    async def fail_over(self) -> None:
        await self._pair.primary.killed()
        await self._pair.standby.promote()

    async def stop(self) -> None:
        await self._pair.primary.stop()

    async def start(self) -> None:
        await self._pair.primary.start()

    async def cut_sessions(self) -> None:
        async with onlooker(self._pair.primary.dsn) as seen:
            await seen.rows(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    async def refuse_writes(self) -> None:
        async with onlooker(self._pair.primary.dsn) as seen:
            await seen.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await seen.execute("SELECT pg_reload_conf()")
        await self.cut_sessions()


class SimulatedFaultyRecord(FaultyRecord):
    """The same of a simulated server."""

    def __init__(self) -> None:
        self._server = RecordServer(SystemClock())
        self._standby_has = 0

    def store(self) -> Record:
        return SimulatedOrders(self._server)

    async def cut_off(self) -> None:
        self._standby_has = len(self._server.journal.effects)

    async def fail_over(self) -> None:
        lost = len(self._server.journal.effects) - self._standby_has
        self._server.fail_over(lost_effects=lost)

    async def stop(self) -> None:
        self._server.stop()

    async def start(self) -> None:
        self._server.start()

    async def cut_sessions(self) -> None:
        self._server.cut_sessions()

    async def refuse_writes(self) -> None:
        self._server.is_read_only = True


@asynccontextmanager
async def real_record(stopped: Path) -> AsyncIterator[FaultyRecord]:
    """Yield a primary and a standby, made of a copy of a stopped server."""
    async with pair_of_servers(stopped) as pair, pool_on(pair.dsn) as pool:
        yield RealRecord(pair, pool)
