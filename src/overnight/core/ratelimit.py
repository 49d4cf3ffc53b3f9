"""Requests per minute as a bucket that refills steadily: state and now give state and verdict.

The headers are those of https://platform.claude.com/docs/en/api/rate-limits.
"""

from msgspec import Struct


class Bucket(Struct, frozen=True, kw_only=True):
    """`tokens` were there at `at_ms`."""

    tokens: float
    at_ms: int


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether one more request may pass, and what its answer's headers say."""

    is_allowed: bool
    bucket: Bucket
    remaining: int
    retry_after_s: int  # Until the next one may pass; 0 if this one may.
    reset_at_ms: int  # When the bucket is full again.


def full(per_minute: int, *, now_ms: int) -> Bucket:
    """The bucket of a caller who was not here yet."""
    return Bucket(tokens=float(per_minute), at_ms=now_ms)


def take(bucket: Bucket, *, per_minute: int, now_ms: int) -> Verdict:
    """One request asks to pass."""
    tokens = _tokens(bucket, per_minute, now_ms)
    is_allowed = tokens >= 1.0
    left = tokens - 1.0 if is_allowed else tokens
    wait_ms = 0 if is_allowed else (1.0 - tokens) * 60_000 / per_minute
    return Verdict(
        is_allowed=is_allowed,
        bucket=Bucket(tokens=left, at_ms=now_ms),
        remaining=int(left),
        retry_after_s=-int(-wait_ms // 1000),
        reset_at_ms=now_ms + int((per_minute - left) * 60_000 / per_minute),
    )


def left(bucket: Bucket, *, per_minute: int, now_ms: int) -> int:
    """How many requests may pass at once now."""
    return int(_tokens(bucket, per_minute, now_ms))


def _tokens(bucket: Bucket, per_minute: int, now_ms: int) -> float:
    passed_ms = max(0, now_ms - bucket.at_ms)
    return min(float(per_minute), bucket.tokens + passed_ms * per_minute / 60_000)
