"""Hours, days and months of every time zone, exact over changes of the clocks."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.domain.periods import Grain, back, bounds, previous, zone_of

ZONES = ("Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo", "UTC")


START = datetime(1980, 1, 1, tzinfo=UTC)


def local(zone: str, text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone_of(zone))


def hours_between(found: list[datetime]) -> list[float]:
    utc = [bound.astimezone(UTC) for bound in found]
    return [(end - start) / timedelta(hours=1) for start, end in pairwise(utc)]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", [23]),
        ("Europe/Berlin", "2026-10-25", [25]),
        ("Europe/Berlin", "2026-06-01", [24]),
        ("Australia/Lord_Howe", "2026-04-05", [24.5]),
        ("America/Sao_Paulo", "2018-11-04", [23]),  # midnight itself was skipped
        ("America/Havana", "2026-11-01", [25]),  # midnight came twice
    ],
)
def test_a_day_is_as_long_as_the_clocks_say(zone: str, day: str, hours: list[float]) -> None:
    """From midnight to midnight, or from the first moment after a midnight that was skipped."""
    first = local(zone, day)
    found = bounds(Grain.DAY, zone_of(zone), first, first + timedelta(hours=12), 10)
    assert hours_between(found) == hours


def test_a_day_that_a_zone_skipped_is_no_period() -> None:
    """Samoa had no 30 December 2011."""
    zone = zone_of("Pacific/Apia")
    found = bounds(
        Grain.DAY, zone, local("Pacific/Apia", "2011-12-29"), local("Pacific/Apia", "2012-01-01"), 9
    )
    assert [bound.date() for bound in found] == [
        date(2011, 12, 29),
        date(2011, 12, 31),
        date(2012, 1, 1),
    ]


def test_an_hour_that_comes_twice_is_two_periods() -> None:
    """And one that is skipped is none; half an hour more belongs to its hour."""
    berlin = zone_of("Europe/Berlin")
    found = bounds(
        Grain.HOUR, berlin, local("Europe/Berlin", "2026-10-25T01:00"),
        local("Europe/Berlin", "2026-10-25T04:00"), 9,
    )  # fmt: skip
    assert [bound.hour for bound in found] == [1, 2, 2, 3, 4]
    lord_howe = local("Australia/Lord_Howe", "2026-04-05T01:00")
    found = bounds(
        Grain.HOUR, zone_of("Australia/Lord_Howe"), lord_howe, lord_howe + timedelta(hours=2), 9
    )
    assert hours_between(found) == [1.5, 1]


def test_the_range_is_widened_to_whole_periods() -> None:
    """The first period holds its beginning, the last one its end; an end on a bound is enough."""
    zone = zone_of("UTC")
    first, end = datetime(2026, 1, 15, 7, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    months = [bound.date() for bound in bounds(Grain.MONTH, zone, first, end, 9)]
    assert months == [date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)]
    more = bounds(Grain.MONTH, zone, first, end + timedelta(microseconds=1), 9)
    assert more[-1].date() == date(2026, 4, 1)


def test_a_range_has_a_limit() -> None:
    """As many periods as are allowed, and no more."""
    zone, first = zone_of("UTC"), datetime(2026, 1, 1, tzinfo=UTC)
    assert len(bounds(Grain.DAY, zone, first, first + timedelta(days=9), 9)) == 10
    with pytest.raises(ValueError, match="more than 8 periods"):
        bounds(Grain.DAY, zone, first, first + timedelta(days=9), 8)


def test_offsets_that_no_quarter_hour_fits_are_refused() -> None:
    """Liberia was 44 minutes and 30 seconds behind until 1972."""
    first = local("Africa/Monrovia", "1971-01-01")
    with pytest.raises(ValueError, match="quarters of an hour"):
        bounds(Grain.DAY, zone_of("Africa/Monrovia"), first, first + timedelta(days=1), 9)


@pytest.mark.parametrize("name", ["", "Berlin", "../UTC", "/etc/localtime", "America", "localtime"])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    """Whatever the machine's directory of zones would make of it."""
    with pytest.raises(ValueError, match="no IANA time zone"):
        zone_of(name)


@given(
    grain=st.sampled_from(Grain),
    zone=st.sampled_from(ZONES),
    moment=st.integers(0, 70 * 365 * 24 * 60).map(lambda m: START + timedelta(minutes=m)),
    periods=st.integers(1, 12),
)
def test_periods_join_without_a_gap(
    grain: Grain, zone: str, moment: datetime, periods: int
) -> None:
    """Each begins where the last one ends, holds its beginning, and is found back from its end."""
    place = zone_of(zone)
    first = back(grain, place, moment, periods)
    found = bounds(grain, place, first, moment + timedelta(microseconds=1), 40)
    assert found[0].astimezone(UTC) <= first.astimezone(UTC)
    assert found[-2].astimezone(UTC) <= moment < found[-1].astimezone(UTC)
    assert all(previous(grain, place, end) == start for start, end in pairwise(found))
    assert abs(len(found) - 1 - periods) <= 1  # a change of the clocks may add or take one
