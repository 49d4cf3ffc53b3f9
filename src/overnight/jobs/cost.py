"""What tokens cost, and how an amount is printed."""

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final, NamedTuple

from overnight.core.prices import Prices, Rate
from overnight.jobs.jobfile import Currency

NIGHTS_A_YEAR: Final = 365
_MILLION: Final = 1_000_000
_CENT: Final = Decimal("0.01")
_TWO_DIGITS: Final = Context(prec=2, rounding=ROUND_HALF_UP)


class Tokens(NamedTuple):
    """Tokens as the API's `usage` counts them: no token is in two of these."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":  # type: ignore[override]
        return Tokens(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Cost(NamedTuple):
    """USD, exact; None where the model's price is unknown."""

    batch: Decimal | None  # What is paid: the batch price, or the full one for what was asked in real time.
    realtime: Decimal | None  # What the same tokens cost in real time.

    @property
    def saved(self) -> Decimal | None:
        """What a batch was cheaper by."""
        return None if self.batch is None or self.realtime is None else self.realtime - self.batch

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        """Both together; unknown if one of them is."""
        return Cost(_sum(self.batch, other.batch), _sum(self.realtime, other.realtime))


def cost_of(tokens: Tokens, rate: Rate | None, *, realtime: bool = False) -> Cost:
    """What `tokens` cost; `realtime` says that they were not used in a batch."""
    if rate is None:
        return Cost(None, None)
    full = _price(tokens, rate.realtime)
    return Cost(batch=full if realtime else _price(tokens, rate.batch), realtime=full)


def per_year(nightly: Decimal) -> Decimal:
    """What a job costs, or saves, in a year of nights."""
    return nightly * NIGHTS_A_YEAR


def money(usd: Decimal, currency: Currency | None = None) -> str:
    """An amount to read, converted to `currency`: "$0.48", "Rs 23.38", "$1,500", "$0.0031".

    Two decimals, none if the amount is whole, and below a cent as many as its first two digits need. Halves are
    rounded up.
    """
    return _printed(_converted(usd, currency), currency)


def about(usd: Decimal, currency: Currency | None = None) -> str:
    """The same for a projection: "~$175", without decimals from 10 on."""
    amount = _converted(usd, currency)
    return f"~{_printed(_rounded(amount, 0) if abs(amount) >= 10 else amount, currency)}"


def _price(tokens: Tokens, prices: Prices) -> Decimal:
    total = (
        tokens.input * prices.input
        + tokens.output * prices.output
        + tokens.cache_read * prices.cache_read
        + tokens.cache_write * prices.cache_write
    )
    return total / _MILLION


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other


def _converted(usd: Decimal, currency: Currency | None) -> Decimal:
    return usd if currency is None else usd * Decimal(str(currency.per_usd))


def _printed(amount: Decimal, currency: Currency | None) -> str:
    symbol = "$" if currency is None else currency.symbol or f"{currency.code} "
    short = _TWO_DIGITS.plus(amount).normalize()
    if 0 < abs(short) < _CENT:
        return f"{symbol}{short:f}"
    rounded = _rounded(amount, 2)
    return f"{symbol}{rounded:,.{0 if rounded == rounded.to_integral_value() else 2}f}"


def _rounded(amount: Decimal, decimals: int) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP)
