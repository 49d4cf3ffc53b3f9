"""A rate limiter as hosted APIs have it: three token buckets, headers, 429. Time is an argument: it may be virtual.

Input is taken when a request arrives, output as it is produced, whatever `max_tokens` says
(https://platform.claude.com/docs/en/api/rate-limits).
Headers round tokens to thousands and times to seconds, as there.
"""

from collections import deque
from datetime import UTC, datetime
from math import ceil
from typing import NamedTuple

_MINUTE_MS = 60_000


class Verdict(NamedTuple):
    """What a server answers: 200 or 429, with these headers."""

    status: int
    headers: dict[str, str]


class RateLimiter:
    """The limits of one organization. `passed` and `refused` count requests."""

    def __init__(
        self, *, requests: int, input_tokens: int, output_tokens: int, growth: float | None = None, floor: float = 0.3
    ) -> None:
        """Limits are per minute. With `growth`, no minute may take more than that multiple of the minute before,
        nor less than `floor`, a share of the limits."""
        self.passed = self.refused = 0
        self._limits = {"requests": requests, "input-tokens": input_tokens, "output-tokens": output_tokens}
        self._levels = {name: float(limit) for name, limit in self._limits.items()}
        self._growth, self._floor = growth, floor
        self._recent: deque[tuple[float, float]] = deque()  # When, and what share of the limits, two minutes back.
        self._at_ms = 0.0

    def arrive(self, input_tokens: int, *, now_ms: float) -> Verdict:
        """A request comes. If it passes, it has taken its input; `produce` takes its output."""
        self._refill(now_ms)
        costs = {"requests": 1, "input-tokens": input_tokens, "output-tokens": 1}
        empty = [name for name, cost in costs.items() if self._levels[name] < min(cost, self._limits[name])]
        share = max(costs[name] / self._limits[name] for name in ("requests", "input-tokens"))
        if empty or self._grows_too_fast(share, now_ms):
            self.refused += 1
            waits_s = [(costs[name] - self._levels[name]) * 60 / self._limits[name] for name in empty] or [5.0]
            return Verdict(429, self.headers(now_ms=now_ms) | {"retry-after": str(max(1, ceil(max(waits_s))))})
        self.passed += 1
        self._recent.append((now_ms, share))
        self._levels["requests"] -= 1
        self._levels["input-tokens"] -= input_tokens
        return Verdict(200, self.headers(now_ms=now_ms))

    def produce(self, output_tokens: int, *, now_ms: float) -> None:
        """So much more of an answer is there."""
        self._refill(now_ms)
        self._levels["output-tokens"] -= output_tokens

    def headers(self, *, now_ms: float) -> dict[str, str]:
        """What is left now, as https://platform.claude.com/docs/en/api/rate-limits#response-headers has it."""
        self._refill(now_ms)
        told = {}
        for name, limit in self._limits.items():
            left = max(0.0, self._levels[name])
            shown = int(left) if name == "requests" else min(limit, round(left / 1000) * 1000)
            full_ms = now_ms + (limit - self._levels[name]) * _MINUTE_MS / limit
            stem = f"anthropic-ratelimit-{name}"
            told[f"{stem}-limit"] = str(limit)
            told[f"{stem}-remaining"] = str(shown)
            told[f"{stem}-reset"] = datetime.fromtimestamp(ceil(full_ms / 1000), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return told

    def _refill(self, now_ms: float) -> None:
        passed_ms = now_ms - self._at_ms
        for name, limit in self._limits.items():
            self._levels[name] = min(float(limit), self._levels[name] + limit * passed_ms / _MINUTE_MS)
        self._at_ms = now_ms

    def _grows_too_fast(self, share: float, now_ms: float) -> bool:
        if self._growth is None:
            return False
        while self._recent and self._recent[0][0] < now_ms - 2 * _MINUTE_MS:
            self._recent.popleft()
        last = sum(one for at_ms, one in self._recent if at_ms >= now_ms - _MINUTE_MS)
        before = sum(one for at_ms, one in self._recent if at_ms < now_ms - _MINUTE_MS)
        return last + share > max(self._floor, self._growth * before)
