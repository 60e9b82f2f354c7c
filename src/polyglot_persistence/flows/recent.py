"""A small memory, in this process, of orders that were read lately and are clean.

A clean order never changes, so what is remembered is right for as long as the cache's epoch stands;
the seconds only bound how long an order that an operator removed is still shown.
"""

from typing import NamedTuple

from polyglot_persistence.ports import Clock


class Read(NamedTuple):
    """An order's JSON and whether the cache had it."""

    body: bytes
    hit: bool


class RecentOrders:
    """Holds up to `orders_max` orders, each for at most `seconds`, by the text of the id.

    Two generations, the older of which is dropped whole, after half of the time or when the younger
    is full: so remembering costs one entry of a dict, and neither a moment nor a place in a line.
    """

    def __init__(self, clock: Clock, *, orders_max: int, seconds: float) -> None:
        self._clock = clock
        self._generation_max = orders_max // 2
        self._generation_seconds = seconds / 2
        self._epoch: int | None = None
        self._young: dict[bytes, Read] = {}
        self._old: dict[bytes, Read] = {}
        self._young_until = clock.monotonic() + self._generation_seconds

    def get(self, id_text: bytes) -> Read | None:
        """Return what was read within the last seconds, if anything."""
        now = self._clock.monotonic()
        if now >= self._young_until:
            self._next_generation(now)
        return self._young.get(id_text) or self._old.get(id_text)

    def epoch_seen(self, epoch: int | None) -> None:
        """Forget everything if this is another epoch than before."""
        if epoch != self._epoch:
            self._young.clear()
            self._old.clear()
            self._epoch = epoch

    def put(self, id_text: bytes, body: bytes) -> None:
        """Remember a clean order."""
        if len(self._young) >= self._generation_max:
            if self._generation_max == 0:
                return
            self._next_generation(self._clock.monotonic())
        self._young[id_text] = Read(body, hit=True)

    def _next_generation(self, now: float) -> None:
        # After a pause of the readers the younger one is too old, too.
        too_old = now >= self._young_until + self._generation_seconds
        self._old = {} if too_old else self._young
        self._young = {}
        self._young_until = now + self._generation_seconds
