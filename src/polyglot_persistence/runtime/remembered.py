"""A small cache, bounded in number and in time."""

from typing import Generic, TypeVar

from polyglot_persistence.ports.clock import Clock

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Holds up to `entries_max` values, each for at most `seconds`.

    Eviction is CLOCK (second chance). All values are forgotten together every `seconds`, so that
    none needs a timestamp of its own.
    """

    def __init__(self, clock: Clock, *, entries_max: int, seconds: float) -> None:
        self._clock = clock
        self._entries_max = entries_max
        self._seconds = seconds
        self._values: dict[K, V] = {}
        self._round: list[K] = []
        self._hand = 0
        self._asked: set[K] = set()
        self._forget_at = clock.monotonic() + seconds

    def get(self, key: K) -> V | None:
        """Return the remembered value, if there is one."""
        now = self._clock.monotonic()
        if now >= self._forget_at:
            self.forget_all()
            self._forget_at = now + self._seconds
        value = self._values.get(key)
        if value is not None:
            self._asked.add(key)
        return value

    def remember(self, key: K, value: V) -> None:
        """Remember a value."""
        if key not in self._values and not self._make_room(key):
            return
        self._values[key] = value

    def forget_all(self) -> None:
        """Forget all values."""
        self._values.clear()
        self._round.clear()
        self._hand = 0
        self._asked.clear()

    def _make_room(self, key: K) -> bool:
        """Make room for a new key; return whether it is admitted."""
        if len(self._round) < self._entries_max:
            self._round.append(key)
            return True
        if not self._round:
            return False
        while (passed := self._round[self._hand]) in self._asked:
            self._asked.remove(passed)
            self._advance()
        del self._values[passed]
        self._round[self._hand] = key
        self._advance()
        return True

    def _advance(self) -> None:
        self._hand = (self._hand + 1) % len(self._round)
