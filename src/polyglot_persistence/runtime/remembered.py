"""A small memory of answers, bounded in number and in time."""

from typing import Generic, TypeVar

from polyglot_persistence.ports.clock import Clock

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Holds up to `entries_max` values, each for at most `seconds`.

    Which value has to go is told by the clock algorithm (second chance): a hand goes round, passes
    over what was asked for since it last came by, and takes the next that was not. All is forgotten
    every `seconds`, so that a value needs no moment of its own.
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
        """Return what was remembered within the last seconds, if anything."""
        now = self._clock.monotonic()
        if now >= self._forget_at:
            self.forget_all()
            self._forget_at = now + self._seconds
        value = self._values.get(key)
        if value is not None:
            self._asked.add(key)
        return value

    def remember(self, key: K, value: V) -> None:
        """Hold a value."""
        if key not in self._values and not self._make_room(key):
            return
        self._values[key] = value

    def forget_all(self) -> None:
        """Hold nothing."""
        self._values.clear()
        self._round.clear()
        self._hand = 0
        self._asked.clear()

    def _make_room(self, key: K) -> bool:
        """Give a new key its place in the round; whether there is any."""
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
