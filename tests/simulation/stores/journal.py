"""Tables that change in effects: a log that can lose its tail, be shipped, be copied.

An effect is what a real server would write to its log in one piece: all of it is there or nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Final = object()


class Change(NamedTuple):
    """One row before and after."""

    table: int
    key: Any
    before: Any
    after: Any


Effect = Sequence[Change]


class Journal:
    """All tables of one server, and every effect on them."""

    def __init__(self) -> None:
        self.tables: list[Table[Any, Any]] = []
        self.effects: list[Effect] = []
        self._open: list[Change] | None = None

    def effect(self) -> "_OpenEffect":
        """Make one effect of all changes inside; an error undoes them."""
        return _OpenEffect(self)

    def begin(self) -> None:
        """Begin an effect: what `effect` does on entering."""
        assert self._open is None, "an effect is one step and has none inside"
        self._open = []

    def end(self, *, undo: bool) -> None:
        """End the effect under way: what `effect` does on leaving."""
        changes, self._open = self._open, None
        assert changes is not None
        if undo:
            self._undo(changes)
        elif changes:
            self.effects.append(changes)

    def roll_back(self, effects: int) -> None:
        """Lose the last effects."""
        assert 0 <= effects <= len(self.effects)
        for _ in range(effects):
            self._undo(self.effects.pop())

    def take_over(self, effects: Sequence[Effect]) -> None:
        """Append another server's effects, which came after all that is here."""
        for effect in effects:
            for table, key, _, after in effect:
                self.tables[table].set_row(key, after)
            self.effects.append(effect)

    def copy(self, other: "Journal") -> None:
        """Become what the other is."""
        for mine, theirs in zip(self.tables, other.tables, strict=True):
            mine.become(theirs)
        self.effects = list(other.effects)

    def record(self, change: Change) -> None:
        """Note a change of the effect under way."""
        assert self._open is not None, "rows change inside of an effect only"
        self._open.append(change)

    def _undo(self, effect: Effect) -> None:
        for table, key, before, _ in reversed(effect):
            self.tables[table].set_row(key, before)


class _OpenEffect:
    """The context of an effect: a class, for a generator takes three times as long."""

    __slots__ = ("_journal",)

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> None:
        self._journal.begin()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._journal.end(undo=kind is not None)


class Table(Mapping[K, V], Generic[K, V]):
    """Rows by key, in the order of their first insertion. Values are never changed in place."""

    def __init__(self, journal: Journal) -> None:
        self._rows: dict[K, V] = {}
        self._journal = journal
        self._number = len(journal.tables)
        journal.tables.append(self)

    def __getitem__(self, key: K) -> V:
        return self._rows[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def put(self, key: K, value: V) -> None:
        """Insert or replace a row."""
        before = self._rows.get(key, _ABSENT)
        self._journal.record(Change(self._number, key, before, value))
        self._rows[key] = value

    def remove(self, key: K) -> bool:
        """Remove a row; return whether it was there."""
        before = self._rows.pop(key, _ABSENT)
        if before is _ABSENT:
            return False
        self._journal.record(Change(self._number, key, before, _ABSENT))
        return True

    def clear(self) -> None:
        """Remove every row."""
        for key in list(self._rows):
            self.remove(key)

    def set_row(self, key: K, value: Any) -> None:
        """Set what a change says, without noting it again."""
        if value is _ABSENT:
            self._rows.pop(key, None)
        else:
            self._rows[key] = value

    def become(self, other: "Table[K, V]") -> None:
        """Hold what the other holds."""
        self._rows = dict(other._rows)
