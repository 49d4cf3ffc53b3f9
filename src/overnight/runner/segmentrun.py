"""One leased segment while it is worked on: which requests are still open, and the lines that are not yet durable.

No I/O here: the pool runs the requests, the recorder makes the lines durable, the worker seals.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from overnight.core.batch import Tally
from overnight.core.lease import Lease
from overnight.core.tokens import Tokens
from overnight.core.usage import CAUSE_CHARACTERS_MAX, CAUSES_MAX, OTHER_CAUSES, Bill, Cause, Sums, Used, summed
from overnight.ports.tracer import NO_SPAN, Span
from overnight.runner.charges import Charges
from overnight.store.control import LeasedSegment
from overnight.wire import result
from overnight.wire.create import Request
from overnight.wire.message import Usage
from overnight.wire.params import Batched
from overnight.wire.result import Kind

_NOTHING = Tokens(0, 0)
_ROW_OF: dict[Kind, Callable[[str], bytes]] = {"canceled": result.canceled, "expired": result.expired}


class Took(NamedTuple):
    """What an answer took, and at which engine."""

    engine: str
    sums: Sums


class Work:
    """One request of a run."""

    __slots__ = (
        *("attempt", "custom_id", "deaths", "digest", "is_cached", "is_greedy", "max_tokens", "model", "on_row"),
        *("ordinal", "params", "run", "size_bytes", "stop", "tokens", "took", "twins"),
    )

    def __init__(self, run: "SegmentRun", request: Request, ordinal: int) -> None:
        self.run = run
        self.custom_id = request.custom_id
        self.ordinal = ordinal  # Its place in the segment, the same under every lease.
        self.params = bytes(request.params)
        self.size_bytes = len(self.params)
        self.model = ""
        self.max_tokens = 1
        self.is_greedy = False
        self.is_cached = False  # It asks for its prefix to be cached.
        self.tokens = _NOTHING  # What it was estimated to take when it was taken.
        self.attempt = 0
        self.deaths = 0  # How often an engine was lost while it was inside.
        self.digest = b""  # Of a leader or follower: see `runner.twins`.
        self.took: Took | None = None  # What its answer took, once it has one.
        self.twins: list[Work] = []  # Those that get its row too.
        self.on_row: Callable[[Work, Kind | None, bytes], None] | None = None
        self.stop: Callable[[], None] | None = None  # Set while it is inside an engine, by whoever holds it there.

    def know(self, batched: Batched) -> None:
        """Note what was read of its params."""
        self.model, self.max_tokens = batched.model, batched.max_tokens
        self.is_greedy, self.is_cached = batched.is_greedy, batched.has_cache_control

    @property
    def is_open(self) -> bool:
        """Whether a result is still wanted."""
        return self.run.open.get(self.custom_id) is self

    def interrupt(self) -> None:
        """Stop the attempt inside the engine, if there is one; its outcome is no longer wanted."""
        if self.stop is not None:
            self.stop()


class Unsaved:
    """What one worker has recorded: the bytes that are in no log yet, and rows by kind since it began."""

    def __init__(self) -> None:
        self.bytes = 0
        self.rows = Counter[str]()
        self.some = asyncio.Event()  # Set while there are any.

    def change(self, by_bytes: int) -> None:
        """So many more."""
        self.bytes += by_bytes
        if self.bytes:
            self.some.set()
        else:
            self.some.clear()


class SegmentRun:
    """The progress of one segment under one lease."""

    def __init__(
        self,
        leased: LeasedSegment,
        *,
        counter: "Counter[str]",
        unsaved: Unsaved,
        on_done: Callable[["SegmentRun"], None],
        charges: Charges | None = None,
    ) -> None:
        self.leased = leased
        self.batch = leased.batch
        self.open: dict[str, Work] = {}
        self.lines: list[bytes] = []  # Results that are in no log yet.
        self.has_log = False
        self.closing: Kind | None = None
        self.is_started = False
        self.is_light = False  # What its requests say was let go: see `runner.held`.
        self.is_done = False  # Every request has a result: it is being sealed.
        self.is_abandoned = False
        self.saving = asyncio.Lock()  # One flush or seal at a time.
        self.timers: list[asyncio.TimerHandle] = []
        self.span: Span = NO_SPAN
        self._charges = charges or Charges()
        self._took = list[tuple[str, Took]]()  # By model.
        self._causes = Counter[tuple[str, str]]()  # Types and messages of errors.
        self._examples: dict[tuple[str, str], str] = {}
        self._counter = counter
        self._unsaved = unsaved
        self._on_done = on_done

    @property
    def lease(self) -> Lease:
        """The lease it runs under."""
        return self.leased.lease

    @property
    def held_bytes(self) -> int:
        """What its requests take in memory; nothing once an upstream has them all."""
        return 0 if self.is_light else self.leased.source.raw_bytes

    def tally(self) -> Tally:
        """The counts of all results so far."""
        return Tally(**self._counter)

    def start(self, requests: Iterable[Request]) -> list[Work]:
        """Open these requests; returns them as work."""
        found = [Work(self, request, ordinal) for ordinal, request in enumerate(requests)]
        self.open = {work.custom_id: work for work in found}
        return found

    def restore(self, lines: Iterable[tuple[result.Line, bytes]]) -> list[tuple[Work, Kind, bytes]]:
        """Close the requests that earlier epochs have results for; returns the lines that count (first wins)."""
        counter, accepted = Counter[str](), list[tuple[Work, Kind, bytes]]()
        for line, raw in lines:
            work = self.open.pop(line.custom_id, None)
            if work is not None:
                counter[line.result.type] += 1
                accepted.append((work, line.result.type, raw))
        self._counter.clear()  # It may hold the same lines, counted when the store was opened.
        self._counter.update(counter)
        return accepted

    def bill(self) -> Bill:
        """What its answers took, and why others came to nothing."""
        used = defaultdict[tuple[str, str], list[Sums]](list)
        for model, took in self._took:
            used[model, took.engine].append(took.sums)
        return Bill(
            used=tuple(
                Used(model=model, engine=engine, service_tier="batch", sums=summed(sums))
                for (model, engine), sums in sorted(used.items())
            ),
            causes=tuple(
                Cause(type=key[0], message=key[1], requests=count, example=self._examples[key])
                for key, count in self._causes.items()
            ),
        )

    def charged(
        self, work: Work, engine: str, usage: Usage, *, share_nano: int | None = None, is_told: bool = False
    ) -> Took:
        """What an answer took that `engine` gave, and what it cost. `share_nano`: of the hours of the engine.
        `is_told`: the budget of its workspace knows it already."""
        sums = self._charges.of_batch(
            self.batch.workspace, engine, work.model, usage, share_nano=share_nano, is_told=is_told
        )
        return Took(engine, sums)

    def note(self, work: Work, kind: Kind, line: bytes, took: Took | None) -> None:
        """Note for the bill what a row took, or why it came to nothing."""
        if took is not None:
            work.took = took
            self._took.append((work.model, took))
        elif kind == "errored":
            error = result.read_error(line)
            key = (error.type[:CAUSE_CHARACTERS_MAX], error.message[:CAUSE_CHARACTERS_MAX])
            if key not in self._causes and len(self._causes) >= CAUSES_MAX:
                key = OTHER_CAUSES
            self._causes[key] += 1
            self._examples.setdefault(key, work.custom_id)

    def record(self, work: Work, kind: Kind, line: bytes, took: Took | None = None) -> None:
        """Note the result of one request, and what it took; a second result of the same request is dropped (I2)."""
        if self.open.get(work.custom_id) is not work:
            return
        del self.open[work.custom_id]
        self.note(work, kind, line, took)
        self.lines.append(line)
        self._unsaved.change(len(line))
        self._counter[kind] += 1
        self._unsaved.rows[kind] += 1
        if work.on_row is not None:
            work.on_row(work, kind, line)
        if not self.open:
            self.check_done()

    def check_done(self) -> None:
        """Tell, once, that every request has a result."""
        if self.is_started and not self.open and not self.is_done and not self.is_abandoned:
            self.is_done = True
            self.cancel_timers()
            self._on_done(self)

    def take_lines(self) -> list[bytes]:
        """The lines that are in no log yet; the caller now owns them."""
        lines, self.lines = self.lines, []
        self._unsaved.change(-sum(map(len, lines)))
        return lines

    def put_back(self, lines: list[bytes]) -> None:
        """Lines that could not be saved."""
        self.lines = lines + self.lines
        self._unsaved.change(sum(map(len, lines)))

    def close_waiting(self, kind: Kind) -> None:
        """Give requests that are not inside an engine their final row; the others may finish."""
        self.closing = kind
        for work in list(self.open.values()):
            if work.stop is None:
                self.record(work, kind, _ROW_OF[kind](work.custom_id))

    def close_all(self, kind: Kind) -> None:
        """Give every open request its final row and stop those inside an engine."""
        self.closing = kind
        for work in list(self.open.values()):
            work.interrupt()
            self.record(work, kind, _ROW_OF[kind](work.custom_id))

    def close_one(self, work: Work) -> None:
        """The final row of a request whose attempt failed while the run was closing."""
        assert self.closing is not None
        self.record(work, self.closing, _ROW_OF[self.closing](work.custom_id))

    def abandon(self) -> None:
        """Somebody else has the segment, or will: stop everything and record nothing more."""
        self.is_abandoned = True
        self.take_lines()
        works, self.open = list(self.open.values()), {}
        for work in works:
            work.interrupt()
            if work.on_row is not None:
                work.on_row(work, None, b"")
        self.cancel_timers()

    def cancel_timers(self) -> None:
        """No deadline matters any more."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
