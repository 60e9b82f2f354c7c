"""The cache port over a simulated Valkey: what the Lua scripts do, each in one step."""

import contextlib
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from polyglot_persistence.adapters.redis.cache import pieces
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.history import Position
from polyglot_persistence.domain.order import AcceptedOrder, from_micros, to_micros
from polyglot_persistence.errors import PoisonError, UnavailableError
from polyglot_persistence.ports.audit import CachePart
from polyglot_persistence.ports.cache import AcceptReply, Backlog, CacheRead, Settled, Unit
from polyglot_persistence.ports.state import StoreState, StoreWarning
from tests.simulation.stores.valkey import (
    ONLY,
    REPLICATED_SECONDS,
    Replicated,
    Session,
    ValkeyAddress,
    ValkeyServer,
    Value,
)

CLEAN_TTL_SECONDS = 86_400

_SETTLED = (EntryState.CLEAN.value, EntryState.DEAD.value)
_KNOWN = (EntryState.DIRTY.value, *_SETTLED)
TOKEN = "token"
_FENCE = "fence"
_COMPARED = "compared"

SETTLE_ORDERS_MAX = 500
"""As the adapter does it: the end of a log may be lost between two pieces."""


class SimulatedCache:
    """`ports.Cache` and `CacheContents` of one process."""

    def __init__(
        self, address: ValkeyAddress, *, clean_ttl_seconds: int = CLEAN_TTL_SECONDS
    ) -> None:
        self._session = Session(address)
        self._clean_ttl_seconds = clean_ttl_seconds

    async def accept(self, units: Sequence[Unit]) -> AcceptReply:
        """Store units, first those of one member."""
        found: dict[UUID, bytes] = {}
        with self._session.writing(takes_memory=True) as server:
            for unit in sorted(units, key=lambda unit: len(unit.members) > 1):
                ids = [member.accepted.order.id for member in unit.members]
                there = {i: raw for i in ids if (raw := server.entry(i)) is not None}
                found.update(there)
                if there:
                    continue
                score = to_micros(unit.members[0].accepted.accepted_at)
                raws = codec.encode_entries(EntryState.DIRTY, unit.members)
                for order_id, raw in zip(ids, raws, strict=True):
                    server.entries.put(order_id, Value(raw, None))
                    server.dirty.put(order_id, score)
            backlog = len(server.dirty)
        return AcceptReply(found, backlog, self._session.is_durable, self._session.reign)

    async def read(self, ids: Sequence[UUID]) -> CacheRead:
        """Read as whoever met the server under its reign then, whatever it is now."""
        server = self._session.server()
        reign = self._session.reign
        copy = server.copies.get(reign)
        return CacheRead([server.entry(i) for i in ids], copy, reign, server.had_replicas)

    async def backfill(self, orders: Sequence[AcceptedOrder]) -> None:
        """Store clean entries where there are none."""
        if not orders:
            return
        with self._session.writing(takes_memory=True) as server:
            for one in orders:
                if server.entry(one.order.id) is None:
                    server.entries.put(one.order.id, self._expiring(server, EntryState.CLEAN, one))

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Overwrite what may be overwritten, and unmark what is dirty no more; in pieces."""
        for piece in pieces(settled, SETTLE_ORDERS_MAX):
            with self._session.writing() as server:
                for one in piece:
                    self._settle(server, one)

    async def forget_dead(self, ids: Sequence[UUID]) -> None:
        """Remove dead-lettered entries."""
        with self._session.writing() as server:
            for order_id in ids:
                raw = server.entry(order_id)
                if raw is not None and raw[:1] == EntryState.DEAD.value:
                    server.entries.remove(order_id)

    async def dirty_before(self, bound: datetime, orders_max: int) -> Sequence[Entry]:
        """Return the oldest; whole units, since their members share their score."""
        server = self._session.server()
        end = to_micros(bound)
        marks = sorted((score, i) for i, score in server.dirty.items() if score < end)
        while marks:
            last = marks[:orders_max][-1][0]
            page = [mark for n, mark in enumerate(marks) if n < orders_max or mark[0] == last]
            entries = self._dirty_entries(server, [order_id for _, order_id in page])
            if entries or len(page) == len(marks):
                return entries
            marks = marks[len(page) :]
        return []

    async def backlog(self) -> Backlog:
        """Return the dirty set's size and its lowest score."""
        marks = self._session.server().dirty
        return Backlog(len(marks), from_micros(min(marks.values())) if marks else None)

    async def reigns(self, reign: str, epoch: str | None) -> bool:
        """Ask the server itself, not what was learnt when it was met."""
        server = self._session.server()
        is_primary = server.is_primary and server.reign == reign
        return is_primary and not server.evicts_dirty and server.copies.get(reign) == epoch

    async def survives_failover(self, reign: str) -> bool:
        """Wait for all replicas, those included that were seen and have left."""
        server = self._session.server()
        if not (server.is_primary and server.is_durable and server.reign == reign):
            return False
        seen, replicas = server.replicas_seen, server.connected_replicas
        if not (seen or replicas or server.had_replicas):
            return True
        try:
            with self._session.writing(takes_memory=True) as writable:
                writable.tokens.put(_FENCE, "")
        except UnavailableError:
            return False
        return server.wait() >= max(seen, replicas, 1)

    async def begin_warming(self, token: str) -> None:
        """Store the token and remove the copy."""
        with self._session.writing() as server:
            server.tokens.put(TOKEN, token)
            server.copies.remove(self._session.reign)

    async def end_warming(self) -> None:
        """Remove the token."""
        with self._session.writing() as server:
            server.tokens.remove(TOKEN)

    async def copy_epoch(self, epoch: str, token: str, reign: str) -> bool:
        """Store the copy if the token is there."""
        with self._session.writing() as server:
            if server.tokens.get(TOKEN) != token:
                return False
            server.copies.put(reign, epoch)
        return True

    async def ping(self) -> StoreState:
        """Learn anew what the server is; one that may evict dirty entries loses the copy."""
        server = self._session.server()
        self._session.meet(server)
        if server.evicts_dirty:
            with self._session.writing() as writable:
                writable.tokens.remove(TOKEN)
                writable.copies.remove(self._session.reign)
        self._note_replicas(server)
        warnings = []
        if server.fsync != "always":
            warnings.append(StoreWarning(f"appendfsync is {server.fsync}", "set it to always"))
        if server.evicts_dirty:
            warnings.append(StoreWarning(f"maxmemory-policy {server.policy} may evict"))
        return StoreState("Simulated Valkey 1", tuple(warnings))

    async def scan(self, cursor: int, entries_max: int) -> CachePart:
        """Return entries by id; the cursor is where the next one's number begins."""
        server = self._session.server()
        ids = sorted(i for i in server.entries if i.int >= cursor)
        page = ids[:entries_max]
        following = page[-1].int + 1 if len(ids) > len(page) else 0
        return CachePart(
            following, [(i, raw) for i in page if (raw := server.entry(i)) is not None]
        )

    async def compared_to(self) -> Position | None:
        """Return what `keep_compared_to` stored."""
        text = self._session.server().tokens.get(_COMPARED)
        return None if text is None else Position.decode(text)

    async def keep_compared_to(self, position: Position) -> None:
        """Store it among the entries."""
        with self._session.writing(takes_memory=True) as server:
            server.tokens.put(_COMPARED, position.encode())

    def cut(self) -> None:
        """End the connection: the next call goes to whatever the address means then."""
        self._session.drop()

    def _note_replicas(self, server: ValkeyServer) -> None:
        replicas = server.connected_replicas
        if replicas and replicas >= server.replicas_seen:  # else one has left
            seen = Replicated(replicas, server.clock.monotonic() + REPLICATED_SECONDS)
            with (
                contextlib.suppress(UnavailableError),
                self._session.writing(takes_memory=True) as writable,
            ):
                writable.replicated.put(ONLY, seen)

    def _settle(self, server: ValkeyServer, settled: Settled) -> None:
        state, accepted, decided = settled
        order_id = accepted.order.id
        raw = server.entry(order_id)
        if raw is not None and raw[:1] not in _KNOWN:
            return
        is_dirty = raw is not None and raw[:1] == EntryState.DIRTY.value
        if raw is None:
            overwrites = state is EntryState.CLEAN
        elif is_dirty:
            mine = (one for one in (accepted, decided) if one is not None)
            overwrites = raw.partition(b"\n")[2] in {codec.encode_order(one.order) for one in mine}
        else:
            overwrites = raw[:1] == EntryState.DEAD.value or state is EntryState.CLEAN
        if overwrites:
            server.entries.put(order_id, self._expiring(server, state, accepted))
        if overwrites or not is_dirty:
            server.dirty.remove(order_id)

    def _dirty_entries(self, server: ValkeyServer, ids: Sequence[UUID]) -> list[Entry]:
        entries, strays = [], []
        for order_id in ids:
            raw = server.entry(order_id)
            if raw is None or raw[:1] in _SETTLED:
                strays.append(order_id)
                continue
            try:
                entries.append(codec.decode_entry(raw))
            except PoisonError:
                continue  # a newer version's: it stays dirty
        if strays:
            with self._session.writing():
                for order_id in strays:
                    server.dirty.remove(order_id)
        return entries

    def _expiring(self, server: ValkeyServer, state: EntryState, one: AcceptedOrder) -> Value:
        raw = codec.encode_entry(state, one, codec.encode_order(one.order))
        return Value(raw, server.clock.monotonic() + self._clean_ttl_seconds)
