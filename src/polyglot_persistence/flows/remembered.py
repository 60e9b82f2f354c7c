"""A small memory of answers, bounded in number and in time."""

from typing import Generic, TypeVar

from polyglot_persistence.ports import Clock

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Holds up to `entries_max` values, each for at most `seconds`.

    Two generations: what is asked for is in the younger one or moves there, and the older one is
    dropped whole when the younger is full, so that what is asked for often stays. All is forgotten
    every `seconds`, so that a value needs neither a moment nor a place in a line.
    """

    def __init__(self, clock: Clock, *, entries_max: int, seconds: float) -> None:
        self._clock = clock
        self._generation_max = entries_max // 2
        self._seconds = seconds
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._forget_at = clock.monotonic() + seconds

    def get(self, key: K) -> V | None:
        """Return what was remembered within the last seconds, if anything."""
        now = self._clock.monotonic()
        if now >= self._forget_at:
            self.forget_all()
            self._forget_at = now + self._seconds
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.remember(key, value)
        return value

    def remember(self, key: K, value: V) -> None:
        """Hold a value."""
        if len(self._young) >= self._generation_max:
            if self._generation_max == 0:
                return
            self._old = self._young
            self._young = {}
        self._young[key] = value

    def forget_all(self) -> None:
        """Hold nothing."""
        self._young.clear()
        self._old.clear()
