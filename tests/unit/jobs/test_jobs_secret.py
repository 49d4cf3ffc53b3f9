"""jobs.secret: nothing secret stands in a job file or a message."""

import pytest

from overnight.errors import JobError
from overnight.jobs.secret import resolved, shown


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param("sqlite:///a.db", "sqlite:///a.db", id="plain"),
        pytest.param("env:DB", "sqlite:///b.db", id="a-name"),
        pytest.param("", "", id="empty"),
    ],
)
def test_a_name_is_read_from_the_environment_and_a_value_is_itself(value: str, found: str) -> None:
    assert resolved(value, {"DB": "sqlite:///b.db"}) == found


@pytest.mark.parametrize("environment", [{}, {"DB": ""}], ids=["unset", "empty"])
def test_a_variable_without_a_value_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(JobError, match="'DB' is not set"):
        resolved("env:DB", environment)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        pytest.param("postgresql://ann:geheim@db:5432/a", "postgresql://ann:***@db:5432/a", id="password"),
        pytest.param("postgresql://db/a?user=ann&password=geheim", "postgresql://db/a", id="an-option"),
        pytest.param("postgresql://ann:ge@heim@db/a", "postgresql://***", id="unescaped-@"),
        pytest.param("postgresql://ann:x@geheim/y@db/a", "postgresql://***", id="unescaped-@-and-slash"),
        pytest.param("postgresql://ann:5/geheim@db/a", "postgresql://ann:***@db/a", id="unescaped-slash"),
        pytest.param("geheim", "a database URL that cannot be read", id="no-url"),
        pytest.param("postgresql://ann@db:geheim/a", "a database URL that cannot be read", id="no-port"),
        pytest.param("sqlite:///a.db", "sqlite:///a.db", id="none"),
    ],
)
def test_a_password_is_not_shown(url: str, seen: str) -> None:
    assert shown(url) == seen
