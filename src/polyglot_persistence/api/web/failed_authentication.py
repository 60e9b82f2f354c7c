"""Counts and logs requests without a valid API key, for each network address.

Each API process counts and logs separately, so several processes allow a multiple.

Invariant: a request with a valid key is never refused because of other clients of its address, who
may be strangers behind the same proxy. Keys are 256 random bits, so guessing needs no limit; the
limit bounds the cost of a flood, and the number of log lines.
"""

from polyglot_persistence.api.web.rate_limits import RateLimits, network_of
from polyglot_persistence.domain.access import Rate
from polyglot_persistence.errors import TooManyRequestsError
from polyglot_persistence.telemetry import logger

_log = logger("access")

LINES_RATE = Rate(20, 60)
"""Log lines per window: enough to see the sources, too few to fill a disk."""


class FailedAuthentication:
    """The addresses that failed within the last window."""

    def __init__(self, rate_limits: RateLimits | None, lines: RateLimits) -> None:
        self._rate_limits = rate_limits
        self._lines = lines
        self._not_logged = 0

    def count(self, address: str, route: str, reason: str, key_prefix: str) -> None:
        """Log one failure, and count it.

        Raises:
            TooManyRequestsError: its address failed too often.
        """
        try:
            self._lines.take("")
        except TooManyRequestsError:
            self._not_logged += 1
        else:
            _log.warning(
                "authentication_failed",
                address=address,
                route=route,
                reason=reason,
                key_prefix=key_prefix,
                not_logged=self._not_logged,
            )
            self._not_logged = 0
        if self._rate_limits is not None:
            self._rate_limits.take(network_of(address))
