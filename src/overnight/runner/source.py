"""Where a hand-off gets its requests, and how it takes a run of them within its budget."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from overnight.core.tokens import Tokens
from overnight.runner.backlog import Taker
from overnight.runner.bills import Bills
from overnight.runner.segmentrun import Work

# Within a budget: what is taken in vain is put back one by one, 100,000 requests in two seconds.
_HELPING = 1_000


class Source(Protocol):
    """Where requests wait: `runner.backlog`."""

    def take_many(self, taker: Taker, *, requests_max: int, bytes_max: int) -> list[Work]:
        """As many as there are within these bounds, in prompt order; a single one may be larger."""
        ...

    def put_back(self, works: Iterable[Work]) -> None:
        """Requests that were taken and not asked."""
        ...

    def settle(self, work: Work, took: Tokens | None) -> None:
        """What a request took; None if it was not worked on."""
        ...

    def estimated(self, model: str, *, size_bytes: int, max_tokens: int) -> Tokens:
        """What a request will likely take."""
        ...

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Whom to tell when there is something to take."""
        ...


def take_run(source: Source, taker: Taker, bills: Bills, *, requests_max: int, bytes_max: int) -> list[Work]:
    """As many as there are within these bounds, up to the first that the budget has no room for; each has its bill.
    The last one may be larger than what was left of the bytes."""
    run, left_bytes = list[Work](), bytes_max
    most = _HELPING if bills.are_kept else requests_max
    while len(run) < requests_max and left_bytes > 0:
        wanted = min(most, requests_max - len(run))
        taken = source.take_many(taker, requests_max=wanted, bytes_max=left_bytes)
        paid = bills.affordable(taken)
        put_back(source, taken[len(paid) :])
        run += paid
        left_bytes -= sum(work.size_bytes for work in paid)
        if len(paid) < wanted:
            break
    return run


def put_back(source: Source, works: Sequence[Work]) -> None:
    """Requests that were taken in vain, as far as somebody still wants them: in their order, before what waits."""
    for work in reversed(works):
        if work.is_open:
            source.settle(work, None)
            source.put_back([work])
