"""jobs.deadline: times of day across midnight and clock changes, and lengths of time."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from overnight.errors import JobError
from overnight.jobs.deadline import give_up_ms, instant_before, next_time_ms, seconds_of, time_of_day
from overnight.jobs.jobfile import Limits

BERLIN, CHATHAM = ZoneInfo("Europe/Berlin"), ZoneInfo("Pacific/Chatham")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("after", "at", "zone", "expected"),
    [
        pytest.param("2026-01-10T23:00+01:00", (6, 0), BERLIN, "2026-01-11T06:00+01:00", id="over midnight"),
        pytest.param("2026-01-11T00:10+01:00", (6, 0), BERLIN, "2026-01-11T06:00+01:00", id="after midnight"),
        pytest.param("2026-01-11T06:00+01:00", (6, 0), BERLIN, "2026-01-12T06:00+01:00", id="now is not after now"),
        pytest.param("2026-01-11T05:59:59.999+01:00", (6, 0), BERLIN, "2026-01-11T06:00+01:00", id="a ms before"),
        pytest.param("2026-01-10T23:00+01:00", (0, 0), BERLIN, "2026-01-11T00:00+01:00", id="midnight itself"),
        pytest.param("2026-12-31T23:00+01:00", (6, 0), BERLIN, "2027-01-01T06:00+01:00", id="over the year"),
        pytest.param("2026-03-28T23:00+01:00", (6, 0), BERLIN, "2026-03-29T06:00+02:00", id="a night of 6 hours"),
        pytest.param("2026-10-24T23:00+02:00", (6, 0), BERLIN, "2026-10-25T06:00+01:00", id="a night of 8 hours"),
        pytest.param(
            "2026-03-28T23:00+01:00", (2, 30), BERLIN, "2026-03-29T03:30+02:00", id="a time that is left out"
        ),
        pytest.param("2026-10-24T23:00+02:00", (2, 30), BERLIN, "2026-10-25T02:30+02:00", id="the first of two"),
        pytest.param(
            "2026-10-25T02:10+01:00", (2, 30), BERLIN, "2026-10-25T02:30+01:00", id="between two, the second"
        ),
        pytest.param("2026-01-10T23:00+13:45", (6, 0), CHATHAM, "2026-01-11T06:00+13:45", id="far away"),
    ],
)
def test_the_next_time_of_day_is_local(after: str, at: tuple[int, int], zone: ZoneInfo, expected: str) -> None:
    assert next_time_ms(ms(after), *at, zone) == ms(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("06:00", (6, 0)),
        ("6:00", (6, 0)),
        ("23:59", (23, 59)),
        ("00:00", (0, 0)),
        ("24:00", None),
        ("12:60", None),
        ("6", None),
        ("6am", None),
        ("-1:00", None),
        ("06:00:00", None),
        ("", None),
    ],
)
def test_a_time_of_day_is_hours_and_minutes(text: str, expected: tuple[int, int] | None) -> None:
    assert time_of_day(text) == expected


def test_a_run_is_given_up_its_reserve_before_the_deadline() -> None:
    limits = Limits(deadline="06:00", reserve_minutes=45)
    assert give_up_ms(ms("2026-01-10T23:00+01:00"), limits, BERLIN) == ms("2026-01-11T05:15+01:00")


def test_a_run_that_began_within_the_reserve_is_given_up_at_once() -> None:
    began = ms("2026-01-11T05:50+01:00")
    found = give_up_ms(began, Limits(deadline="06:00", reserve_minutes=30), BERLIN)
    assert found == ms("2026-01-11T05:30+01:00")


def test_a_run_without_a_deadline_is_never_given_up() -> None:
    assert give_up_ms(ms("2026-01-10T23:00+01:00"), Limits(), BERLIN) is None


def test_days_before_are_written_as_the_ledger_writes_them() -> None:
    assert instant_before(ms("2026-03-02T12:00:00+00:00"), days=2).startswith("2026-02-28T12:00:00")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("60m", 3_600), ("6h", 21_600), ("1.5h", 5_400), ("1d", 86_400), (" 2m ", 120), (5, 5), (0.5, 0.5)],
)
def test_a_length_of_time_has_a_unit_or_is_seconds(text: str | float, expected: float) -> None:
    assert seconds_of(text) == expected


@pytest.mark.parametrize("text", ["", "s", "60", "6 hours", "-1h", "1e3s", "1.2.3s", ".s", "inf", "nan", "½h"])
def test_anything_else_is_no_length_of_time(text: str) -> None:
    with pytest.raises(JobError, match=r"is no length of time, such as \"90s\""):
        seconds_of(text)
