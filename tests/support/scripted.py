"""Simulated stores with the outcomes that no real server gives on demand, as a test tells them.

Everything that a real server can be made to do is tested against the real server.
"""

import asyncio
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.cache import Settled
from polyglot_persistence.ports.queue import Message
from tests.simulation.stores.cache import TOKEN, SimulatedCache
from tests.simulation.stores.journal import Table
from tests.simulation.stores.streams import SimulatedStreams
from tests.simulation.stores.valkey import Session, ValkeyAddress, ValkeyServer, Value


class FakeClock:
    """A clock that moves only when it is told to, or by what sleeps on it."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        self.seconds += seconds

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


class Entries(MutableMapping[UUID, bytes]):
    """The raw entries of a simulated cache, as a test sees and changes them."""

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server

    def __getitem__(self, order_id: UUID) -> bytes:
        return self._server.entries[order_id].raw

    def __setitem__(self, order_id: UUID, raw: bytes) -> None:
        with self._server.effect():
            self._server.entries.put(order_id, Value(raw, None))

    def __delitem__(self, order_id: UUID) -> None:
        with self._server.effect():
            self._server.entries.remove(order_id)

    def __iter__(self) -> Iterator[UUID]:
        return iter(list(self._server.entries))

    def __len__(self) -> int:
        return len(self._server.entries)


class FailingSession(Session):
    """A session that fails with the error that a test sets, whatever is called."""

    error: Exception | None = None

    def server(self) -> ValkeyServer:
        if self.error is not None:
            raise self.error
        return super().server()


class ScriptedCache(SimulatedCache):
    """The simulated cache, which passes the contract tests; a test can make it fail."""

    def __init__(self, *, durable: bool = True) -> None:
        self._valkey = ValkeyServer(FakeClock(), fsync="always" if durable else "everysec")
        address = ValkeyAddress(self._valkey)
        super().__init__(address)
        self._session: FailingSession = FailingSession(address)
        self.entries = Entries(self._valkey)
        self.is_replicated = True
        self.times_asked_to_survive = 0
        self.settled: list[Settled] = []

    @property
    def error(self) -> Exception | None:
        """What every call raises."""
        return self._session.error

    @error.setter
    def error(self, error: Exception | None) -> None:
        self._session.error = error

    @property
    def epoch(self) -> str | None:
        """The copy of the epoch, for the reign of now."""
        return self._valkey.copies.get(self._valkey.reign)

    @epoch.setter
    def epoch(self, epoch: str | None) -> None:
        self._keep(self._valkey.copies, self._valkey.reign, epoch)

    @property
    def token(self) -> str | None:
        """The token of a cold time."""
        return self._valkey.tokens.get(TOKEN)

    @token.setter
    def token(self, token: str | None) -> None:
        self._keep(self._valkey.tokens, TOKEN, token)

    @property
    def evicts_dirty(self) -> bool:
        """Whether the server's policy may evict a dirty entry."""
        return self._valkey.evicts_dirty

    @evicts_dirty.setter
    def evicts_dirty(self, evicts: bool) -> None:
        self._valkey.policy = "allkeys-lru" if evicts else "volatile-ttl"

    async def survives_failover(self, reign: str) -> bool:
        self.times_asked_to_survive += 1
        return self.is_replicated and await super().survives_failover(reign)

    async def settle(self, settled: Sequence[Settled]) -> None:
        await super().settle(settled)
        self.settled += settled

    def be_replicated(self) -> None:
        """Have a replica from now on."""
        ValkeyServer(self._valkey.clock, "replica").replicate(self._valkey)

    def begin_reign(self) -> None:
        """Be another server, with the same entries, as after a restart."""
        self._valkey.stop()
        self._valkey.start()

    def _keep(self, table: Table[str, str], key: str, value: str | None) -> None:
        with self._valkey.effect():
            if value is None:
                table.remove(key)
            else:
                table.put(key, value)


class ScriptedQueue(SimulatedStreams):
    """The simulated queue, which passes the contract tests; a test can make it fail."""

    def __init__(self) -> None:
        self._valkey = ValkeyServer(FakeClock())
        super().__init__(ValkeyAddress(self._valkey), "scripted")
        self.error: Exception | None = None
        self.before_publish: Callable[[], None] = lambda: None
        self.ready_messages: int | Exception = 0
        self.silence_seconds = 0.0

    @property
    def published(self) -> list[Message]:
        """Everything that was published."""
        return list(self._valkey.messages.values())

    @property
    def orders(self) -> list[AcceptedOrder]:
        """All orders of that."""
        return [one for m in self.published for one in codec.decode_message(m.body).orders]

    async def publish(self, message: Message) -> None:
        self.before_publish()
        if self.error is not None:
            raise self.error
        await super().publish(message)

    def unseen_seconds_max(self, hold_seconds: float) -> float:
        return super().unseen_seconds_max(hold_seconds) + self.silence_seconds

    async def ready(self) -> int:
        """As told: what is published here no worker takes."""
        if isinstance(self.ready_messages, Exception):
            raise self.ready_messages
        return self.ready_messages
