"""Stacked bars over time, as numbers that a template draws as SVG. Pure.

Coordinates are those of the view box. Each series has a fill of its own, a colour with a pattern, so that they are
told apart without colours.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

WIDTH, HEIGHT = 960, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 8, 14, 28
_GRID_LINES: Final = 4
_X_LABELS_MAX: Final = 8
_LABEL_HALF: Final = 40  # The width of half of one, so that the last is not cut.
_GAP_SHARE: Final = 0.2  # Of a bar's place: air between bars.


class Series(NamedTuple):
    """One kind of thing: a value for each bucket, none below 0."""

    label: str
    values: Sequence[int]

    @property
    def total(self) -> int:
        """Of all buckets."""
        return sum(self.values)


class Bar(NamedTuple):
    """One series in one bucket."""

    x: float
    y: float
    width: float
    height: float
    fill: int  # The number of its series.
    said: str


class Tick(NamedTuple):
    """A grid line, or a label below the bars."""

    at: float
    label: str


class Chart(NamedTuple):
    """What is drawn."""

    bars: list[Bar]
    grid: list[Tick]
    below: list[Tick]


def drawn(
    buckets: Sequence[str], series: Sequence[Series], *, shown: Callable[[int], str], short: Callable[[str], str]
) -> Chart:
    """The chart of these buckets, oldest first. `shown`: a value for people; `short`: a bucket, below its bar."""
    highest = max((sum(each.values[index] for each in series) for index in range(len(buckets))), default=0)
    step = _step(highest)
    most = max(step * -(-highest // step), step)
    place = (WIDTH - _LEFT - _RIGHT) / max(1, len(buckets))
    scale = (HEIGHT - _TOP - _BOTTOM) / most
    floor = HEIGHT - _BOTTOM
    bars: list[Bar] = []
    for index, bucket in enumerate(buckets):
        below = 0
        for number, each in enumerate(series):
            value = each.values[index]
            if value > 0:
                x, y = _LEFT + place * (index + _GAP_SHARE / 2), floor - (below + value) * scale
                said = f"{bucket}, {each.label}: {shown(value)}"
                bars.append(Bar(x, y, place * (1 - _GAP_SHARE), value * scale, number, said))
                below += value
    stride = -(-len(buckets) // _X_LABELS_MAX) or 1
    return Chart(
        bars,
        [Tick(floor - value * scale, shown(value)) for value in range(0, most + 1, step)],
        [
            Tick(min(_LEFT + place * (index + 0.5), WIDTH - _LABEL_HALF), short(buckets[index]))
            for index in range((len(buckets) - 1) % stride, len(buckets), stride)
        ],
    )


def _step(highest: int) -> int:
    """Between grid lines: 1, 2 or 5 with zeros behind it, so that about `_GRID_LINES` reach the highest bar."""
    rough = max(1, -(-highest // _GRID_LINES))
    power = int("1" + "0" * (len(str(rough)) - 1))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
