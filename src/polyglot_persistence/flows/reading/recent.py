"""A small in-process cache of clean orders that were read lately.

A clean order never changes, so an entry is right as long as the cache's epoch stands; the time
limit only bounds how long an order that an operator removed is still shown.
"""

from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.runtime.remembered import Remembered


class RecentOrders(Remembered[bytes, bytes]):
    """Holds up to `orders_max` orders, each for at most `seconds`, by the text of the id.

    Holds only the order's JSON: 100,000 of them take some 35 MB.
    """

    def __init__(self, clock: Clock, *, orders_max: int, seconds: float) -> None:
        super().__init__(clock, entries_max=orders_max, seconds=seconds)
        self._epoch: str | None = None

    def epoch_seen(self, epoch: str | None) -> None:
        """Forget everything if the epoch has changed."""
        if epoch != self._epoch:
            self.forget_all()
            self._epoch = epoch
