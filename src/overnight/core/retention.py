"""How long the requests and the results of a batch are kept. Pure.

Without rules of a workspace it is as the hosted API has it: both for 29 days from the creation of the batch
(https://platform.claude.com/docs/en/build-with-claude/batch-processing). A batch that has not ended keeps both.
"""

from typing import Final

from msgspec import Struct

from overnight.core.workspace import NO_RULES, Rules
from overnight.limits import DAY_MS, RESULTS_LIFETIME_MS


class Kept(Struct, frozen=True, kw_only=True):
    """How long, in ms from the creation of a batch."""

    results_ms: int
    requests_ms: int  # Never longer than the results.


def kept(rules: Rules) -> Kept:
    """What the rules of a workspace come to."""
    results_ms = RESULTS_LIFETIME_MS if rules.results_days is None else rules.results_days * DAY_MS
    requests_ms = results_ms if rules.requests_days is None else rules.requests_days * DAY_MS
    return Kept(results_ms=results_ms, requests_ms=min(requests_ms, results_ms))


AS_THE_API: Final = kept(NO_RULES)
