"""A small memory, in this process, of orders that were read lately and are clean.

A clean order never changes, so what is remembered is right for as long as the cache's epoch stands;
the seconds only bound how long an order that an operator removed is still shown.
"""

from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.runtime.remembered import Remembered


class RecentOrders(Remembered[bytes, bytes]):
    """Holds up to `orders_max` orders, each for at most `seconds`, by the text of the id.

    What is held is the order's JSON alone: 100,000 of them take some 35 MB.
    """

    def __init__(self, clock: Clock, *, orders_max: int, seconds: float) -> None:
        super().__init__(clock, entries_max=orders_max, seconds=seconds)
        self._epoch: str | None = None

    def epoch_seen(self, epoch: str | None) -> None:
        """Forget everything if this is another epoch than before."""
        if epoch != self._epoch:
            self.forget_all()
            self._epoch = epoch
