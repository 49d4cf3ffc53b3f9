"""How soon the next request may go to a server that tells the limits of its rate, so that it need not say 429.

The server keeps token buckets that refill steadily: requests, input tokens, output tokens, or all tokens together
(https://platform.claude.com/docs/en/api/rate-limits, https://platform.openai.com/docs/guides/rate-limits). Its
headers tell what was left at some moment between the sending of a request and its answer. From there on we reckon
ourselves: less what was sent since, plus what has flowed in.

Estimates are wrong, cache reads are free, and other clients take from the same buckets. All three show as a factor
between what we think we take and what the headers say is gone; it is learnt per bucket. What makes less of the
bucket is believed at once, what makes more of it gradually.

Growth is bounded too, since sharp increases are refused (the same page, "acceleration limits"): what passes may
double each minute.
"""

import re
from collections.abc import Mapping
from math import ceil, exp
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from overnight import limits
from overnight.core.tokens import Tokens

_MINUTE_MS = 60_000.0
_DAY_MS = 24 * 60 * _MINUTE_MS
_RESERVE_MS = 3_000.0  # So much of the inflow is left in each bucket, for what we reckon wrongly. Costs no rate.
_TRUST_MS = 10_000.0  # A header that tells of more than we thought is believed in full after this long,
_TRUST_AGES = 6.0  # and so many times its age: output counts when it is produced, and old news does not know of it.
_MEMORY_SHARE = 0.25  # Of a bucket: the factor is that of about the last so many tokens, more if answers are slow.
_MEMORY_AGES = 1.0  # Bucketfuls, for answers that are as old as the bucket takes to fill.
_FULL_SHARE = 0.9  # A bucket fuller than this may have been full since, and what flowed over cannot be told.
_FACTOR_MIN, _FACTOR_MAX = 0.02, 8.0  # Nearly everything read from a cache; others take seven times what we take.
_FLOOR = 0.25  # Shares of the limits a minute that may pass from cold.
_GROWTH = 1.6  # Times the average over the last minute may pass: e^0.6 = 1.8 a minute, so that bursts stay below 2.
_BURST_MS = 5_000.0  # What this long a time lets pass may pass at once.
_COLD_MS = 1_000.0  # From one request to the next until the first answer has told the limits.
_DIGITS_MAX = 15  # Every number of so many digits is exact as a float.


class Sent(NamedTuple):
    """What was sent up to a moment, all together, by our own estimates."""

    at_ms: float = 0.0
    requests: int = 0
    input: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        """Input and output together."""
        return self.input + self.output


class Bucket(Struct, frozen=True, kw_only=True, gc=False):
    """One limit. `level` is what we think is left at `at_ms`; below zero if more was taken."""

    limit: float
    period_ms: float  # From empty to full.
    level: float
    at_ms: float
    factor: float  # What the server takes for one unit of our estimates.
    remaining: float  # What the newest header said; it is that of `Allowance.heard`.
    heard_ms: float


class Allowance(Struct, frozen=True, kw_only=True):
    """What we know of the limits of one server. Times are ms of one steady clock."""

    requests: Bucket | None = None
    input: Bucket | None = None
    output: Bucket | None = None
    total: Bucket | None = None
    is_expected: bool = False  # No answer yet, but the first will tell limits.
    known_ms: float = 0.0  # When the first limits were told.
    sent: Sent = Sent()  # Its time is that of the last request.
    heard: Sent = Sent()  # What was sent up to the request whose headers are the newest known.
    use: float = 0.0  # Shares of the limits a minute, averaged over the last minute.
    next_ms: float = 0.0  # Not before, so that the rate does not grow too fast.


UNKNOWN = Allowance()
EXPECTED = Allowance(is_expected=True)


class _Reading(NamedTuple):
    limit: float
    remaining: float
    period_ms: float


class _Names(NamedTuple):
    kind: str
    limit: str
    remaining: str
    reset: str | None


_CLAUDE = tuple(
    _Names(kind, f"anthropic-ratelimit-{word}-limit", f"anthropic-ratelimit-{word}-remaining", None)
    for kind, word in (
        ("requests", "requests"),
        ("input", "input-tokens"),
        ("output", "output-tokens"),
        ("total", "tokens"),
    )
)
_OPENAI = tuple(
    _Names(kind, f"x-ratelimit-limit-{word}", f"x-ratelimit-remaining-{word}", f"x-ratelimit-reset-{word}")
    for kind, word in (("requests", "requests"), ("total", "tokens"))
)
_TOLD = frozenset(one.remaining for one in (*_CLAUDE, *_OPENAI))
_KINDS = ("requests", "input", "output", "total")
_LENGTH = re.compile(
    r"(?:(?P<d>\d{1,3})d)?(?:(?P<h>\d{1,4})h)?(?:(?P<m>\d{1,6})m)?"
    r"(?:(?P<s>\d{1,9}(?:\.\d{1,9})?)s)?(?:(?P<ms>\d{1,9}(?:\.\d{1,9})?)ms)?",
    re.ASCII,
)


def mark(allowance: Allowance, *, now_ms: float) -> Sent:
    """What to keep with a request that is sent now, after `spent`, for `heard` of its answer."""
    sent = allowance.sent
    return sent if sent.at_ms == now_ms else sent._replace(at_ms=now_ms)


def heard(allowance: Allowance, headers: Mapping[str, str], *, since: Sent, now_ms: float) -> Allowance:
    """The allowance after an answer, of any status, with these headers (lower case).

    `since` is the `mark` of its request: answers come out of order, and what was sent later may not be in what they
    tell. Headers that are absent or make no sense change nothing; of an answer to an earlier request than one
    already heard, only `retry-after` counts.
    """
    names = _names_in(headers)
    if names is None and "retry-after" not in headers:
        return UNKNOWN if allowance.is_expected else allowance
    found: dict[str, Bucket] = {}
    if names is not None and since.requests >= allowance.heard.requests:
        for one in names:
            if (reading := _read(headers, one)) is not None:
                found[one.kind] = _refilled_as_told(allowance, one.kind, reading, since=since, now_ms=now_ms)
    if found:
        known_ms = allowance.known_ms if _is_limited(allowance) else now_ms
        allowance = replace(allowance, **found, is_expected=False, known_ms=known_ms, heard=since)
    if "retry-after" in headers and _is_limited(allowance):
        return _paused(allowance, headers["retry-after"], now_ms=now_ms)
    return allowance


def spent(allowance: Allowance, tokens: Tokens, *, now_ms: float) -> Allowance:
    """The allowance after a request of about these tokens was sent."""
    past = allowance.sent
    sent = Sent(now_ms, past.requests + 1, past.input + tokens.input, past.output + tokens.output)
    if not _is_limited(allowance):
        next_ms = now_ms + _COLD_MS if allowance.is_expected else 0.0
        return replace(allowance, sent=sent, next_ms=next_ms)
    share = 0.0
    buckets: dict[str, Bucket] = {}
    for kind, bucket in _buckets(allowance):
        cost = bucket.factor * _cost(kind, tokens)
        share = max(share, cost / bucket.limit)
        left = max(-bucket.limit, _level(bucket, now_ms) - cost)
        buckets[kind] = replace(bucket, level=left, at_ms=max(bucket.at_ms, now_ms))
    use = _use(allowance, now_ms)
    begins_ms = max(allowance.next_ms, now_ms - _BURST_MS)
    next_ms = begins_ms + share / max(_FLOOR, _GROWTH * use) * _MINUTE_MS
    return replace(allowance, **buckets, sent=sent, use=use + share, next_ms=next_ms)


def wait_ms(allowance: Allowance, tokens: Tokens, *, now_ms: float) -> int:
    """How long a request of about these tokens has to wait; 0: it may go now.

    A request larger than a bucket waits until it is full. Whatever headers say, nothing waits longer than
    `limits.ALLOWANCE_WAIT_MS_MAX` after the last request was sent: limits that are none do not stop an engine.
    """
    wait = allowance.next_ms - now_ms
    if wait <= 0 and not _is_limited(allowance):
        return 0
    for kind, bucket in _buckets(allowance):
        inflow = bucket.limit / bucket.period_ms
        needed = min(bucket.limit, bucket.factor * _cost(kind, tokens) + _RESERVE_MS * inflow)
        wait = max(wait, (needed - _level(bucket, now_ms)) / inflow)
    longest = max(allowance.sent.at_ms, allowance.known_ms) + limits.ALLOWANCE_WAIT_MS_MAX - now_ms
    return max(0, ceil(min(wait, longest, limits.ALLOWANCE_WAIT_MS_MAX)))


def _names_in(headers: Mapping[str, str]) -> tuple[_Names, ...] | None:
    if _TOLD.isdisjoint(headers):
        return None  # Most servers tell none.
    for names in (_CLAUDE, _OPENAI):
        if any(one.remaining in headers for one in names):
            return names
    return None


def _read(headers: Mapping[str, str], names: _Names) -> _Reading | None:
    limit, remaining = _number(headers.get(names.limit, "")), _number(headers.get(names.remaining, ""))
    if not limit or remaining is None:
        return None
    remaining = min(remaining, limit)
    period_ms = _MINUTE_MS
    if names.reset is not None and remaining < limit:
        full_after_ms = _length_ms(headers.get(names.reset, ""))
        if full_after_ms > _MINUTE_MS:  # Not a limit per minute: Groq's and others' requests are those of a day.
            period_ms = min(full_after_ms * limit / (limit - remaining), _DAY_MS)
    return _Reading(limit, remaining, period_ms)


def _number(text: str) -> float | None:
    return float(text) if len(text) <= _DIGITS_MAX and text.isascii() and text.isdigit() else None


def _length_ms(text: str) -> float:
    """ "6m0s", "1s", "120ms", or seconds; 0 for anything else."""
    match = _LENGTH.fullmatch(text) or _LENGTH.fullmatch(f"{text}s")
    if match is None:
        return 0.0
    days, hours, minutes, seconds, rest_ms = (float(part or 0) for part in match.groups())
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + rest_ms


def _refilled_as_told(allowance: Allowance, kind: str, reading: _Reading, *, since: Sent, now_ms: float) -> Bucket:
    old: Bucket | None = getattr(allowance, kind)
    limit, remaining, period_ms = reading
    inflow = limit / period_ms
    age_ms = max(0.0, now_ms - since.at_ms)
    factor = 1.0 if old is None else _learnt(old, kind, reading, before=allowance.heard, since=since, age_ms=age_ms)
    unseen = factor * (_count(allowance.sent, kind) - _count(since, kind))
    level = min(limit, remaining + inflow * age_ms) - unseen
    if old is not None and old.limit == limit:
        own = _level(old, now_ms)
        trust = min(1.0, max(0.0, now_ms - old.heard_ms) / (_TRUST_MS + _TRUST_AGES * age_ms))
        level = level if level < own else own + trust * (level - own)
    return Bucket(
        limit=limit,
        period_ms=period_ms,
        level=max(-limit, level),
        at_ms=now_ms,
        factor=factor,
        remaining=remaining,
        heard_ms=now_ms,
    )


def _learnt(old: Bucket, kind: str, reading: _Reading, *, before: Sent, since: Sent, age_ms: float) -> float:
    """The factor after one more header: what is gone between two, by what we sent between them."""
    limit, remaining, period_ms = reading
    estimate = _count(since, kind) - _count(before, kind)
    if estimate <= 0 or old.limit != limit:
        return old.factor
    gone = old.remaining - remaining + limit / period_ms * (since.at_ms - before.at_ms)
    if max(old.remaining, remaining) > _FULL_SHARE * limit:
        gone = min(estimate, old.factor * estimate)  # At the most we take what we think; a high factor was wrong.
    memory = limit * (_MEMORY_SHARE + _MEMORY_AGES * age_ms / period_ms)
    moved = old.factor + (gone - old.factor * estimate) / (estimate + memory)
    return min(max(moved, _FACTOR_MIN), _FACTOR_MAX)


def _paused(allowance: Allowance, text: str, *, now_ms: float) -> Allowance:
    """After a refusal. One that came with room in every bucket was for growth: what may pass is halved."""
    asked_ms = min((_number(text) or 0.0) * 1000, float(limits.ALLOWANCE_WAIT_MS_MAX))
    has_room = all(bucket.remaining > bucket.limit * 0.05 for _, bucket in _buckets(allowance))
    use = _use(allowance, max(now_ms, allowance.sent.at_ms)) / (2 if has_room else 1)
    return replace(allowance, use=use, next_ms=max(allowance.next_ms, now_ms + asked_ms))


def _is_limited(allowance: Allowance) -> bool:
    return (
        allowance.requests is not None
        or allowance.input is not None
        or allowance.output is not None
        or allowance.total is not None
    )


def _buckets(allowance: Allowance) -> list[tuple[str, Bucket]]:
    found = (allowance.requests, allowance.input, allowance.output, allowance.total)
    return [(kind, bucket) for kind, bucket in zip(_KINDS, found, strict=True) if bucket is not None]


def _level(bucket: Bucket, now_ms: float) -> float:
    passed_ms = max(0.0, now_ms - bucket.at_ms)
    return min(bucket.limit, bucket.level + bucket.limit / bucket.period_ms * passed_ms)


def _use(allowance: Allowance, now_ms: float) -> float:
    return allowance.use * exp(-max(0.0, now_ms - allowance.sent.at_ms) / _MINUTE_MS)


def _cost(kind: str, tokens: Tokens) -> int:
    if kind == "requests":
        return 1
    return tokens.input if kind == "input" else tokens.output if kind == "output" else tokens.total


def _count(sent: Sent, kind: str) -> int:
    if kind == "requests":
        return sent.requests
    return sent.input if kind == "input" else sent.output if kind == "output" else sent.total
