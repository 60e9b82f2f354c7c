"""Schedules: `@hourly` and its like, `@every 15m`, or a cron expression.

The forms are those of the Go peer (robfig/cron), so that a setting can be moved unchanged.
Invariant: all times are UTC; an interval counts from the given moment, not from the clock's hour.
"""

import re
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = re.compile(r"@every\s+(\S+)")
_DURATION = re.compile(r"(?=\d)(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?", re.ASCII)


class Schedule:
    """A valid schedule; `str()` returns its original text."""

    __slots__ = ("_cron", "_interval", "_text")

    def __init__(self, text: str) -> None:
        """Parse the text.

        Raises:
            ValueError: the text is invalid, or never due; says why.
        """
        self._text = " ".join(text.split())
        self._interval: timedelta | None = None
        self._cron = _NAMED.get(self._text, self._text)
        every = _EVERY.fullmatch(self._text)
        if every:
            self._interval = _interval(every[1])
        elif self._cron.startswith("@"):
            raise ValueError(f"{self._text!r} is none of {', '.join(_NAMED)}, @every <duration>")
        elif len(self._cron.split()) != 5:  # noqa: PLR2004  minute, hour, day, month, weekday
            raise ValueError("a cron expression has five fields")
        else:
            try:
                next(CronSim(self._cron, datetime(2000, 1, 1, tzinfo=UTC)))
            except CronSimError as error:
                raise ValueError(f"not a cron expression: {error}") from error
            except StopIteration:
                raise ValueError("this date never comes") from None

    def next_after(self, moment: datetime) -> datetime:
        """Return the first due time strictly after `moment`, in UTC, on a whole second."""
        moment = moment.astimezone(UTC)
        if self._interval is not None:
            return moment.replace(microsecond=0) + self._interval
        return next(CronSim(self._cron, moment))

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Schedule({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


def _interval(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    interval = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if interval < timedelta(seconds=1):
        raise ValueError("the shortest interval is 1s")
    return interval
