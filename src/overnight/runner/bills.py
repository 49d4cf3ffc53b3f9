"""What the requests of one handoff will likely cost, set aside until it is known what they did."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from overnight.core.handoff import Verdict
from overnight.core.lease import SegmentRef
from overnight.core.retry import Answered
from overnight.core.tokens import Tokens
from overnight.runner.purse import Bill, Purse
from overnight.runner.segmentrun import Work
from overnight.wire import message
from overnight.wire.message import Usage

_NO_USAGE = Usage()


class Estimate(Protocol):
    """What a request will likely take: `Backlog.estimated`."""

    def __call__(self, model: str, *, size_bytes: int, max_tokens: int) -> Tokens:
        """In tokens."""
        ...


class Bills:
    """By place, not by lease: the upstream charges for a request whoever holds it, and once, however often its row is
    read. Without a purse nothing is counted."""

    def __init__(self, purse: Purse | None) -> None:
        self._purse = purse
        self._bills: dict[tuple[SegmentRef, int], Bill | None] = {}  # None: closed.

    @property
    def are_kept(self) -> bool:
        """Whether there is a budget."""
        return self._purse is not None

    def affordable(self, works: Sequence[Work]) -> Sequence[Work]:
        """The first of these requests that the budget has room for, each with a bill from now on."""
        if self._purse is None:
            return works
        for count, work in enumerate(works):
            if not self._purse.admits(work.model, work.tokens):
                return works[:count]
            self._bills[_place(work)] = self._purse.take(work.model, work.tokens)
        return works

    def owe(self, works: Iterable[Work], estimated: Estimate) -> None:
        """Requests that an earlier process, or an earlier lease, handed over: they will be charged, budget or not."""
        if self._purse is None:
            return
        for work in works:
            if _place(work) not in self._bills:
                tokens = estimated(work.model, size_bytes=work.size_bytes, max_tokens=work.max_tokens)
                self._bills[_place(work)] = self._purse.take(work.model, tokens)

    def part(self, works: Iterable[Work]) -> "Bills":
        """The bills of some of its requests, for a handoff of these alone."""
        found = Bills(self._purse)
        found._bills = {place: self._bills.pop(place) for place in map(_place, works) if place in self._bills}
        return found

    def keep(self, works: Iterable[Work]) -> None:
        """These are handed over, and no others."""
        kept = self.part(works)
        self.close(was_made=False)
        self._bills = kept._bills

    def settle(self, segment: SegmentRef, ordinal: int, verdict: Verdict) -> None:
        """Its row was read. What errored, expired or was canceled is not charged
        (https://platform.claude.com/docs/en/build-with-claude/batch-processing)."""
        bill = self._bills.get((segment, ordinal))
        if bill is None:
            return
        self._bills[segment, ordinal] = None
        usage = message.usage_of(verdict.message) if isinstance(verdict, Answered) else _NO_USAGE
        if usage is None:
            bill.close(None)
        else:
            bill.pay(usage)

    def close(self, *, was_made: bool) -> None:
        """Nothing more will be heard of it. Unless the upstream never made the batch, it may have worked on what is
        left, so that counts as it was estimated."""
        for bill in filter(None, self._bills.values()):
            if was_made:
                bill.close(None)
            else:
                bill.pay(_NO_USAGE)
        self._bills.clear()


def _place(work: Work) -> tuple[SegmentRef, int]:
    return work.run.lease.segment, work.ordinal
