"""Operator actions on dead letters: list, read, replay, discard.

```
  replay   index letter ----> outbox again, the letter is gone
           whole unit ------> persist flow --inserted (the letter goes in that transaction)--> gone
                                    |--in the record already, with this content--> gone
                                    +--condemned again: attempts + 1, the reason of now--> stays
           unreadable, or a part of a unit: attempts + 1 --> stays
  discard  dead-lettered entry forgotten, then the letter deleted: 404 from now on
           entry still dirty --> stays: the sweeper would bring the order again
```

Invariant: a unit is replayed or discarded whole, and no other with it. A unit id alone is not a
unit: one key can stand for a single order, a bulk, and other bulks under the same id.
Invariant: only one process at a time replays or discards (`DeadLetters.turn`), so no process
persists a letter that another has just discarded. A turn lasts for one slice.
Invariant: repeating an action is harmless; letters of an interrupted action are still listed.
Invariant: `UnavailableError` means that nothing was replayed or discarded; a failure after the
first effect raises `CutShortError`.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias
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
from polyglot_persistence.errors import (
    NotFoundError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.flows.behind.dead_letter_units import (
    Member,
    UnitsOf,
    batches,
    parts,
    readable,
    units_of,
    without_last_unit_id,
)
from polyglot_persistence.flows.behind.persist import REPLAY, PersistFlow
from polyglot_persistence.ports.cache import Cache
from polyglot_persistence.ports.dead_letters import DeadLetters
from polyglot_persistence.ports.orders import Orders
from polyglot_persistence.telemetry import DEAD_LETTERS_HANDLED, logger

_log = logger("dead_letters")

SLICE_LETTERS = codec.UNIT_SIZE_MAX + 100
"""More than the largest unit, so that a slice can end between two units."""


Action: TypeAlias = Literal["replay", "discard"]


class Operator(NamedTuple):
    """The acting operator, for the log."""

    trigger: str
    """`request` or `command`."""
    who: str


class Outcome(enum.Enum):
    """Outcome of an action on a dead letter."""

    PERSISTED = "persisted"
    """The order is in the record."""
    REINDEXED = "reindexed"
    """The order waits in the outbox to be indexed."""
    DISCARDED = "discarded"
    KEPT = "kept"
    """The letter is still there."""


class Handled(NamedTuple):
    """One letter and its outcome; `detail` says why it was kept."""

    letter_id: int
    order_id: UUID | None
    outcome: Outcome
    detail: str = ""


class Slice(NamedTuple):
    """One slice of the matching letters."""

    handled: Sequence[Handled]
    before: int | None
    """Where the next slice begins; None after the last."""


class CutShortError(UnknownOutcomeError):
    """A store failed during an action: `handled` is done, other letters may be as well."""

    def __init__(self, message: str, handled: Sequence[Handled]) -> None:
        super().__init__(message)
        self.handled = handled


@dataclass(slots=True)
class _Run:
    """An action under way."""

    handled: list[Handled] = field(default_factory=list)
    has_effect: bool = False
    """Whether anything was changed, even if it is unknown for which letters."""

    def done(self, handled: Iterable[Handled]) -> None:
        """Add letters whose action has taken effect."""
        before = len(self.handled)
        self.handled += handled
        self.has_effect = self.has_effect or len(self.handled) > before


@dataclass
class DeadLetterFlow:
    """Serves operators. Every change is logged and counted.

    If a store is away, replay and discard raise `UnavailableError` if nothing has changed yet, else
    `CutShortError`; earlier effects remain.
    """

    letters: DeadLetters
    record: Orders
    cache: Cache
    persist: PersistFlow

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        """Return matching letters, the latest first, with the beginnings of their payloads."""
        return await self.letters.page(chosen, before, letters_max)

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        """Count the matching letters by stage and reason."""
        return await self.letters.count(chosen)

    async def get(self, letter_id: int) -> DeadLetterRow:
        """Return one letter, whole.

        Raises:
            NotFoundError: there is no such letter (any more).
        """
        rows = await self.letters.read([letter_id])
        if not rows:
            raise NotFoundError(f"there is no dead letter {letter_id}; perhaps no more")
        return rows[0]

    async def act(self, action: Action, letter_id: int, operator: Operator) -> Sequence[Handled]:
        """Replay or discard a letter with its unit.

        Raises:
            NotFoundError: there is no such letter (any more).
        """
        run = _Run()
        with _cutting_short(run):
            async with self.letters.turn():
                await self._part([await self.get(letter_id)], action, operator, run)
        return run.handled

    async def act_on_slice(
        self, action: Action, chosen: LetterFilter, before: int | None, operator: Operator
    ) -> Slice:
        """Handle the latest matching letters below an id; call again until all are done."""
        run = _Run()
        with _cutting_short(run):
            async with self.letters.turn() as turn:
                page = await self.letters.page(chosen, before, SLICE_LETTERS)
                is_last = len(page) < SLICE_LETTERS
                if not is_last:
                    page = without_last_unit_id(page)
                for part in parts(page):
                    await turn.confirm()
                    await self._part(part, action, operator, run)
        return Slice(run.handled, None if is_last else page[-1].id)

    async def _part(
        self, part: Sequence[DeadLetterRow], action: Action, operator: Operator, run: _Run
    ) -> None:
        """Apply an action to letters and all others of their units."""
        act = self._replay if action == "replay" else self._discard
        letter_ids = {row.id for row in part}
        before = len(run.handled)
        try:
            rows = await self._with_their_units(part)
            letter_ids.update(row.id for row in rows)
            left_alone = _of_a_newer_version(rows)
            await act([row for row in rows if row not in left_alone], run)
            why = "a newer version has condemned it, or one of its unit"
            run.handled += [_handled(row, Outcome.KEPT, why) for row in left_alone]
        except PolyglotError as error:
            _log.warning(
                "dead_letters_failed",
                operation=action,
                **operator._asdict(),
                letters=sorted(letter_ids),
                error=str(error),
            )
            raise
        finally:
            _log_handled(run.handled[before:], action, operator)

    async def _with_their_units(self, part: Sequence[DeadLetterRow]) -> Sequence[DeadLetterRow]:
        """Return the whole letters and all others of their units."""
        named = {row.id for row in part}
        unit_ids = {row.letter.unit_id for row in part if row.letter.unit_id is not None}
        others = await self.letters.of_units(sorted(unit_ids))
        rows = await self.letters.read(sorted(named.union(others)))
        units = UnitsOf(row for row in rows if row.id in named)
        return [row for row in rows if row.id in named or row in units]

    # --- replay ----------------------------------------------------------------------------

    async def _replay(self, rows: Sequence[DeadLetterRow], run: _Run) -> None:
        index = [row for row in rows if row.letter.stage is Stage.INDEX]
        if index:
            await self.letters.reindex([row.id for row in index])
            run.done(_handled(row, Outcome.REINDEXED) for row in index)
        units, unfit = units_of([row for row in rows if row.letter.stage is not Stage.INDEX])
        for batch in batches(units):
            await self._persist_again(batch, run)
        if unfit:
            # Another failed attempt.
            await self.record.bury([row.letter._replace(attempts=1) for row, _ in unfit])
            run.done(_handled(row, Outcome.KEPT, why) for row, why in unfit)

    async def _persist_again(self, members: Sequence[Member], run: _Run) -> None:
        await self.persist.persist([accepted for accepted, _ in members], REPLAY)
        run.has_effect = True
        rows = [row for _, those in members for row in those]
        left = {row.id: row for row in await self.letters.read([row.id for row in rows])}
        found = await self.record.find([accepted.order.id for accepted, _ in members])
        persisted: list[Handled] = []
        in_vain: list[Member] = []
        for accepted, those in members:
            stored = found.orders.get(accepted.order.id)
            if stored is not None and accepted.agrees_with(stored.order):
                persisted += [_handled(row, Outcome.PERSISTED) for row in those]
            else:
                in_vain.append((accepted, those))
        # Letters of orders already in the record, which inserted nothing.
        await self.letters.discard([one.letter_id for one in persisted if one.letter_id in left])
        run.done(persisted)
        run.done(await self._condemned_again(rows, in_vain, left))

    async def _condemned_again(
        self,
        replayed: Sequence[DeadLetterRow],
        in_vain: Sequence[Member],
        left: dict[int, DeadLetterRow],
    ) -> list[Handled]:
        """Return why letters are kept; remove one replaced by another letter of the same order.

        A letter is replaced if its message item was unreadable before and is readable now.
        """
        handled: list[Handled] = []
        others: list[tuple[AcceptedOrder, DeadLetterRow]] = []
        for accepted, those in in_vain:
            for row in those:
                now = left.get(row.id)
                if now is not None and now.letter.attempts > row.letter.attempts:
                    handled.append(_handled(now, Outcome.KEPT, now.letter.reason))
                else:
                    others.append((accepted, row))
        if not others:
            return handled
        units = {row.letter.unit_id for _, row in others if row.letter.unit_id is not None}
        units.update(accepted.unit_id for accepted, _ in others)
        new_ids = set(await self.letters.of_units(sorted(units))) - {row.id for row in replayed}
        new = {readable(row): row for row in await self.letters.read(sorted(new_ids))}
        await self.letters.discard([row.id for accepted, row in others if accepted in new])
        latest = [new.get(accepted, row) for accepted, row in others]
        return handled + [_handled(row, Outcome.KEPT, row.letter.reason) for row in latest]

    # --- discard ---------------------------------------------------------------------------

    async def _discard(self, rows: Sequence[DeadLetterRow], run: _Run) -> None:
        orders = [
            row.letter.order_id
            for row in rows
            if row.letter.order_id is not None and row.letter.stage is not Stage.INDEX
        ]
        entries = (await self.cache.read(orders)).entries
        dirty = {
            order_id
            for order_id, raw in zip(orders, entries, strict=True)
            if raw is not None and raw[:1] not in _SETTLED
        }
        held_up = UnitsOf(row for row in rows if row.letter.order_id in dirty)
        kept: list[DeadLetterRow] = []
        gone: list[DeadLetterRow] = []
        for row in rows:
            (kept if row.letter.order_id in dirty or row in held_up else gone).append(row)
        # The cache first: if interrupted here, the order remains dead-lettered as before.
        forgotten = {row.letter.order_id for row in gone} & set(orders)
        if forgotten:
            await self.cache.forget_dead([one for one in forgotten if one is not None])
        await self.letters.discard([row.id for row in gone])
        why = "the cache has it as not yet persisted: a worker will try it again, see what it says"
        run.done(_handled(row, Outcome.DISCARDED) for row in gone)
        run.handled += [_handled(row, Outcome.KEPT, why) for row in kept]


_SETTLED = (EntryState.CLEAN.value, EntryState.DEAD.value)
"""An order in any other state, even one known only to a newer version, may yet be persisted."""


def _of_a_newer_version(rows: Sequence[DeadLetterRow]) -> Sequence[DeadLetterRow]:
    """Return the letters of a stage unknown to this version, with their units."""
    units = UnitsOf(row for row in rows if not row.letter.stage.is_known)
    return [row for row in rows if not row.letter.stage.is_known or row in units]


@contextmanager
def _cutting_short(run: _Run) -> Iterator[None]:
    """Translate a store's failure by what the run has already changed."""
    try:
        yield
    except (UnavailableError, UnknownOutcomeError) as error:
        if run.has_effect or isinstance(error, UnknownOutcomeError):
            raise CutShortError(str(error), run.handled) from error
        raise


def _log_handled(handled: Sequence[Handled], action: Action, operator: Operator) -> None:
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


def _handled(row: DeadLetterRow, outcome: Outcome, detail: str = "") -> Handled:
    return Handled(row.id, row.letter.order_id, outcome, detail)
