"""Hours, days and months of a time zone, and the moments between them.

A local hour begins when the clock shows a full hour. A day begins at midnight, or where midnight is
skipped, at the first moment after it. So a day has 23 to 25 hours, and a skipped day does not
exist.

Invariant: every bound is a full quarter of an hour in UTC, the unit in which sales are summed.
"""

import enum
import functools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

QUARTER_HOUR = timedelta(minutes=15)


class Grain(enum.Enum):
    """Length of a period."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime"})  # "localtime" depends on the machine


def zone_of(name: str) -> ZoneInfo:
    """Return an IANA time zone.

    Raises:
        ValueError: unknown name.
    """
    if name not in _names():
        raise ValueError(f"{name!r} is no IANA time zone; e.g. Europe/Berlin")
    return ZoneInfo(name)


def bounds(
    grain: Grain, zone: ZoneInfo, first: datetime, end: datetime, periods_max: int
) -> list[datetime]:
    """Return the bounds of the whole periods in a zone from the one of `first` up to `end`.

    There is one more bound than periods; the last is the end of the last period.

    Raises:
        ValueError: more than `periods_max`, or a bound that is no full quarter of an hour.
        OverflowError: outside of the calendar.
    """
    step = _STEPS[grain]
    end = end.astimezone(UTC)  # comparing moments of one zone compares their clocks
    found = [_begin(grain, first.astimezone(zone))]
    while found[-1] < end:
        if len(found) > periods_max:
            raise ValueError(f"more than {periods_max} periods")
        found.append(step(found[-1]))
    uneven = [bound for bound in found if (bound - _EPOCH) % QUARTER_HOUR]
    if uneven:
        raise ValueError(f"{zone.key} was not a number of quarters of an hour from UTC then")
    return found


def previous(grain: Grain, zone: ZoneInfo, bound: datetime) -> datetime:
    """Return the beginning of the period that ends at a bound."""
    return _begin(grain, (bound.astimezone(UTC) - timedelta(microseconds=1)).astimezone(zone))


def back(grain: Grain, zone: ZoneInfo, end: datetime, periods: int) -> datetime:
    """Return a moment in the first of `periods` periods, the last of which contains `end`."""
    local = end.astimezone(zone)
    if grain is Grain.HOUR:
        return (end.astimezone(UTC) - timedelta(hours=periods - 1)).astimezone(zone)
    if grain is Grain.DAY:
        return _midnight(zone, local.date() - timedelta(days=periods - 1))
    months = local.year * 12 + local.month - periods
    return _midnight(zone, date(months // 12, months % 12 + 1, 1))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _midnight(zone: ZoneInfo, day: date) -> datetime:
    """Return the first moment of a day; through UTC, since a skipped midnight does not exist."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).astimezone(zone)


def _begin(grain: Grain, local: datetime) -> datetime:
    zone = local.tzinfo
    assert isinstance(zone, ZoneInfo)  # noqa: S101  # made so above
    if grain is Grain.HOUR:
        moment = local.astimezone(UTC)
        moment -= (moment - _EPOCH) % QUARTER_HOUR
        while moment.astimezone(zone).minute:
            moment -= QUARTER_HOUR
        return moment.astimezone(zone)
    return _midnight(zone, local.date() if grain is Grain.DAY else local.date().replace(day=1))


def _next_hour(bound: datetime) -> datetime:
    moment = bound.astimezone(UTC) + QUARTER_HOUR
    while moment.astimezone(bound.tzinfo).minute:
        moment += QUARTER_HOUR
    return moment.astimezone(bound.tzinfo)


def _next_day(bound: datetime) -> datetime:
    return _after(bound, lambda day: day + timedelta(days=1))


def _next_month(bound: datetime) -> datetime:
    return _after(bound, lambda day: (day.replace(day=28) + timedelta(days=4)).replace(day=1))


def _after(bound: datetime, step: Callable[[date], date]) -> datetime:
    zone = bound.tzinfo
    assert isinstance(zone, ZoneInfo)  # noqa: S101  # made so above
    day = step(bound.date())
    while (found := _midnight(zone, day)).astimezone(UTC) <= bound.astimezone(UTC):
        day = step(day)  # a day that the zone skipped
    return found


_STEPS: dict[Grain, Callable[[datetime], datetime]] = {
    Grain.HOUR: _next_hour,
    Grain.DAY: _next_day,
    Grain.MONTH: _next_month,
}
