"""Audit of search: checksums by ranges of ids; single ids only where these differ.

```
  record, by ranges of ids --sums--> equal? --yes--> next range
                                       | no
                             ids and checksums of the range
                                       |
                 suspects: wait until search must show them; not in the outbox?
                                       |
                      drift: into the outbox, which indexes or removes
```

Search is a subset of the record that is only briefly behind, so most differences are orders in
progress. The order of reads shows which ones are drift. An order in the record and not in the
outbox has been indexed, so it is visible soon. A document was indexed after its order's commit, so
a later read of the record finds the order.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.flows.watch.audit_tally import Pace, Tally
from polyglot_persistence.ports.audit import (
    ID_MAX,
    ID_MIN,
    AuditedRecord,
    SearchContents,
)
from polyglot_persistence.ports.clock import Clock

LISTED_MAX = 20_000
"""Documents of a range compared together."""

SUSPECTS_MAX = 5_000
"""Orders checked again together."""

LOOK_SECONDS = 1.5
LOOKS = 3
"""An indexed order is visible within about a second; a busy machine gets more time."""


class Differing(NamedTuple):
    """Ids with a lasting difference between search and record."""

    missing: Sequence[UUID]
    changed: Sequence[UUID]
    extra: Sequence[UUID]

    def by_kind(self) -> Mapping[Drift, Sequence[UUID]]:
        """Return the ids by kind of drift."""
        return {
            Drift.MISSING_DOCUMENT: self.missing,
            Drift.CHANGED_DOCUMENT: self.changed,
            Drift.EXTRA_DOCUMENT: self.extra,
        }


@dataclass
class SearchAudit:
    """Compares the search index with the record."""

    record: AuditedRecord
    contents: SearchContents
    clock: Clock
    _: KW_ONLY
    range_orders: int

    async def run(self, tally: Tally, pace: Pace, *, repaired: frozenset[Drift]) -> Sequence[UUID]:
        """Compare everything; put the kinds `repaired` into the outbox and return those ids.

        Raises:
            UnavailableError: record or index is away; the comparison stopped there.
        """
        suspects: list[UUID] = []
        queued: list[UUID] = []
        first = ID_MIN
        part = await self.record.range_from(first, self.range_orders)
        while True:
            following = UUID(int=min(part.last.int + 1, ID_MAX.int))
            sums, ahead = await asyncio.gather(
                self.contents.sum_between(first, part.last),
                self.record.range_from(following, self.range_orders),
            )
            if sums != part.sums:
                suspects += await self._suspects(first, part.last)
            go_on = await pace(part.sums.orders)
            at_end = part.last == ID_MAX or not go_on
            while len(suspects) >= SUSPECTS_MAX or (at_end and suspects):
                looked_at, suspects = suspects[:SUSPECTS_MAX], suspects[SUSPECTS_MAX:]
                queued += await self._settle(looked_at, tally, repaired)
            if at_end:
                return queued
            first, part = following, ahead

    async def differing(self, ids: Sequence[UUID]) -> Differing:
        """Return the ids with a lasting difference between search and record."""
        standing = await self.record.standing(ids)
        settled = {i: c for i, c in standing.rows.items() if i not in standing.waiting}
        missing: list[UUID] = []
        changed: list[UUID] = []
        documents: Mapping[UUID, int] = {}
        for _ in range(LOOKS):
            await self.clock.sleep(LOOK_SECONDS)
            documents = await self.contents.checksums_of(ids)
            missing = [i for i in settled if i not in documents]
            changed = [i for i, c in settled.items() if documents.get(i, c) != c]
            if not missing and not changed:
                break
        extra = [i for i in documents if i not in standing.rows]
        if extra:
            now = await self.record.standing(extra)
            extra = [i for i in extra if i not in now.rows and i not in now.waiting]
        return Differing(missing, changed, extra)

    async def _suspects(self, first: UUID, last: UUID) -> Sequence[UUID]:
        suspects: list[UUID] = []
        while True:
            documents = await self.contents.checksums_between(first, last, LISTED_MAX)
            end = last if len(documents) < LISTED_MAX else list(documents)[-1]
            rows = await self.record.checksums_between(first, end)
            suspects += [
                order_id
                for order_id in {**rows, **documents}
                if rows.get(order_id) != documents.get(order_id)
            ]
            if end == last:
                return suspects
            first = UUID(int=end.int + 1)

    async def _settle(
        self, suspects: Sequence[UUID], tally: Tally, repaired: frozenset[Drift]
    ) -> Sequence[UUID]:
        queued: list[UUID] = []
        for drift, ids in (await self.differing(suspects)).by_kind().items():
            if not ids:
                continue
            if drift in repaired:
                await self.record.index_again(ids)
                queued += ids
            tally.count(drift, len(ids), len(ids) if drift in repaired else 0)
        return queued
