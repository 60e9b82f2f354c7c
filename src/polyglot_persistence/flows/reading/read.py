"""The read path: cache first, then the record, and 404 only when it is certain.

```
  GET -> clean orders read lately (in this process, a minute)
      -> cache: entries and epoch copy, one MGET for all concurrent readers ------> hit
      -> record: rows, dead letters and epoch, one SELECT for all concurrent misses -> row: backfill
      -> unknown: 404 if both epochs were read and are equal, and the cache still is the same
                  primary with the same copy, else 503
```

Invariant: an unknown id is never remembered; another process may accept it in the next instant.
Invariant: the epoch's copy is read before the original, so equality means that no order bypassed
the cache before the request began (see `cold_cache`).
Invariant: an entry that this version cannot read proves neither presence nor absence of its order.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetterRow
from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import id_text
from polyglot_persistence.errors import (
    NotFoundError,
    PoisonError,
    PolyglotError,
    UnavailableError,
    refused,
)
from polyglot_persistence.flows.reading.recent import RecentOrders
from polyglot_persistence.ports.cache import Cache
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import Orders, StoredOrder
from polyglot_persistence.ports.search import SearchIndex
from polyglot_persistence.runtime.batching import Coalescer
from polyglot_persistence.runtime.breaker import Breaker
from polyglot_persistence.telemetry import READS, logger

_log = logger("read")

# `labels()` costs as much as four `inc()` calls.
_READS_FROM = {
    source: READS.labels(source)
    for source in ("cache", "record", "dead_letters", "nowhere", "uncertain")
}

READS_PER_BATCH_MAX = 512
READS_WAITING_MAX = 20_000
POLL_FIRST_SECONDS = 0.005
POLL_LAST_SECONDS = 0.1


class Read(NamedTuple):
    """An order's JSON and whether the cache had it."""

    body: bytes
    hit: bool


class Fate(NamedTuple):
    """The contents of record and epoch for one id; `order` wins over `dead`."""

    order: StoredOrder | None
    dead: DeadLetterRow | None
    epoch: str


class OrderStatus(NamedTuple):
    """The stages that an order has reached, with the known times."""

    order_id: UUID
    accepted_at: datetime | None
    persisted: bool
    persisted_at: datetime | None
    searchable_at: datetime | None
    dead: DeadLetterRow | None


class _Cached(NamedTuple):
    """The cache's answer for one id."""

    raw: bytes | None
    body: bytes | None
    """The order's JSON, if there is an entry that this version can read."""
    epoch: str | None
    reign: str


CacheLookUp: TypeAlias = "asyncio.Future[_Cached | None]"
_NOT_ASKED = _Cached(None, None, None, "")


def _outcome(done: CacheLookUp) -> _Cached:
    if done.cancelled() or done.exception() is not None:
        return _NOT_ASKED
    return done.result() or _NOT_ASKED


class ReadFlow:
    """Answers for single orders."""

    def __init__(
        self,
        cache: Cache,
        record: Orders,
        search: SearchIndex,
        *,
        cache_breaker: Breaker,
        clock: Clock,
        recent: RecentOrders,
        record_timeout_seconds: float,
    ) -> None:
        self._record_timeout_seconds = record_timeout_seconds
        self._cache = cache
        self._record = record
        self._search = search
        self._cache_breaker = cache_breaker
        self._clock = clock
        self._recent = recent
        self._cached: Coalescer[UUID, _Cached] = Coalescer(
            self._fetch_cached, batch_max=READS_PER_BATCH_MAX, waiting_max=READS_WAITING_MAX
        )
        self._fates: Coalescer[UUID, Fate] = Coalescer(
            self._fetch_fates, batch_max=READS_PER_BATCH_MAX, waiting_max=READS_WAITING_MAX
        )
        self._reigns: Coalescer[tuple[str, str], bool] = Coalescer(
            self._fetch_reigns, batch_max=READS_PER_BATCH_MAX, waiting_max=READS_WAITING_MAX
        )

    def recent(self, id_text: bytes) -> bytes | None:
        """Return the order's JSON if this process read it as clean in the last seconds.

        Takes the canonical text of the id, so that a hit needs no parsing.
        """
        return self._recent.get(id_text)

    def begin(self, order_id: UUID) -> "CacheLookUp | None":
        """Begin a cache look-up for `found` or `finish` to complete; None if it would be useless.

        Avoids creating a task, which is two thirds of the cost of `get` (two of three
        microseconds). The future is shared with other readers: it must not be canceled.
        """
        if self._cache_breaker.is_open:
            return None
        try:
            return self._cached.get(order_id)
        except UnavailableError:
            return None

    def found(self, done: "CacheLookUp") -> Read | None:
        """Return the order if the finished look-up found it."""
        body = _outcome(done).body
        if body is None:
            return None
        _READS_FROM["cache"].inc()
        return Read(body, hit=True)

    async def finish(self, order_id: UUID, done: "CacheLookUp") -> Read:
        """Return an order that the finished look-up did not find; raises as `get` does."""
        return await self._read_record(order_id, _outcome(done))

    async def get(self, order_id: UUID) -> Read:
        """Return the order from memory, cache or record.

        Raises:
            NotFoundError: it certainly does not exist.
            UnavailableError: it was not found and may exist.
        """
        if (recent := self._recent.get(id_text(order_id))) is not None:
            return Read(recent, hit=True)
        cached = await self._look_in_cache(order_id)
        if cached.body is not None:
            _READS_FROM["cache"].inc()
            return Read(cached.body, hit=True)
        return await self._read_record(order_id, cached)

    async def _read_record(self, order_id: UUID, cached: _Cached) -> Read:
        fate = await self._fate(order_id)
        if fate.order is not None:
            _READS_FROM["record"].inc()
            return Read(codec.encode_order(fate.order.order), hit=False)
        if fate.dead is not None:
            _READS_FROM["dead_letters"].inc()
            return Read(_dead_body(fate.dead), hit=False)
        if not await self._is_absent(cached, fate):
            _READS_FROM["uncertain"].inc()
            raise refused("whether this order exists is not certain yet")
        _READS_FROM["nowhere"].inc()
        raise NotFoundError(f"there is no order {order_id}")

    async def _is_absent(self, cached: _Cached, fate: Fate) -> bool:
        """Return whether cache and record together prove that there is no order.

        The cache has been complete, since its epoch equals the record's, and it still is: the same
        server has the same epoch.
        """
        if cached.raw is not None or cached.epoch is None or cached.epoch != fate.epoch:
            return False
        try:
            async with asyncio.timeout(self._record_timeout_seconds):
                return bool(await asyncio.shield(self._reigns.get((cached.reign, cached.epoch))))
        except (UnavailableError, TimeoutError):
            return False

    async def known(self, ids: Sequence[UUID]) -> "Known":
        """Return all known facts about some ids; a store that is away adds nothing."""
        entries: dict[UUID, bytes] = {}
        if not self._cache_breaker.is_open:
            try:
                read = await self._cache.read(ids)
            except PolyglotError as error:
                self._cache_breaker.failed(error)
            else:
                pairs = zip(ids, read.entries, strict=True)
                entries = {i: raw for i, raw in pairs if raw is not None}
        missing = [i for i in ids if i not in entries]
        if not missing:
            return Known(entries, {}, {}, checked=True)
        try:
            async with asyncio.timeout(self._record_timeout_seconds):
                found = await self._record.find(missing)
        except (PolyglotError, TimeoutError) as error:
            _log.warning("unchecked", orders=len(missing), error=repr(error))
            return Known(entries, {}, {}, checked=False)
        return Known(entries, found.orders, found.dead, checked=True)

    async def status(self, order_id: UUID) -> OrderStatus:
        """Return the stages of an order.

        Raises:
            NotFoundError: it certainly does not exist.
            UnavailableError: that is not certain.
        """
        cached = await self._look_in_cache(order_id)
        entry = None if cached.raw is None else _readable(order_id, cached.raw)
        fate: Fate | None = None
        try:
            fate = await self._fate(order_id)
        except UnavailableError:
            if entry is None:
                raise
        if fate is None:
            clean = entry is not None and entry.state is EntryState.CLEAN
            accepted_at = entry.accepted.accepted_at if entry is not None else None
            return OrderStatus(order_id, accepted_at, clean, None, None, None)
        if fate.order is not None:
            return OrderStatus(
                order_id,
                fate.order.accepted_at,
                persisted=True,
                persisted_at=fate.order.persisted_at,
                searchable_at=await self._searchable_at(order_id),
                dead=None,
            )
        if fate.dead is None and entry is None:
            if not await self._is_absent(cached, fate):
                raise refused("whether this order exists is not certain yet")
            raise NotFoundError(f"there is no order {order_id}")
        accepted_at = entry.accepted.accepted_at if entry is not None else None
        return OrderStatus(order_id, accepted_at, False, None, None, fate.dead)

    async def wait_persisted(self, ids: Sequence[UUID], seconds: float) -> bool:
        """Return whether all are proved to be persisted within the given seconds.

        A clean entry or a row is proof. Stops early if one is dead-lettered.
        """
        deadline = self._clock.monotonic() + seconds
        pause = POLL_FIRST_SECONDS
        missing = list(ids)
        while True:
            known = await self.known(missing)
            states = {i: codec.entry_state(raw) for i, raw in known.entries.items()}
            if known.dead or EntryState.DEAD in states.values():
                return False
            missing = [
                i for i in missing if i not in known.rows and states.get(i) is not EntryState.CLEAN
            ]
            left = deadline - self._clock.monotonic()
            if not missing or left <= 0:
                return not missing
            await self._clock.sleep(min(pause, left))
            pause = min(pause * 1.5, POLL_LAST_SECONDS)

    async def page(
        self, before: tuple[datetime, UUID] | None, orders_max: int
    ) -> Sequence[StoredOrder]:
        """Return persisted orders, newest first, strictly before a position."""
        return await self._record.page(before, orders_max)

    async def drain(self) -> None:
        """Return once every look-up has been answered."""
        await self._cached.drain()
        await self._fates.drain()
        await self._reigns.drain()

    async def _look_in_cache(self, order_id: UUID) -> _Cached:
        if self._cache_breaker.is_open:
            return _NOT_ASKED
        try:
            cached = await asyncio.shield(self._cached.get(order_id))
        except UnavailableError:
            return _NOT_ASKED
        return cached or _NOT_ASKED

    async def _fate(self, order_id: UUID) -> Fate:
        """Return the record's answer, with a short deadline: a read waits less than a batch may."""
        try:
            async with asyncio.timeout(self._record_timeout_seconds):
                fate = await asyncio.shield(self._fates.get(order_id))
        except TimeoutError as error:
            raise refused("the record does not answer in time") from error
        if fate is None:
            raise refused("the record gave no answer")
        return fate

    async def _searchable_at(self, order_id: UUID) -> datetime | None:
        try:
            return await self._search.indexed_at(order_id)
        except PolyglotError:
            return None  # an unknown state is not reported as searchable

    async def _fetch_cached(self, ids: Sequence[UUID]) -> Mapping[UUID, _Cached]:
        try:
            read = await self._cache.read(ids)
        except PolyglotError as error:
            self._cache_breaker.failed(error)
            raise
        self._recent.epoch_seen(read.epoch)
        answers = {}
        for order_id, raw in zip(ids, read.entries, strict=True):
            body = None if raw is None else codec.entry_body(raw)
            answers[order_id] = _Cached(raw, body, read.epoch, read.reign)
            if raw is None:
                continue
            if body is None:
                _log.error("entry_unreadable", order_id=order_id)
            elif codec.entry_state(raw) is EntryState.CLEAN:
                self._recent.remember(id_text(order_id), body)
        return answers

    async def _fetch_reigns(
        self, reigns: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], bool]:
        """Query the cache once for all waiting callers; two reigns at once mean a failover."""
        return {(reign, epoch): await self._cache.reigns(reign, epoch) for reign, epoch in reigns}

    async def _fetch_fates(self, ids: Sequence[UUID]) -> Mapping[UUID, Fate]:
        found = await self._record.find(ids)
        if found.orders and not self._cache_breaker.is_open:
            rows = found.orders.values()
            try:
                await self._cache.backfill([row.accepted() for row in rows])
            except PolyglotError as error:
                self._cache_breaker.failed(error)
        return {i: Fate(found.orders.get(i), found.dead.get(i), found.epoch) for i in ids}


class Known(NamedTuple):
    """The contents of cache and record for some ids."""

    entries: dict[UUID, bytes]
    rows: dict[UUID, StoredOrder]
    dead: dict[UUID, DeadLetterRow]
    checked: bool
    """Whether the record answered for every id that is missing from the cache."""


def _readable(order_id: UUID, raw: bytes) -> Entry | None:
    try:
        return codec.decode_entry(raw)
    except PoisonError as error:
        _log.error("entry_unreadable", order_id=order_id, reason=str(error))
        return None


def _dead_body(row: DeadLetterRow) -> bytes:
    try:
        return codec.encode_order(codec.decode_item(row.letter.payload).order)
    except PoisonError as error:
        raise UnavailableError(f"a dead letter that cannot be read: {error}") from error
