"""When a job must be done, and how long a wait may be. Pure."""

from datetime import datetime, timedelta, tzinfo

from overnight.errors import JobError
from overnight.jobs.jobfile import Limits
from overnight.wire.batch import rfc3339

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def next_time_ms(after_ms: int, hour: int, minute: int, zone: tzinfo | None = None) -> int:
    """The first hour:minute of local time after an instant, ms since the epoch. `zone`: None is this machine's."""
    began = datetime.fromtimestamp(after_ms / 1000, zone)
    found = began.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if found <= began:
        found = (began + timedelta(days=1)).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return int(found.timestamp() * 1000)


def time_of_day(text: str) -> tuple[int, int] | None:
    """Hour and minute of "06:00"; None if it is no time of day."""
    hour, _, minute = text.partition(":")
    if hour.isdecimal() and minute.isdecimal() and int(hour) < 24 and int(minute) < 60:
        return int(hour), int(minute)
    return None


def give_up_ms(created_ms: int, limits: Limits, zone: tzinfo | None = None) -> int | None:
    """When what is left of a run is cancelled: its deadline less the reserve; None if it has none.

    A run has one deadline, counted from when it was planned: midnight, and a restart, do not move it.
    """
    found = time_of_day(limits.deadline)
    if found is None:
        return None
    return next_time_ms(created_ms, *found, zone) - limits.reserve_minutes * 60_000


def instant_before(now_ms: int, *, days: int) -> str:
    """So many days ago, as the ledger writes it."""
    return rfc3339(now_ms - days * 24 * 3600 * 1000)


def seconds_of(text: str | float) -> float:
    """Seconds of "90s", "60m", "6h", "1d", or of a number. JobError for anything else."""
    if isinstance(text, int | float):
        return float(text)
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if unit not in _UNITS or not number.replace(".", "", 1).isdecimal():
        raise JobError(f'{text!r} is no length of time, such as "90s", "60m" or "6h"')
    return float(number) * _UNITS[unit]
