"""The limits of a rate that a server tells in its headers, kept for one engine. What they mean: `core.allowance`."""

import asyncio
from collections.abc import Mapping

from overnight.core import allowance as allowances
from overnight.core.allowance import Sent
from overnight.core.tokens import Tokens


class Pace:
    """The allowance of one engine, by the time of the event loop that asks it."""

    def __init__(self, *, is_expected: bool = False) -> None:
        """With `is_expected`, requests before the first answer go one by one: that answer tells the limits."""
        self._allowance = allowances.EXPECTED if is_expected else allowances.UNKNOWN

    def mark(self) -> Sent:
        """To be kept with a request that is sent now, for `heard`."""
        return allowances.mark(self._allowance, now_ms=_now_ms())

    def wait_ms(self, tokens: Tokens) -> int:
        """See `engine.Engine`."""
        return allowances.wait_ms(self._allowance, tokens, now_ms=_now_ms())

    def spend(self, tokens: Tokens) -> None:
        """See `engine.Engine`."""
        self._allowance = allowances.spent(self._allowance, tokens, now_ms=_now_ms())

    def heard(self, headers: Mapping[str, str], *, since: Sent) -> None:
        """An answer came, of any status, to a request whose `mark` was `since`."""
        self._allowance = allowances.heard(self._allowance, headers, since=since, now_ms=_now_ms())


def _now_ms() -> float:
    return asyncio.get_running_loop().time() * 1000
