"""runner.order: at the end of a batch the longest begin, and what shares a prefix stays together."""

import msgspec
import pytest
from runs import run_of

from overnight.runner.order import longest_first
from overnight.wire import params
from overnight.wire.create import Request


def ordered(*asked: tuple[str, int]) -> list[str]:
    """Requests of a system prompt and `max_tokens` each, named by their place; their names in the new order."""
    run = run_of(len(asked))
    works = run.start(
        Request(
            f"{system}{index}",
            msgspec.Raw(
                msgspec.json.encode(
                    {
                        "model": "m",
                        "max_tokens": limit,
                        "system": system,
                        "messages": [{"role": "user", "content": str(index)}],
                    }
                )
            ),
        )
        for index, (system, limit) in enumerate(asked)
    )
    for work in works:
        work.know(params.read_batched(work.params))
    return [work.custom_id for work in longest_first(works)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([("a", 9), ("b", 9), ("a", 9)], ["a0", "b1", "a2"], id="all alike: prompt order"),
        pytest.param([("a", 1), ("a", 3), ("a", 2)], ["a1", "a2", "a0"], id="one prefix"),
        pytest.param([("a", 1), ("a", 2), ("b", 5), ("b", 1)], ["b2", "b3", "a1", "a0"], id="prefixes stay together"),
        pytest.param([("a", 2), ("a", 1), ("a", 2)], ["a0", "a2", "a1"], id="equals keep their order"),
    ],
)
def test_what_may_take_longest_begins(asked: list[tuple[str, int]], expected: list[str]) -> None:
    assert ordered(*asked) == expected
