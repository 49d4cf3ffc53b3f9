"""How many tokens a request will take, learnt from what earlier ones took: no tokenizer, two averages per model.

Bytes per token and the share of `max_tokens` that answers use, each an exponential average over about the last
hundred answers (the idea after arXiv 2604.09613). Before the first answer: four bytes a token, a quarter of
`max_tokens`.
"""

from typing import NamedTuple

from msgspec import Struct

from overnight.wire.message import Usage

_MEMORY = 0.02  # Weight of the newest answer.


class Tokens(NamedTuple):
    """Of one request, estimated or true. `input` is all of the prompt, cached or not."""

    input: int
    output: int

    @property
    def total(self) -> int:
        """Both together: what an engine holds for it at its end."""
        return self.input + self.output


def of_usage(usage: Usage) -> Tokens:
    """What an answer took: in `usage` cached tokens are not part of `input_tokens`."""
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return Tokens(input=usage.input_tokens + cached, output=usage.output_tokens)


class Estimator(Struct, frozen=True, kw_only=True):
    """What answers of one model were like so far."""

    bytes_per_token: float = 4.0
    output_share: float = 0.25
    answers: int = 0


FRESH = Estimator()


def estimated(estimator: Estimator, *, size_bytes: int, max_tokens: int) -> Tokens:
    """What a request of this size and limit will likely take."""
    return Tokens(
        input=max(1, round(size_bytes / estimator.bytes_per_token)),
        output=max(1, round(max_tokens * estimator.output_share)),
    )


def learnt(estimator: Estimator, *, size_bytes: int, max_tokens: int, took: Tokens) -> Estimator:
    """The estimator after one more answer. One that tells no tokens teaches nothing."""
    if took.input <= 0:
        return estimator
    weight = max(_MEMORY, 1 / (estimator.answers + 1))  # The first answers weigh more: they replace a guess.
    share = min(1.0, took.output / max(1, max_tokens))
    return Estimator(
        bytes_per_token=_moved(estimator.bytes_per_token, size_bytes / took.input, weight),
        output_share=_moved(estimator.output_share, share, weight),
        answers=estimator.answers + 1,
    )


def _moved(average: float, seen: float, weight: float) -> float:
    return average + weight * (seen - average)
