"""Pauses between attempts: they double, up to a bound, with jitter in their upper half.

Jitter as in Brooker, "Exponential Backoff and Jitter" (AWS, 2015): processes that failed together
retry at different times.
"""

import random


class Pauses:
    """The pauses of one retried thing, in seconds."""

    def __init__(self, first_seconds: float, last_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._last_seconds = last_seconds
        self._seconds = first_seconds

    def begin_again(self) -> None:
        """Reset the next pause to the shortest one."""
        self._seconds = self._first_seconds

    def next(self) -> float:
        """Return the pause before the next attempt."""
        seconds = self._seconds
        self._seconds = min(2 * seconds, self._last_seconds)
        return jittered(seconds)


def jittered(seconds: float) -> float:
    """Return a random time between half of it and all of it."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311  no secret
