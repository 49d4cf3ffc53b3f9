"""Batches of synthetic prose: the same bytes for the same seed, on any machine.

Words follow Zipf's law and sentences repeat nothing on purpose, so that the text compresses about as real prose does
(3 times at the level we store with). Sizes of requests are log-normal, and all share one system prompt.
"""

import json
import random
from bisect import bisect_left
from itertools import accumulate

CORPUS_BYTES = 6_000_000  # Much more than what deflate can look back.
_WORDS = 12_000
_SYSTEM_BYTES = 600
_SIGMA = 0.8  # Of the logarithm of the size: a tenth of the requests is 2.8 times the median or more.


class Prose:
    """An endless text, cut at sentences."""

    def __init__(self, seed: int, *, corpus_bytes: int = CORPUS_BYTES) -> None:
        self._random = random.Random(seed)
        sentences = self._sentences(corpus_bytes)
        self._text = "".join(sentences)
        self._starts = [0]
        for sentence in sentences:
            self._starts.append(self._starts[-1] + len(sentence))

    def passage(self, length: int) -> str:
        """Some whole sentences, of about this many characters together, starting anywhere."""
        begin = self._starts[bisect_left(self._starts, self._random.randrange(max(1, len(self._text) - length)))]
        end = self._starts[min(bisect_left(self._starts, begin + length), len(self._starts) - 1)]
        return self._text[begin:end]

    def length(self, mean: float) -> int:
        """A log-normal length with this mean."""
        return max(20, int(mean * self._random.lognormvariate(-_SIGMA * _SIGMA / 2, _SIGMA)))

    def _sentences(self, corpus_bytes: int) -> list[str]:
        dice = self._random
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        weights = [
            12,
            9,
            8,
            7.5,
            7,
            6.7,
            6.3,
            6,
            5.9,
            4.2,
            4,
            2.8,
            2.7,
            2.4,
            2.2,
            2.3,
            2,
            1.9,
            1,
            1.5,
            2,
            0.8,
            *[0.1] * 4,
        ]
        words = ["".join(dice.choices(letters, weights, k=1 + int(dice.gammavariate(3, 1.6)))) for _ in range(_WORDS)]
        frequencies = list(accumulate(1 / (rank + 2.7) for rank in range(_WORDS)))
        found, size = list[str](), 0
        while size < corpus_bytes:
            chosen = dice.choices(words, cum_weights=frequencies, k=dice.randrange(6, 24))
            end = dice.choice((". ", ". ", ". ", "? ", ".\n\n", " – so she said. "))
            found.append(" ".join(chosen).capitalize() + end)
            size += len(found[-1])
        return found


def params(text: str, *, system: str = "", model: str = "echo") -> str:
    """The `params` of one request, as JSON."""
    head = f'"system":{json.dumps(system, ensure_ascii=False)},' if system else ""
    content = json.dumps(text, ensure_ascii=False)
    return f'{{"model":"{model}","max_tokens":256,{head}"messages":[{{"role":"user","content":{content}}}]}}'


def batch_body(requests: int, size_bytes: int, *, seed: int) -> bytes:
    """A create body of so many requests, within a hundredth of this size."""
    prose = Prose(seed, corpus_bytes=min(CORPUS_BYTES, size_bytes))
    system = prose.passage(_SYSTEM_BYTES)
    fixed = len(f'{{"custom_id":"request-{0:06d}","params":,}}' + params("", system=system))
    mean = max(40.0, (size_bytes / requests - fixed) * 0.955)  # Escapes and the rest of a sentence are on top.
    entries = []
    for index in range(requests):
        # Real prompts rarely begin alike. Without the number, sorting would find neighbours that are copies.
        text = params(f"Case {index}. {prose.passage(prose.length(mean))}", system=system)
        entries.append(f'{{"custom_id":"request-{index:06d}","params":{text}}}')
    return ('{"requests":[' + ",".join(entries) + "]}").encode()
