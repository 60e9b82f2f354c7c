"""What operators do about dead letters: list, read, replay, discard.

```
  replay   index letter ----> outbox again, the letter is gone
           whole unit ------> persist flow --inserted (the letter goes in that transaction)--> gone
                                    |--in the record already, with this content--> gone
                                    +--condemned again: attempts + 1, the reason of now--> stays
           unreadable, or a part of a unit: attempts + 1 --> stays
  discard  dead-lettered entry forgotten, then the letter deleted: 404 from now on
           entry still dirty --> stays: the sweeper would bring the order again
```

Invariant: a unit is replayed or discarded whole.
Invariant: one at a time, of all processes, replays or discards (`DeadLetters.turn`); so what one
has discarded the other is not just about to persist. A turn lasts for one slice.
Invariant: doing it again is harmless; whatever was interrupted is still listed.
"""

import enum
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import (
    DeadLetterRow,
    LetterCounts,
    LetterFilter,
    Stage,
)
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import NotFoundError, PoisonError, PolyglotError
from polyglot_persistence.flows.persist import REPLAY, PersistFlow
from polyglot_persistence.ports import Cache, DeadLetters, OrderStore
from polyglot_persistence.telemetry import DEAD_LETTERS_HANDLED, logger

_log = logger("dead_letters")

SLICE_LETTERS = codec.UNIT_SIZE_MAX + 100
"""More than a unit can have, so that a slice can end between two units."""

PART_UNITS = 100
"""Units that are handled and logged together."""

PART_UNREADABLE = 20
"""Letters without a unit likewise: each may be a whole message."""

BATCH_ORDERS = 1_000
"""Orders in one persist transaction, if its units are not larger."""


class Operator(NamedTuple):
    """Whoever acts, for the log."""

    trigger: str
    """`request` or `command`."""
    who: str


class Outcome(enum.Enum):
    """What became of a dead letter."""

    PERSISTED = "persisted"
    """The order is in the record."""
    REINDEXED = "reindexed"
    """The order waits in the outbox to be indexed."""
    DISCARDED = "discarded"
    KEPT = "kept"
    """It is still there."""


class Handled(NamedTuple):
    """One letter and what became of it; `detail` says why it was kept."""

    letter_id: int
    order_id: UUID | None
    outcome: Outcome
    detail: str = ""


class Slice(NamedTuple):
    """A part of all that matches."""

    handled: Sequence[Handled]
    before: int | None
    """Where the next slice begins; None after the last."""


_Act: TypeAlias = Callable[[Sequence[DeadLetterRow]], Awaitable[list[Handled]]]
_Member: TypeAlias = tuple[AcceptedOrder, list[DeadLetterRow]]


class DeadLetterFlow:
    """Serves operators. Everything that changes something is logged and counted.

    Replay and discard raise `UnavailableError` or `UnknownOutcomeError` if a store is away; what
    was done until then stays done.
    """

    def __init__(
        self, letters: DeadLetters, store: OrderStore, cache: Cache, persist: PersistFlow
    ) -> None:
        self._letters = letters
        self._store = store
        self._cache = cache
        self._persist = persist

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        """Return letters that match, the latest first, with the beginnings of their payloads."""
        return await self._letters.page(chosen, before, letters_max)

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        """Return how many match, by stage and reason."""
        return await self._letters.count(chosen)

    async def get(self, letter_id: int) -> DeadLetterRow:
        """Return one letter, whole.

        Raises:
            NotFoundError: it is not there (any more).
        """
        rows = await self._letters.read([letter_id])
        if not rows:
            raise NotFoundError(f"there is no dead letter {letter_id}; perhaps no more")
        return rows[0]

    async def replay(self, letter_id: int, operator: Operator) -> Sequence[Handled]:
        """Replay a letter with its unit.

        Raises:
            NotFoundError: it is not there (any more).
        """
        return await self._one(letter_id, "replay", operator)

    async def discard(self, letter_id: int, operator: Operator) -> Sequence[Handled]:
        """Discard a letter with its unit.

        Raises:
            NotFoundError: it is not there (any more).
        """
        return await self._one(letter_id, "discard", operator)

    async def replay_slice(
        self, chosen: LetterFilter, before: int | None, operator: Operator
    ) -> Slice:
        """Replay the latest letters that match, below an id; call again until all are done."""
        return await self._slice(chosen, before, "replay", operator)

    async def discard_slice(
        self, chosen: LetterFilter, before: int | None, operator: Operator
    ) -> Slice:
        """Discard the latest letters that match, below an id; call again until all are done."""
        return await self._slice(chosen, before, "discard", operator)

    async def _one(self, letter_id: int, action: str, operator: Operator) -> Sequence[Handled]:
        async with self._letters.turn():
            return await self._part([await self.get(letter_id)], action, operator)

    async def _slice(
        self, chosen: LetterFilter, before: int | None, action: str, operator: Operator
    ) -> Slice:
        async with self._letters.turn() as turn:
            page = await self._letters.page(chosen, before, SLICE_LETTERS)
            is_last = len(page) < SLICE_LETTERS
            if not is_last:
                page = _without_last_unit(page)
            handled: list[Handled] = []
            for part in _parts(page):
                await turn.confirm()
                handled += await self._part(part, action, operator)
        return Slice(handled, None if is_last else page[-1].id)

    async def _part(
        self, part: Sequence[DeadLetterRow], action: str, operator: Operator
    ) -> Sequence[Handled]:
        """Act on letters and all others of their units."""
        letter_ids = {row.id for row in part}
        unit_ids = [row.letter.unit_id for row in part if row.letter.unit_id is not None]
        letter_ids.update(await self._letters.of_units(unit_ids))
        act: _Act = {"replay": self._replay, "discard": self._discard}[action]
        try:
            handled = await act(await self._letters.read(sorted(letter_ids)))
        except PolyglotError as error:
            _log.warning(
                "dead_letters_failed",
                operation=action,
                **operator._asdict(),
                letters=sorted(letter_ids),
                error=str(error),
            )
            raise
        for outcome in Outcome:
            those = [one for one in handled if one.outcome is outcome]
            if not those:
                continue
            DEAD_LETTERS_HANDLED.labels(outcome.value).inc(len(those))
            _log.info(
                "dead_letters_handled",
                operation=action,
                outcome=outcome.value,
                **operator._asdict(),
                count=len(those),
                letters=[one.letter_id for one in those],
                orders=[one.order_id for one in those],
            )
        return handled

    # --- replay ----------------------------------------------------------------------------

    async def _replay(self, rows: Sequence[DeadLetterRow]) -> list[Handled]:
        index = [row for row in rows if row.letter.stage is Stage.INDEX]
        if index:
            await self._letters.reindex([row.id for row in index])
        handled = [_handled(row, Outcome.REINDEXED) for row in index]
        units, unfit = _units([row for row in rows if row.letter.stage is not Stage.INDEX])
        for batch in _batches(units):
            handled += await self._persist_again(batch)
        if unfit:
            # Another attempt in vain.
            await self._store.bury([row.letter._replace(attempts=1) for row, _ in unfit])
        return handled + [_handled(row, Outcome.KEPT, why) for row, why in unfit]

    async def _persist_again(self, members: Sequence[_Member]) -> list[Handled]:
        await self._persist.persist([accepted for accepted, _ in members], REPLAY)
        rows = [row for _, those in members for row in those]
        left = {row.id: row for row in await self._letters.read([row.id for row in rows])}
        found = await self._store.find([accepted.order.id for accepted, _ in members])
        handled: list[Handled] = []
        in_vain: list[DeadLetterRow] = []
        for accepted, those in members:
            stored = found.orders.get(accepted.order.id)
            if stored is not None and accepted.order.same_content(
                stored.order, created_at_given=accepted.created_at_given
            ):
                handled += [_handled(row, Outcome.PERSISTED) for row in those]
            else:
                in_vain += those
        # Of orders that were there before, which inserted nothing.
        await self._letters.discard([one.letter_id for one in handled if one.letter_id in left])
        return handled + await self._condemned_again(rows, in_vain, left)

    async def _condemned_again(
        self,
        replayed: Sequence[DeadLetterRow],
        in_vain: Sequence[DeadLetterRow],
        left: dict[int, DeadLetterRow],
    ) -> list[Handled]:
        """Tell why; a letter that another one has taken the place of is removed.

        That is so with an item of a message that could not be read before, and now can.
        """
        handled: list[Handled] = []
        others: list[DeadLetterRow] = []
        for row in in_vain:
            now = left.get(row.id)
            if now is not None and now.letter.attempts > row.letter.attempts:
                handled.append(_handled(now, Outcome.KEPT, now.letter.reason))
            else:
                others.append(row)
        if not others:
            return handled
        units = [row.letter.unit_id for row in others if row.letter.unit_id is not None]
        new_ids = set(await self._letters.of_units(units)) - {row.id for row in replayed}
        new = {row.letter.order_id: row for row in await self._letters.read(sorted(new_ids))}
        await self._letters.discard([row.id for row in others if row.letter.order_id in new])
        latest = [new.get(row.letter.order_id, row) for row in others]
        return handled + [_handled(row, Outcome.KEPT, row.letter.reason) for row in latest]

    # --- discard ---------------------------------------------------------------------------

    async def _discard(self, rows: Sequence[DeadLetterRow]) -> list[Handled]:
        orders = [
            row.letter.order_id
            for row in rows
            if row.letter.order_id is not None and row.letter.stage is not Stage.INDEX
        ]
        entries = (await self._cache.read(orders)).entries
        dirty = {
            order_id
            for order_id, raw in zip(orders, entries, strict=True)
            if raw is not None and codec.entry_state(raw) is EntryState.DIRTY
        }
        held_up = {row.letter.unit_id for row in rows if row.letter.order_id in dirty}
        kept: list[DeadLetterRow] = []
        gone: list[DeadLetterRow] = []
        for row in rows:
            is_held_up = row.letter.unit_id is not None and row.letter.unit_id in held_up
            (kept if is_held_up or row.letter.order_id in dirty else gone).append(row)
        # The cache first: interrupted here, the order still is what it was, dead-lettered.
        forgotten = {row.letter.order_id for row in gone} & set(orders)
        if forgotten:
            await self._cache.forget_dead([one for one in forgotten if one is not None])
        await self._letters.discard([row.id for row in gone])
        why = "the cache has it as not yet persisted: a worker will try it again, see what it says"
        return [
            *[_handled(row, Outcome.DISCARDED) for row in gone],
            *[_handled(row, Outcome.KEPT, why) for row in kept],
        ]


def _handled(row: DeadLetterRow, outcome: Outcome, detail: str = "") -> Handled:
    return Handled(row.id, row.letter.order_id, outcome, detail)


def _without_last_unit(page: Sequence[DeadLetterRow]) -> Sequence[DeadLetterRow]:
    """Return the page up to its last unit, which may go on below it; at least one unit."""
    last = page[-1].letter.unit_id
    end = len(page)
    while last is not None and end > 0 and page[end - 1].letter.unit_id == last:
        end -= 1
    return page[:end] or page


def _parts(page: Sequence[DeadLetterRow]) -> Iterator[Sequence[DeadLetterRow]]:
    """Yield letters of a bounded number of units, each unit in one part only."""
    part: list[DeadLetterRow] = []
    unreadable = 0
    units: set[UUID] = set()
    for row in page:
        if row.letter.unit_id is None:
            unreadable += 1
        elif row.letter.unit_id in units:
            continue  # it comes along with its unit
        else:
            units.add(row.letter.unit_id)
        part.append(row)
        if unreadable == PART_UNREADABLE or len(part) == PART_UNITS:
            yield part
            part, unreadable = [], 0
    if part:
        yield part


def _units(
    rows: Sequence[DeadLetterRow],
) -> tuple[list[list[_Member]], list[tuple[DeadLetterRow, str]]]:
    """Return the whole units that letters make up, and the letters that make up none, with why.

    Letters of one unit id can stem from several units: other content under the same key.
    """
    units: dict[tuple[UUID, datetime, int, int], dict[UUID, _Member]] = {}
    unfit: list[tuple[DeadLetterRow, str]] = []
    for row in rows:
        try:
            accepted = codec.decode_item(row.letter.payload)
        except PoisonError as error:
            unfit.append((row, str(error)))
            continue
        size = accepted.unit_size
        key = (accepted.unit_id, accepted.accepted_at, size, row.id if size == 1 else 0)
        member = units.setdefault(key, {}).setdefault(accepted.order.id, (accepted, []))
        if member[0] == accepted:
            member[1].append(row)
        else:
            unfit.append((row, "another letter of its unit has the same id and other content"))
    whole = []
    for (unit_id, _, size, _), members in units.items():
        if len(members) == size:
            whole.append(list(members.values()))
            continue
        why = f"unit {unit_id} has {len(members)} of {size} orders among the dead letters"
        unfit += [(row, why) for _, those in members.values() for row in those]
    return whole, unfit


def _batches(units: Sequence[list[_Member]]) -> Iterator[list[_Member]]:
    """Yield whole units together, up to the batch size."""
    batch: list[_Member] = []
    for unit in units:
        if batch and len(batch) + len(unit) > BATCH_ORDERS:
            yield batch
            batch = []
        batch = batch + unit
    if batch:
        yield batch
