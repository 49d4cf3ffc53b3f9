"""The order of requests at the end of a batch, where it pays to begin with those that may take longest.

A batch is done when its last answer is. One long answer that begins at the end holds all others up: with the longest
first a batch of 1,000 to 20,000 requests ends 1.06 to 1.18 times sooner, and a larger one gains nothing (simulated:
lognormal lengths, 256 or 1,024 at once). Requests that share their prefix stay together: that is worth more.
"""

from collections.abc import Sequence
from itertools import groupby

from overnight.runner.segmentrun import Work
from overnight.wire import params


def longest_first(works: Sequence[Work]) -> list[Work]:
    """Groups with a common prefix in the order of the longest answer that one of them may give; `max_tokens` is what
    a client says of that. Within a group too."""
    if len({work.max_tokens for work in works}) <= 1:
        return list(works)
    groups = [list(group) for _, group in groupby(works, key=lambda work: params.prefix_of(work.params))]
    for group in groups:
        group.sort(key=_longest, reverse=True)
    groups.sort(key=lambda group: group[0].max_tokens, reverse=True)
    return [work for group in groups for work in group]


def _longest(work: Work) -> int:
    return work.max_tokens
