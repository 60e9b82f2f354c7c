"""Schedules: the forms that are taken, and when they come due."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.domain.schedule import Schedule

NOW = datetime(2026, 2, 27, 10, 20, 30, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("@hourly", datetime(2026, 2, 27, 11, tzinfo=UTC)),
        ("@daily", datetime(2026, 2, 28, tzinfo=UTC)),
        ("@midnight", datetime(2026, 2, 28, tzinfo=UTC)),
        ("@weekly", datetime(2026, 3, 1, tzinfo=UTC)),
        ("@monthly", datetime(2026, 3, 1, tzinfo=UTC)),
        ("@yearly", datetime(2027, 1, 1, tzinfo=UTC)),
        ("@annually", datetime(2027, 1, 1, tzinfo=UTC)),
        ("*/15 * * * *", datetime(2026, 2, 27, 10, 30, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
        ("30 9 * * mon-fri", datetime(2026, 3, 2, 9, 30, tzinfo=UTC)),
        ("@every 15m", datetime(2026, 2, 27, 10, 35, 30, tzinfo=UTC)),
        ("@every  1h30m10s ", datetime(2026, 2, 27, 11, 50, 40, tzinfo=UTC)),
    ],
)
def test_the_next_time(text: str, due: datetime) -> None:
    """Each form of the peer's, in UTC."""
    assert due == Schedule(text).next_after(NOW)


def test_another_zone_is_the_same_moment() -> None:
    """Only the moment counts, whatever zone it is told in."""
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert Schedule("@daily").next_after(NOW) == Schedule("@daily").next_after(elsewhere)


@given(
    st.sampled_from(["@hourly", "@daily", "*/7 * * * *", "0 12 * * sun", "@every 1s", "@every 3h"]),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_it_always_moves_on(text: str, moment: datetime) -> None:
    """The next time is later, by a whole second, and so is the one after."""
    schedule = Schedule(text)
    due = schedule.next_after(moment)
    assert moment < due < schedule.next_after(due)
    assert due.microsecond == 0


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "five fields"),
        ("hourly", "five fields"),
        ("* * * *", "five fields"),
        ("0 * * * * *", "five fields"),
        ("61 * * * *", "not a cron expression"),
        ("0 0 30 2 *", "not a cron expression"),
        ("@sometimes", "none of @yearly"),
        ("@every", "none of @yearly"),
        ("@every 15", "not a duration"),
        ("@every m", "not a duration"),
        ("@every 1.5h", "not a duration"),
        ("@every -1h", "not a duration"),
        ("@every 0s", "shortest interval is 1s"),
    ],
)
def test_what_is_no_schedule_says_why(text: str, fragment: str) -> None:
    """A wrong one is refused when it is read, not when it should come due."""
    with pytest.raises(ValueError, match=fragment):
        Schedule(text)


def test_equal_texts_are_equal() -> None:
    """Spaces do not matter; it prints as the text."""
    assert Schedule("@every  15m") == Schedule("@every 15m")
    assert str(Schedule(" 0 *  * * * ")) == "0 * * * *"
