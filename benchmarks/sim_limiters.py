"""What others do to find a number in flight: the peers in the tables of `simulate.py window`.

Defaults and formulas: Netflix concurrency-limits (Gradient2Limit, VegasLimit), and AIMD as NVIDIA NeMo Data Designer
has it.
"""

from math import log10

from overnight.core.window import Period
from overnight.testing.stepdrive import Policy


class Windowed(Policy):
    """Netflix WindowedLimit: a limiter sees the mean latency of a time, not each one by itself."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._latencies_ms: list[float] = []

    def after_answer(self, latency_ms: float, output_tokens: int, in_flight: int) -> None:
        self._latencies_ms.append(latency_ms)

    def after_period(self, seen: Period, now_ms: float) -> None:
        if len(self._latencies_ms) >= 10 and seen.in_flight * 2 >= self.limit:
            self._update(sum(self._latencies_ms) / len(self._latencies_ms))
            self._latencies_ms.clear()

    def _update(self, latency_ms: float) -> None:
        raise NotImplementedError


class Gradient2(Windowed):
    """Netflix gradient2: the limit follows long over short latency. 20 to 200, tolerance 1.5, a queue of 4."""

    def __init__(self) -> None:
        super().__init__(20)
        self._exact, self._long_ms, self._seen = 20.0, 0.0, 0

    def _update(self, latency_ms: float) -> None:
        self._seen += 1
        self._long_ms += 2 / (min(self._seen, 600) + 1) * (latency_ms - self._long_ms)
        if self._long_ms / latency_ms > 2:
            self._long_ms *= 0.95
        gradient = max(0.5, min(1.0, 1.5 * self._long_ms / latency_ms))
        self._exact = max(20.0, min(200.0, 0.8 * self._exact + 0.2 * (self._exact * gradient + 4)))
        self.limit = int(self._exact)


class Vegas(Windowed):
    """Netflix Vegas: as many queued, by the lowest latency ever seen, as 3 to 6 times log10 of the limit."""

    def __init__(self) -> None:
        super().__init__(20)
        self._least_ms = float("inf")

    def _update(self, latency_ms: float) -> None:
        self._least_ms = min(self._least_ms, latency_ms)
        queued = self.limit * (1 - self._least_ms / latency_ms)
        root = max(1.0, log10(self.limit))
        if queued < 3 * root:
            self.limit = min(1_000, self.limit + 1)
        elif queued > 6 * root:
            self.limit = max(1, self.limit - 1)


class Aimd(Policy):
    """One more after 25 answers, a quarter less at a refusal. An engine that never refuses is filled for ever."""

    def __init__(self, most: int = 4_096) -> None:
        super().__init__(16)
        self._most, self._answers, self._cut_ms = most, 0, 0.0

    def after_answer(self, latency_ms: float, output_tokens: int, in_flight: int) -> None:
        self._answers += 1
        if self._answers % 25 == 0:
            self.limit = min(self._most, self.limit + 1)

    def after_refusal(self, now_ms: float) -> None:
        if now_ms >= self._cut_ms + 2_000:
            self.limit, self._cut_ms = max(1, int(self.limit * 0.75)), now_ms
