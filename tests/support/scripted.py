"""Ports that answer as a test tells them: for the outcomes that no real server gives on demand.

Everything that a real server can be made to do is tested against the real server.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.cache import AcceptReply, Backlog, CacheRead, Settled, Unit
from polyglot_persistence.ports.queue import Message


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


class ScriptedCache:
    """A cache with real entries, whose `accept` can be made to fail before or after its effect."""

    def __init__(self, *, durable: bool = True) -> None:
        self.entries: dict[UUID, bytes] = {}
        self.epoch: str | None = "1"
        self.reign = "reign"
        self.evicts_dirty = False
        self.is_replicated = True
        self.times_asked_to_survive = 0
        self.token: str | None = None
        self.durable = durable
        self.error: Exception | None = None
        self.settled: list[Settled] = []

    async def accept(self, units: Sequence[Unit]) -> AcceptReply:
        if self.error is not None:
            raise self.error
        found: dict[UUID, bytes] = {}
        for unit in units:
            ids = [member.accepted.order.id for member in unit.members]
            there = {i: self.entries[i] for i in ids if i in self.entries}
            found |= there
            if not there:
                for accepted, body in unit.members:
                    raw = codec.encode_entry(EntryState.DIRTY, accepted, body)
                    self.entries[accepted.order.id] = raw
        return AcceptReply(found, len(self.entries), self.durable, self.reign)

    async def read(self, ids: Sequence[UUID]) -> CacheRead:
        if self.error is not None:
            raise self.error
        return CacheRead([self.entries.get(i) for i in ids], self.epoch, self.reign)

    async def reigns(self, reign: str) -> bool:
        if self.error is not None:
            raise self.error
        return reign == self.reign and not self.evicts_dirty

    async def survives_failover(self, reign: str) -> bool:
        self.times_asked_to_survive += 1
        return reign == self.reign and self.is_replicated

    async def backlog(self) -> Backlog:
        if self.error is not None:
            raise self.error
        return Backlog(len([raw for raw in self.entries.values() if raw[:1] == b"D"]), None)

    async def backfill(self, orders: Sequence[AcceptedOrder]) -> None:
        for accepted in orders:
            body = codec.encode_order(accepted.order)
            raw = codec.encode_entry(EntryState.CLEAN, accepted, body)
            self.entries.setdefault(accepted.order.id, raw)

    async def settle(self, settled: Sequence[Settled]) -> None:
        if self.error is not None:
            raise self.error
        self.settled += settled
        for state, accepted, _ in settled:
            body = codec.encode_order(accepted.order)
            self.entries[accepted.order.id] = codec.encode_entry(state, accepted, body)

    async def begin_warming(self, token: str) -> None:
        if self.error is not None:
            raise self.error
        self.token, self.epoch = token, None

    async def end_warming(self) -> None:
        if self.error is not None:
            raise self.error
        self.token = None

    async def copy_epoch(self, epoch: str, token: str, reign: str) -> bool:
        if self.token != token:
            return False
        if reign == self.reign:
            self.epoch = epoch
        return True

    def begin_reign(self, reign: str) -> None:
        """Be another server, with the same entries, as after a restart or a failover."""
        self.reign, self.epoch = reign, None


class ScriptedQueue:
    """A queue that remembers what was published, or raises what it is told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.published: list[Message] = []
        self.before_publish: Callable[[], None] = lambda: None
        self.ready_messages: int | Exception = 0
        self.silence_seconds = 0.0

    @property
    def orders(self) -> list[AcceptedOrder]:
        return [one for m in self.published for one in codec.decode_message(m.body).orders]

    async def publish(self, message: Message) -> None:
        self.before_publish()
        if self.error is not None:
            raise self.error
        self.published.append(message)

    def unseen_seconds_max(self, hold_seconds: float) -> float:
        return hold_seconds + self.silence_seconds

    async def ready(self) -> int:
        if isinstance(self.ready_messages, Exception):
            raise self.ready_messages
        return self.ready_messages
