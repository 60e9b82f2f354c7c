"""Audit of the cache: whether its settled entries agree with the record.

A clean entry was written after its order's commit, and an order never changes. So a clean entry
that the record contradicts is drift at any moment. A clean entry whose order is missing from the
record means that the record was restored from an older backup: that order is persisted again.

A dead-lettered entry without a dead letter has two causes: such a restore, or a cache that lost its
latest writes and with them a discard. So its order is not persisted but gets a letter again, with
the unit named in the entry, and an operator decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import PoisonError
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.watch.audit_tally import Pace, Tally
from polyglot_persistence.ports.audit import CacheContents
from polyglot_persistence.ports.cache import Cache, Settled
from polyglot_persistence.ports.epoch import CacheEpoch
from polyglot_persistence.ports.orders import Found, Orders, StoredOrder
from polyglot_persistence.telemetry import logger

_log = logger("audit")

SCAN_ENTRIES = 1_000

WITHOUT_LETTER = (
    "the cache holds it as a dead letter and the record does not: PostgreSQL was restored, or the"
    " cache lost the discard"
)

_CLEAN, _DEAD = EntryState.CLEAN.value, EntryState.DEAD.value


class _Record(Orders, CacheEpoch, Protocol):
    """The ports needed of the record."""


class _Differing(NamedTuple):
    stale: Sequence[StoredOrder]
    """Rows whose entry differs."""
    lost: Sequence[Entry]
    """Entries whose order is missing from the record."""


@dataclass
class CacheAudit:
    """Compares clean and dead-lettered cache entries with the record."""

    cache: Cache
    contents: CacheContents
    record: _Record
    persist: PersistFlow

    async def run(self, tally: Tally, pace: Pace, *, repair: bool) -> int:
        """Compare every entry that exists throughout the run; return the number of entries.

        Raises:
            UnavailableError: cache or record is away.
            UnknownOutcomeError: a repair's answer was lost; repair again.
        """
        entries = cursor = 0
        while True:
            part = await self.contents.scan(cursor, SCAN_ENTRIES)
            kept = {i: raw for i, raw in part.entries if raw[:1] in (_CLEAN, _DEAD)}
            if kept:
                await self._compare(kept, tally, repair=repair)
            entries += len(kept)
            cursor = part.cursor
            if not await pace(len(kept)) or not cursor:
                return entries

    async def _compare(self, kept: Mapping[UUID, bytes], tally: Tally, *, repair: bool) -> None:
        differing = await self._differing(kept)
        if differing.lost:
            _log.error("record_lost_orders", orders=len(differing.lost), repair=repair)
            if repair:
                await self._decide_again(differing.lost, tally)
            tally.count(Drift.LOST_ORDER, len(differing.lost), len(differing.lost) * repair)
        if differing.stale:
            if repair:
                await self.cache.settle(
                    [Settled(EntryState.CLEAN, row.accepted()) for row in differing.stale]
                )
            tally.count(Drift.STALE_ENTRY, len(differing.stale), len(differing.stale) * repair)

    async def _differing(self, kept: Mapping[UUID, bytes]) -> _Differing:
        found = await self.record.find(list(kept))
        stale = [
            row
            for order_id, row in found.orders.items()
            if kept[order_id][:1] == _DEAD or not _says(kept[order_id], row)
        ]
        unknown = [
            order_id for order_id, raw in kept.items() if not _is_known(order_id, raw, found)
        ]
        return _Differing(stale, await self._lost(unknown, kept) if unknown else [])

    async def _lost(self, unknown: Sequence[UUID], kept: Mapping[UUID, bytes]) -> Sequence[Entry]:
        """Check orders again that were missing from the record.

        A discard forgets the entry before the letter, so the entry is gone by now.
        """
        entries = (await self.cache.read(unknown)).entries
        still = {i: raw for i, raw in zip(unknown, entries, strict=True) if raw == kept[i]}
        found = await self.record.find(list(still))
        lost = []
        for order_id, raw in still.items():
            if _is_known(order_id, raw, found):
                continue
            try:
                entry = codec.decode_entry(raw)
            except PoisonError as error:
                _log.error("entry_unreadable", order_id=order_id, reason=str(error))
                continue
            if entry.accepted.order.id == order_id:
                lost.append(entry)
        return lost

    async def _decide_again(self, lost: Sequence[Entry], tally: Tally) -> None:
        if not tally.found[Drift.LOST_ORDER]:
            # The epoch is of the backup, too: a 404 based on it may be wrong.
            _log.warning("cache_marked_cold", epoch=await self.record.new_epoch())
        dead = [one.accepted for one in lost if one.state is EntryState.DEAD]
        if dead:
            await self.persist.bury(dead, WITHOUT_LETTER)
        # Each alone: a clean entry does not name its unit, and was a row.
        rows = [one.accepted for one in lost if one.state is EntryState.CLEAN]
        alone = [AcceptedOrder(one.order, one.accepted_at, one.order.id) for one in rows]
        await self.persist.persist(alone, "audit")


def _says(raw: bytes, row: StoredOrder) -> bool:
    """Return whether a clean entry has the record's bytes."""
    head, newline, body = raw.partition(b"\n")
    return bool(newline and head) and body == codec.encode_order(row.order)


def _is_known(order_id: UUID, raw: bytes, found: Found) -> bool:
    return order_id in found.orders or (raw[:1] == _DEAD and order_id in found.dead)
