"""core.budget: sums of a day and a month of UTC, and when they are all a workspace may spend."""

from datetime import UTC, datetime

import pytest

from overnight.core import budget
from overnight.core.budget import Spent
from overnight.core.usage import NANO
from overnight.core.workspace import Rules


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = ms("2026-11-25T17:12:00")
SPENT = budget.after_cost(budget.nothing(now_ms=NOW), 3 * NANO, now_ms=NOW)


@pytest.mark.parametrize(
    ("at", "day", "month"),
    [
        pytest.param("2026-11-25T23:59:59", 3, 3, id="same-day"),
        pytest.param("2026-11-26T00:00:00", 0, 3, id="next-day"),
        pytest.param("2026-11-30T23:59:59", 0, 3, id="last-day"),
        pytest.param("2026-12-01T00:00:00", 0, 0, id="next-month"),
        pytest.param("2027-11-25T17:12:00", 0, 0, id="next-year"),
        pytest.param("2026-11-24T12:00:00", 3, 3, id="clock-set-back-a-day"),
        pytest.param("2026-10-31T12:00:00", 3, 3, id="clock-set-back-a-month"),
    ],
)
def test_a_day_and_a_month_begin_with_nothing_and_no_earlier_one_opens_again(at: str, day: int, month: int) -> None:
    found = budget.at(SPENT, now_ms=ms(at))
    assert (found.day, found.month) == (day * NANO, month * NANO)
    more = budget.after_cost(SPENT, NANO, now_ms=ms(at))
    assert (more.day, more.month) == ((day + 1) * NANO, (month + 1) * NANO)


@pytest.mark.parametrize(
    ("rules", "which"),
    [
        pytest.param(Rules(), [], id="no-limit"),
        pytest.param(Rules(usd_per_day=3.01, usd_per_month=3.01), [], id="below"),
        pytest.param(Rules(usd_per_day=3.0), ["day"], id="day"),
        pytest.param(Rules(usd_per_month=3.0), ["month"], id="month"),
        pytest.param(Rules(usd_per_day=0.1, usd_per_month=3.0), ["day", "month"], id="the-longer-one-last"),
    ],
)
def test_a_limit_is_reached_when_all_of_it_is_spent(rules: Rules, which: list[str]) -> None:
    assert [limit.which for limit in budget.reached(SPENT, rules)] == which


@pytest.mark.parametrize(
    ("began", "opens"),
    [
        ("2026-11-25", "2026-12-01 00:00 UTC"),
        ("2026-12-31", "2027-01-01 00:00 UTC"),
        ("2028-02-29", "2028-03-01 00:00 UTC"),
    ],
)
def test_a_month_opens_on_the_first_of_the_next(began: str, opens: str) -> None:
    at_ms = ms(began)
    spent = budget.after_cost(budget.nothing(now_ms=at_ms), NANO, now_ms=at_ms)
    (limit,) = budget.reached(spent, Rules(usd_per_month=1.0))
    assert budget.shown(limit) == f"workspace budget of 1.00 USD for this month is spent; opens {opens}"


def test_people_are_told_when_and_programs_in_the_words_of_the_api() -> None:
    (limit,) = budget.reached(SPENT, Rules(usd_per_day=3.0))
    assert budget.shown(limit) == "workspace budget of 3.00 USD for today is spent; opens 00:00 UTC"
    assert budget.refusal(limit) == (
        "You have reached your specified workspace API usage limits. "
        "You will regain access on 2026-11-26 at 00:00 UTC."
    )


def test_the_next_change_is_the_next_midnight() -> None:
    assert budget.next_change_ms(NOW) == ms("2026-11-26")
    assert budget.next_change_ms(ms("2026-11-26")) == ms("2026-11-27")


def test_nothing_is_spent_in_a_beginning() -> None:
    assert budget.nothing(now_ms=NOW) == Spent(day_began_ms=ms("2026-11-25"), month_began_ms=ms("2026-11-01"))
