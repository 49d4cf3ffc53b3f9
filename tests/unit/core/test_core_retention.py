"""core.retention: how long requests and results are kept."""

import pytest

from overnight.core.retention import AS_THE_API, Kept, kept
from overnight.core.workspace import Rules
from overnight.limits import DAY_MS, RESULTS_LIFETIME_MS

CASES = [
    (Rules(), RESULTS_LIFETIME_MS, RESULTS_LIFETIME_MS),
    (Rules(results_days=3), 3 * DAY_MS, 3 * DAY_MS),
    (Rules(requests_days=0), RESULTS_LIFETIME_MS, 0),
    (Rules(results_days=3, requests_days=2), 3 * DAY_MS, 2 * DAY_MS),
    (Rules(results_days=3, requests_days=9), 3 * DAY_MS, 3 * DAY_MS),
    (Rules(results_days=0), 0, 0),
]


@pytest.mark.parametrize(("rules", "results_ms", "requests_ms"), CASES)
def test_rules_shorten_what_the_api_promises_and_requests_never_outlive_results(
    rules: Rules, results_ms: int, requests_ms: int
) -> None:
    assert kept(rules) == Kept(results_ms=results_ms, requests_ms=requests_ms)


def test_without_rules_it_is_as_the_api() -> None:
    assert kept(Rules()) == AS_THE_API
