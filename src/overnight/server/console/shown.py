"""Values as people read them: the filters of our templates."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from overnight.core import usage
from overnight.server.console.parts import visible
from overnight.wire.batch import rfc3339


def count(number: int) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}"


def share(part: float) -> str:
    """0.123 as 12 %; 100 % only when nothing is missing, and 0 % only of nothing."""
    whole = round(part * 100)
    if 0 < part < 1:
        whole = min(99, max(1, whole))
    return f"{whole} %"


def utc(at_ms: int) -> str:
    """An instant for the eye: 2026-11-25 17:12 UTC."""
    return f"{rfc3339(at_ms)[:16].replace('T', ' ')} UTC"


def iso(at_ms: int) -> str:
    """An instant for machines, to the second."""
    return f"{rfc3339(at_ms)[:19]}Z"


def usd(nano: int) -> str:
    """Nano USD as $1,234.56. Below a dollar up to six decimals: a small batch costs less than a cent."""
    dollars = usage.usd(nano)
    if abs(dollars) >= 1 or not nano:
        return f"${dollars.quantize(Decimal('0.01'), ROUND_HALF_EVEN):,}"
    small = f"{dollars.quantize(Decimal('0.000001'), ROUND_HALF_EVEN):f}"
    whole, _, decimals = small.partition(".")
    if not decimals.strip("0"):
        return "<$0.000001"
    return f"${whole}.{decimals.rstrip('0').ljust(2, '0')}"


def duration(ms: int) -> str:
    """A length of time in its two largest units: 1 d 3 h, 2 h 5 min, 4 min 10 s, 12 s."""
    seconds = max(0, ms) // 1000
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


FILTERS: Final[dict[str, Any]] = {
    "count": count,
    "share": share,
    "utc": utc,
    "iso": iso,
    "usd": usd,
    "duration": duration,
    "visible": visible,
}
