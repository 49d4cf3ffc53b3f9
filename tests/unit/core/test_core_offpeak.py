"""core.offpeak: windows on a real calendar, deadlines over a simulated day, and what a signal says."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from random import Random

import pytest

from overnight import limits
from overnight.core import offpeak
from overnight.core.offpeak import ALWAYS, Due, Hours, Miss, Reading, Seen, Signal
from overnight.errors import UsageError

MINUTE, HOUR = 60_000, 3_600_000
STEP = 5 * MINUTE  # Of simulated days.
DAY = 24 * HOUR
NIGHT = offpeak.parse(["22:00-06:00"], "Europe/Berlin")


def at(text: str) -> int:
    """An instant of "2026-11-25T08:00+01:00"."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


MORNING = at("2026-11-25T08:00+01:00")  # A Wednesday.


def open_minutes(hours: Hours, first: str, last: str) -> list[str]:
    """The open stretches between two instants, as UTC times, found minute by minute."""
    found, was_open = [], False
    for minute in range(at(first) // MINUTE, at(last) // MINUTE + 1):
        is_open = offpeak.is_open(hours, minute * MINUTE)
        if is_open != was_open:
            found.append(datetime.fromtimestamp(minute * 60, tz=UTC).strftime("%H:%M"))
        was_open = is_open
    return found


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "inside", "outside"),
    [
        pytest.param(
            ["22:00-06:00"], ["mon 22:00", "tue 05:59", "sun 23:00"], ["mon 21:59", "tue 06:00"], id="over midnight"
        ),
        pytest.param(
            ["09:00-17:30"], ["mon 09:00", "sun 17:29"], ["mon 08:59", "mon 17:30"], id="in a day, without its end"
        ),
        pytest.param(["sat,sun"], ["sat 00:00", "sun 23:59"], ["fri 23:59", "mon 00:00"], id="days"),
        pytest.param(["sat 00:00-24:00"], ["sat 00:00", "sat 23:59"], ["sun 00:00", "fri 23:59"], id="until 24:00"),
        pytest.param(["sat 20:00-00:00"], ["sat 23:59"], ["sun 00:00", "sat 19:59"], id="until 00:00"),
        pytest.param(
            ["mon-fri 22:00-06:00"],
            ["mon 22:00", "sat 05:59"],
            ["mon 05:59", "sat 22:00", "sun 23:00"],
            id="of the day on which it begins",
        ),
        pytest.param(
            ["sun 22:00-06:00"], ["sun 22:00", "mon 05:59"], ["mon 06:00", "sun 05:59"], id="over the week's end"
        ),
        pytest.param(
            ["fri-mon"], ["fri 00:00", "mon 23:59"], ["tue 00:00", "thu 23:59"], id="days over the week's end"
        ),
        pytest.param(
            ["mon,wed-thu 1:00-2:00"], ["mon 01:00", "wed 01:00", "thu 01:59"], ["tue 01:00"], id="a list of days"
        ),
        pytest.param(
            ["22:00-02:00", "01:00-06:00", "sat"],
            ["tue 01:30", "sat 12:00", "tue 05:00"],
            ["tue 12:00"],
            id="several",
        ),
        pytest.param([" SAT - Sun   22:00 - 6:00 "], ["sat 22:00", "mon 05:59"], ["fri 23:00"], id="loosely written"),
    ],
)
def test_a_window_holds_its_times_and_no_other(texts: list[str], inside: list[str], outside: list[str]) -> None:
    days = {"mon": 23, "tue": 24, "wed": 25, "thu": 26, "fri": 27, "sat": 28, "sun": 29}  # November 2026.
    hours = offpeak.parse(texts, "Europe/Berlin")
    for when, expected in [*((when, True) for when in inside), *((when, False) for when in outside)]:
        day, time = when.split()
        assert offpeak.is_open(hours, at(f"2026-11-{days[day]}T{time}+01:00")) == expected, when


def test_without_windows_it_is_always_open_and_needs_no_time_zone() -> None:
    assert offpeak.parse([], "") == ALWAYS
    assert offpeak.is_open(ALWAYS, MORNING)
    assert offpeak.next_change_ms(ALWAYS, MORNING) is None
    assert offpeak.open_ms(ALWAYS, MORNING, MORNING + 9 * DAY) == 9 * DAY
    assert offpeak.shown(ALWAYS, MORNING) == "always open"


def test_windows_that_touch_are_one() -> None:
    whole = offpeak.parse(["mon-thu", "fri-sat 00:00-12:00", "fri-sat 12:00-24:00", "sun 00:00-24:00"], "UTC")
    assert whole.edges_ms == ALWAYS.edges_ms
    assert offpeak.next_change_ms(whole, MORNING) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no window: write for example"),
        ("night", "'night' is no day: write mon, tue"),
        ("22:00", "is no window"),
        ("22-06", "is no window"),
        ("22:00-06:00 sat", "is no window"),
        ("sat,", "is no window"),
        ("montag 22:00-06:00", "'montag' is no day"),
        ("mon-wed-fri", "'mon-wed-fri' is no day"),
        ("22:00-25:00", "25:00 is no time of day"),
        ("22:60-23:00", "22:60 is no time of day"),
        ("22:00-24:01", "24:01 is no time of day"),
        ("24:00-06:00", "begins at 24:00: write 00:00"),
        ("22:00-22:00", "write 00:00-24:00 for a whole day"),
    ],
)
def test_a_window_that_cannot_be_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as found:
        offpeak.parse(["sat", text], "UTC")
    assert f"hours: {text!r}" in str(found.value)


@pytest.mark.parametrize("zone", ["Berlin", "Europe", "../etc/passwd", "/etc/localtime", "UTC+1", "a\0b"])
def test_a_time_zone_that_is_none_is_refused_with_what_to_write(zone: str) -> None:
    with pytest.raises(UsageError, match='write an IANA name such as "Europe/Berlin"'):
        offpeak.parse(["sat"], zone)


def test_hours_without_a_time_zone_are_refused() -> None:
    with pytest.raises(UsageError, match="hours need a time_zone"):
        offpeak.parse(["sat"], "")


# --- daylight saving ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        pytest.param("22:00-06:00", ["21:00", "04:00"], id="7 hours, an hour less"),
        pytest.param("23:00-02:30", ["22:00", "01:00"], id="ends in the skipped hour: at the jump"),
        pytest.param("02:30-04:00", ["01:00", "02:00"], id="begins in the skipped hour: at the jump"),
        pytest.param("02:15-02:45", [], id="inside the skipped hour: not that day"),
        pytest.param("02:00-03:00", [], id="the skipped hour itself"),
        pytest.param("01:00-03:00", ["00:00", "01:00"], id="ends where the clock jumps to"),
    ],
)
def test_in_spring_windows_follow_the_clock_on_the_wall(text: str, utc: list[str]) -> None:
    """Berlin, 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC."""
    hours = offpeak.parse([text], "Europe/Berlin")
    assert open_minutes(hours, "2026-03-28T13:00+01:00", "2026-03-29T13:00+02:00") == utc


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        pytest.param("22:00-06:00", ["20:00", "05:00"], id="9 hours, an hour more"),
        pytest.param("23:00-02:30", ["21:00", "00:30", "01:00", "01:30"], id="ends in the repeated hour: twice"),
        pytest.param("02:30-04:00", ["00:30", "01:00", "01:30", "03:00"], id="begins in the repeated hour: twice"),
        pytest.param("02:15-02:45", ["00:15", "00:45", "01:15", "01:45"], id="inside the repeated hour: twice"),
        pytest.param("02:00-03:00", ["00:00", "02:00"], id="the repeated hour itself"),
    ],
)
def test_in_autumn_windows_follow_the_clock_on_the_wall(text: str, utc: list[str]) -> None:
    """Berlin, 25 October 2026: 03:00 becomes 02:00 at 01:00 UTC."""
    hours = offpeak.parse([text], "Europe/Berlin")
    assert open_minutes(hours, "2026-10-24T13:00+02:00", "2026-10-25T13:00+01:00") == utc


def test_a_window_that_is_skipped_is_met_a_week_later() -> None:
    hours = offpeak.parse(["sun 02:00-03:00"], "Europe/Berlin")
    assert offpeak.next_change_ms(hours, at("2026-03-22T03:00+01:00")) == at("2026-04-05T02:00+02:00")


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
)
@pytest.mark.parametrize("texts", [["22:00-06:00"], ["01:45-02:15", "sun 02:30-12:00"]], ids=["night", "odd"])
@pytest.mark.parametrize(
    "first", ["2026-03-06", "2026-03-27", "2026-04-03", "2026-10-02", "2026-10-23", "2026-10-30"]
)
def test_open_time_and_changes_are_those_that_are_counted_minute_by_minute(
    zone: str, texts: list[str], first: str
) -> None:
    """Around the days on which Berlin, New York and Lord Howe (by half an hour) change their clocks."""
    hours, start_ms = offpeak.parse(texts, zone), at(f"{first}T00:00+00:00")
    opens = [offpeak.is_open(hours, start_ms + minute * MINUTE) for minute in range(3 * 24 * 60 + 1)]
    assert offpeak.open_ms(hours, start_ms, start_ms + 3 * DAY) == sum(opens[:-1]) * MINUTE
    counted = [start_ms + minute * MINUTE for minute in range(1, len(opens)) if opens[minute] != opens[minute - 1]]
    told, now_ms = [], start_ms
    while (change_ms := offpeak.next_change_ms(hours, now_ms)) is not None and change_ms <= start_ms + 3 * DAY:
        told.append(change_ms)
        now_ms = change_ms
    assert told == counted


def test_open_time_is_exact_to_the_millisecond_and_never_negative() -> None:
    opens_ms = at("2026-11-25T22:00+01:00")
    assert offpeak.open_ms(NIGHT, opens_ms - 7, opens_ms + 5) == 5
    assert offpeak.open_ms(NIGHT, opens_ms + 5, opens_ms) == 0


@pytest.mark.parametrize(
    ("texts", "now", "said"),
    [
        (["22:00-06:00"], "2026-11-25T08:00+01:00", "opens today 22:00 Europe/Berlin"),
        (["22:00-06:00"], "2026-11-25T23:00+01:00", "open until tomorrow 06:00 Europe/Berlin"),
        (["22:00-06:00"], "2026-11-25T05:00+01:00", "open until today 06:00 Europe/Berlin"),
        (["sat,sun"], "2026-11-25T08:00+01:00", "opens Saturday 00:00 Europe/Berlin"),
        (["wed 06:00-07:00"], "2026-11-25T08:00+01:00", "opens 2026-12-02 06:00 Europe/Berlin"),
        (["02:30-04:00"], "2026-03-29T01:00+01:00", "opens today 03:00 Europe/Berlin"),
    ],
)
def test_the_next_change_is_told_in_words(texts: list[str], now: str, said: str) -> None:
    assert offpeak.shown(offpeak.parse(texts, "Europe/Berlin"), at(now)) == said


# --- deadlines ----------------------------------------------------------------------------------------------------


def hours_of_work(*pairs: tuple[float, float]) -> list[Due]:
    """Deadlines in hours from `MORNING`, and hours of work."""
    return [Due(deadline_ms=MORNING + round(due * HOUR), work_ms=work * HOUR) for due, work in pairs]


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        pytest.param([], 0.0, id="nothing to do"),
        pytest.param([(24, 6.4)], 0.0, id="fits into the 8 open hours, with 1.25"),
        pytest.param([(24, 8.0)], 2 / 16, id="2 hours of it do not: spread over the 16 closed ones"),
        pytest.param([(24, 12.8)], 8 / 16, id="8 hours do not"),
        pytest.param([(24, 19.2)], 1.0, id="all the time is needed"),
        pytest.param([(24, 90)], 1.0, id="more than all the time is needed"),
        pytest.param([(14, 5.6)], 7 / 14, id="due when the window opens"),
        pytest.param([(10, 4.0)], 5 / 10, id="due before the window opens"),
        pytest.param([(10, 4.0), (24, 1.0)], 5 / 10, id="the nearest deadline presses most"),
        pytest.param([(24, 6.4), (16, 1.6)], 2 / 16, id="together they do not fit, whatever their order"),
        pytest.param([(-1, 0.1)], 1.0, id="late already"),
        pytest.param([(-1, 0.0), (0, 0.0)], 0.0, id="late, with nothing left to do"),
    ],
)
def test_outside_the_windows_runs_only_what_would_be_late(due: list[tuple[float, float]], expected: float) -> None:
    found = offpeak.share(NIGHT, now_ms=MORNING, due=hours_of_work(*due))
    assert found == pytest.approx(expected, abs=1e-12)
    assert (found == 0.0) == (expected == 0.0)


def test_inside_the_windows_the_whole_engine_is_free() -> None:
    assert offpeak.share(NIGHT, now_ms=at("2026-11-25T22:00+01:00"), due=[]) == 1.0


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        pytest.param([(24, 14.4)], 0.0, id="fits into the time after 6 hours"),
        pytest.param([(24, 15.2)], 1 / 6, id="an hour of it does not"),
        pytest.param([(5, 2.0)], 2.5 / 5, id="due before the signal can be expected to fall"),
    ],
)
def test_a_high_signal_is_taken_to_stay_high_for_six_hours(due: list[tuple[float, float]], expected: float) -> None:
    found = offpeak.share(ALWAYS, now_ms=MORNING, due=hours_of_work(*due), is_cheap=False)
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_high_signal_closes_an_open_window_and_a_low_one_opens_none() -> None:
    night_ms = at("2026-11-25T23:00+01:00")
    assert offpeak.share(NIGHT, now_ms=night_ms, due=[], is_cheap=False) == 0.0
    assert offpeak.share(NIGHT, now_ms=MORNING, due=[], is_cheap=True) == 0.0


class Day:
    """A day run in steps: how long the engine ran while closed, and what was late."""

    def __init__(self, due: Sequence[Due], share: Callable[[int, list[Due]], float], hours: Hours) -> None:
        left = {one.deadline_ms: 0.0 for one in sorted(due, key=lambda one: one.deadline_ms)}
        for one in due:
            left[one.deadline_ms] += one.work_ms
        self.closed_ms = self.late_ms = 0.0
        self.shares: list[float] = []
        for now_ms in range(MORNING, MORNING + DAY, STEP):
            part = share(now_ms, [Due(deadline_ms=when, work_ms=work) for when, work in left.items()])
            self.shares.append(part)
            room_ms = part * STEP
            for deadline_ms, work_ms in left.items():
                if deadline_ms <= now_ms:
                    continue
                done_ms = min(work_ms, room_ms)
                left[deadline_ms] -= done_ms
                room_ms -= done_ms
                self.closed_ms += 0.0 if offpeak.is_open(hours, now_ms) else done_ms
        self.late_ms = sum(left.values())


def plainly(_now_ms: int, _due: list[Due]) -> float:
    return 1.0


def days_of_work(count: int) -> list[list[Due]]:
    """Days from idle to more than can be done, with up to five deadlines, each at the end of a step."""
    dice = Random(7)
    return [
        [
            Due(deadline_ms=MORNING + dice.randrange(1, DAY // STEP + 1) * STEP, work_ms=dice.random() * load * HOUR)
            for _ in range(dice.randrange(1, 6))
        ]
        for load in (0.5, 3, 8)
        for _ in range(count // 3)
    ]


@pytest.mark.parametrize("texts", [["22:00-06:00"], ["12:00-13:00", "03:00-03:30"], ["sat"]], ids=str)
@pytest.mark.parametrize("is_cheap", [True, False], ids=["low", "high all day"])
def test_no_deadline_of_a_day_is_missed_that_running_at_all_times_keeps(texts: list[str], is_cheap: bool) -> None:
    hours = offpeak.parse(texts, "Europe/Berlin")
    kept = waited = 0
    for due in days_of_work(60):
        if Day(due, plainly, hours).late_ms > 0:
            continue
        found = Day(due, lambda now_ms, left: offpeak.share(hours, now_ms=now_ms, due=left, is_cheap=is_cheap), hours)
        assert found.late_ms < 1.0, due  # A millisecond of a day in floating point.
        kept += 1
        waited += min(found.shares) < 1.0
    assert kept >= 20
    assert waited >= 20


def test_nothing_of_a_day_runs_outside_the_windows_unless_it_would_be_late() -> None:
    idle = ramped = 0
    for due in days_of_work(60):
        if Day(due, plainly, NIGHT).late_ms > 0:
            continue
        found = Day(due, lambda now_ms, left: offpeak.share(NIGHT, now_ms=now_ms, due=left), NIGHT)
        lacking_ms = [
            sum(one.work_ms for one in due if one.deadline_ms <= last.deadline_ms) * limits.OFF_PEAK_SAFETY
            - offpeak.open_ms(NIGHT, MORNING, last.deadline_ms)
            for last in due
        ]
        assert found.closed_ms <= max(0.0, *lacking_ms) + 1.0, due
        idle += found.closed_ms == 0.0
        ramped += found.closed_ms > 0.0
    assert idle >= 5
    assert ramped >= 5


def test_work_that_does_not_fit_begins_at_once_and_small_and_never_jumps() -> None:
    due = hours_of_work((24, 8))
    found = Day(due, lambda now_ms, left: offpeak.share(NIGHT, now_ms=now_ms, due=left), NIGHT)
    daytime = found.shares[: 14 * HOUR // STEP]  # 08:00 to 22:00.
    assert daytime[0] == pytest.approx(2 / 16)
    assert min(daytime) > 0.0
    assert max(abs(later - before) for before, later in pairwise(daytime)) < 0.01


def test_under_a_signal_that_stays_high_work_ramps_up_as_its_deadline_comes_near() -> None:
    due = hours_of_work((24, 2))
    found = Day(due, lambda now_ms, left: offpeak.share(ALWAYS, now_ms=now_ms, due=left, is_cheap=False), ALWAYS)
    begins = next(step for step, part in enumerate(found.shares) if part > 0.0)
    assert begins * STEP == 15.5 * HOUR + STEP  # Two hours with safety fit no more after the six hours.
    assert max(abs(later - before) for before, later in pairwise(found.shares[:-12])) < 0.05  # But the last hour.
    assert found.late_ms < 1.0


# --- signal -------------------------------------------------------------------------------------------------------

PRICE = Signal(url="https://prices.example.com/now?key=secret", field="data.0.price", at_most=0.2)


@pytest.mark.parametrize(
    ("field", "body", "expected"),
    [
        ("", b"0.25", Reading(0.25)),
        ("", b' "-3"\n', Reading(-3.0)),
        ("data.0.price", b'{"data":[{"price":12},{"price":13}]}', Reading(12.0)),
        ("data.-1.price", b'{"data":[{"price":12},{"price":13}]}', Reading(13.0)),
        ("2026.price", b'{"2026":{"price":1e3}}', Reading(1000.0)),
        ("state", b'{"state":"0.31"}', Reading(0.31)),
        ("", b"", Miss("the answer is not JSON")),
        ("", b"<html>", Miss("the answer is not JSON")),
        ("", b'"\xff"', Miss("the answer is not JSON")),
        ("", b"[" * 60_000, Miss("the answer is not JSON")),
        ("", b"{}", Miss("'the answer' is no number")),
        ("price", b"[]", Miss("the answer has no 'price'")),
        ("price", b"1", Miss("the answer has no 'price'")),
        ("data.1", b'{"data":[1]}', Miss("the answer has no 'data.1'")),
        ("data.price", b'{"data":[1]}', Miss("the answer has no 'data.price'")),
        ("price", b'{"price":null}', Miss("'price' is no number")),
        ("price", b'{"price":true}', Miss("'price' is no number")),
        ("price", b'{"price":"unavailable"}', Miss("'price' is no number")),
        ("price", b'{"price":"nan"}', Miss("'price' is no number")),
        ("price", b'{"price":"inf"}', Miss("'price' is no number")),
        ("price", b'{"price":1' + b"0" * 400 + b"}", Miss("'price' is no number")),
    ],
)
def test_a_number_is_found_in_json_or_the_reading_is_a_miss(field: str, body: bytes, expected: object) -> None:
    assert offpeak.read(body, field=field) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.2, True), (0.200001, False), (-5.0, True)])
def test_a_signal_is_low_up_to_its_limit(value: float, expected: bool) -> None:
    assert offpeak.is_cheap(PRICE, offpeak.after(offpeak.UNSEEN, Reading(value))) == expected


def test_a_signal_that_was_never_read_lets_work_run() -> None:
    assert offpeak.is_cheap(PRICE, offpeak.UNSEEN)
    assert offpeak.is_cheap(PRICE, offpeak.after(offpeak.UNSEEN, Miss("away")))


def test_a_high_value_counts_until_three_misses_in_a_row_and_the_trouble_is_told() -> None:
    seen, found = offpeak.after(offpeak.UNSEEN, Reading(0.9)), []
    for _ in range(limits.SIGNAL_MISSES_MAX):
        seen = offpeak.after(seen, Miss("away"))
        found.append((offpeak.is_cheap(PRICE, seen), seen.trouble))
    assert found == [
        (False, "away (1 in a row; the last value, 0.9, still counts)"),
        (False, "away (2 in a row; the last value, 0.9, still counts)"),
        (True, "away (3 in a row; hours alone decide)"),
    ]
    assert offpeak.after(seen, Reading(0.9)) == Seen(value=0.9)


def test_a_reading_between_misses_begins_the_count_anew() -> None:
    seen = offpeak.UNSEEN
    for found in (Reading(0.9), Miss("a"), Miss("b"), Reading(0.8), Miss("c"), Miss("d")):
        seen = offpeak.after(seen, found)
    assert (seen.value, seen.misses) == (0.8, 2)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "prices.example.com/secret",
        "ftp://prices.example.com/secret",
        "file:///etc/secret",
        "https://",
        "https:///secret",
        "https://host:0/secret",
        "https://host:secret/",
        "https://[::1/secret",
        "https://a b/secret",
        "https://host/a\r\nsecret: 1",
        "https://a..b/secret",
        f"https://{'a' * 64}.example.com/secret",
        "https://user:secret@host/",
    ],
)
def test_an_address_that_cannot_be_asked_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="signal: url") as found:
        offpeak.check(Signal(url=url, at_most=1.0))
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("at_most", [float("nan"), float("inf")])
def test_a_limit_that_is_no_number_is_refused(at_most: float) -> None:
    with pytest.raises(UsageError, match="at_most"):
        offpeak.check(Signal(url="https://host/", at_most=at_most))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "https://[::1]:8/x?key=1", "https://host.example.com./a#b"])
def test_usual_addresses_are_taken(url: str) -> None:
    offpeak.check(Signal(url=url, at_most=1.0))


def test_of_an_address_only_its_host_is_shown() -> None:
    assert offpeak.place(PRICE) == "https://prices.example.com"
