"""A small memory of answers, bounded in number and in time."""

from typing import Generic, TypeVar

from polyglot_persistence.ports import Clock

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Holds up to `entries_max` values, each for at most `seconds`.

    Two generations, the older of which is dropped whole, after half of the time or when the younger
    is full: so remembering costs one entry of a dict, and neither a moment nor a place in a line.
    """

    def __init__(self, clock: Clock, *, entries_max: int, seconds: float) -> None:
        self._clock = clock
        self._generation_max = entries_max // 2
        self._generation_seconds = seconds / 2
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._young_until = clock.monotonic() + self._generation_seconds

    def get(self, key: K) -> V | None:
        """Return what was remembered within the last seconds, if anything."""
        now = self._clock.monotonic()
        if now >= self._young_until:
            self._next_generation(now)
        return self._young.get(key) or self._old.get(key)

    def remember(self, key: K, value: V) -> None:
        """Hold a value; an empty one is as good as none."""
        if len(self._young) >= self._generation_max:
            if self._generation_max == 0:
                return
            self._next_generation(self._clock.monotonic())
        self._young[key] = value

    def forget_all(self) -> None:
        """Hold nothing."""
        self._young.clear()
        self._old.clear()

    def _next_generation(self, now: float) -> None:
        # After a pause of the readers the younger one is too old, too.
        too_old = now >= self._young_until + self._generation_seconds
        self._old = {} if too_old else self._young
        self._young = {}
        self._young_until = now + self._generation_seconds
