"""Secrets of a job file: where they are read from, and what of a database URL may be shown."""

from collections.abc import Mapping

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from overnight.errors import JobError

FROM_ENVIRONMENT = "env:"


def resolved(value: str, environment: Mapping[str, str]) -> str:
    """`value`, or where it is `env:NAME` what `environment` has as NAME. JobError where that is unset or empty."""
    if not value.startswith(FROM_ENVIRONMENT):
        return value
    name = value.removeprefix(FROM_ENVIRONMENT)
    found = environment.get(name, "")
    if not found:
        raise JobError(f"the variable {name!r} is not set, and {value!r} asks for it: export it, also for cron")
    return found


def shown(url: str | URL) -> str:
    """A database URL for messages: no password and no options, which may hold one too."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number, perhaps the end of a password.
        return "a database URL that cannot be read"
    if "@" in f"{parsed.host}{parsed.database}":  # A password with an unescaped @ has spilled into them.
        return f"{parsed.drivername}://***"
    return parsed.set(query={}).render_as_string(hide_password=True)
