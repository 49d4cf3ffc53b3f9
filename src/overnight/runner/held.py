"""One handoff in memory: which of its requests are leased by us, and how far its results have come.

No I/O here. A segment of it may be leased by nobody yet (after a restart), be leased anew, or be sealed without us.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from overnight.core import handoff as handoffs
from overnight.core.handoff import Handoff, Part
from overnight.core.lease import SegmentRef
from overnight.runner.bills import Bills
from overnight.runner.segmentrun import SegmentRun, Work
from overnight.wire import params


class Held:
    """The state of one handoff. `members` are its requests by segment, as far as segments are not sealed."""

    def __init__(self, handoff: Handoff, parts: Iterable[Part], bills: Bills | None = None) -> None:
        self.handoff = handoff
        self.members = {part.segment: part.members for part in parts}
        self.bills = bills or Bills(None)
        self.read: set[SegmentRef] = set()  # Whose results were read to the end.
        self.again: dict[Work, int] = {}  # To be asked again, after so many ms.
        self.joined_at_s = 0.0  # Loop time: when a segment was last leased by us.
        self._runs: dict[SegmentRef, SegmentRun] = {}
        self._works: dict[SegmentRef, dict[int, Work]] = {}
        self._changed = asyncio.Event()

    # --- Who is here ------------------------------------------------------------------------------------------------

    def join(self, run: SegmentRun, works: Iterable[Work]) -> list[Work]:
        """A segment was leased by us: its requests that are in this handoff are held. Returns the others."""
        segment, others, ours = run.lease.segment, list[Work](), dict[int, Work]()
        members = set(handoffs.unpacked(self.members.get(segment, b"")))
        for work in works:
            if work.ordinal not in members:
                others.append(work)
                continue
            ours[work.ordinal] = work
            work.stop = self._changed.set
            work.attempt += 1
            if self.handoff.upstream_id is not None:
                work.params = b""
        run.is_light = not any(work.params for work in run.open.values())
        if segment in self.members:
            self._runs[segment], self._works[segment] = run, ours
            self.read.discard(segment)
            self.joined_at_s = asyncio.get_running_loop().time()
            self._changed.set()
        return others

    def leave(self) -> list[Work]:
        """Let go of all requests; returns those that are still wanted."""
        found = [work for work in self.works() if work.is_open]
        for work in found:
            work.stop = None
        self._runs.clear()
        self._works.clear()
        return found

    def keep_only(self, unsealed: Collection[SegmentRef]) -> None:
        """Forget segments that are sealed, and let go of leases that were given up: they will be leased anew."""
        for segment in self.members.keys() - set(unsealed):
            del self.members[segment]
        for segment, run in list(self._runs.items()):
            if segment not in self.members or run.is_abandoned:  # A new lease brings works of its own.
                del self._runs[segment], self._works[segment]
                self.read.discard(segment)

    def submitted(self, upstream_id: str) -> None:
        """The upstream has its requests: what they say need not be kept."""
        self.handoff = handoffs.with_upstream(self.handoff, upstream_id)
        for work in self.works():
            work.params = b""
        for run in self._runs.values():
            run.is_light = not any(work.params for work in run.open.values())

    def works(self) -> Iterator[Work]:
        """Its requests that are leased by us, in the order in which they are sent."""
        for segment in sorted(self._works):
            ours = self._works[segment]
            yield from (ours[ordinal] for ordinal in sorted(ours))

    def work_of(self, segment: SegmentRef, ordinal: int) -> Work | None:
        """One of them."""
        return self._works.get(segment, {}).get(ordinal)

    def works_in(self, segment: SegmentRef) -> Iterable[Work]:
        """Those of one segment."""
        return self._works.get(segment, {}).values()

    def runs(self) -> list[SegmentRun]:
        """The leased segments."""
        return list(self._runs.values())

    # --- What holds -------------------------------------------------------------------------------------------------

    @property
    def unleased(self) -> set[SegmentRef]:
        """Its unsealed segments that are not leased by us."""
        return {segment for segment in self.members if not self._is_leased(segment)}

    @property
    def unread(self) -> set[SegmentRef]:
        """Its unsealed segments whose results were not read to the end."""
        return self.members.keys() - self.read

    @property
    def is_whole(self) -> bool:
        """Whether all its requests are here with what they say, and wanted: then their body can be made (again)."""
        works = list(self.works())
        return len(works) == self.handoff.requests and all(work.params and work.is_open for work in works)

    @property
    def is_open(self) -> bool:
        """Whether a result of it may still be wanted."""
        return bool(self.unleased) or any(work.is_open for ours in self._works.values() for work in ours.values())

    @property
    def is_wanted(self) -> bool:
        """Whether more of it is wanted than what the upstream happens to be working on: not all is being closed."""
        return bool(self.unleased) or any(
            run.closing is None and any(work.is_open for work in self._works[segment].values())
            for segment, run in self._runs.items()
        )

    def body(self, name_of: Mapping[str, str]) -> bytes:
        """The create body: the same bytes whenever it is made. `name_of`: models it names otherwise."""
        parts = list[bytes]()
        for work in self.works():
            name = handoffs.name(work.run.lease.segment, work.ordinal, self.handoff.id)
            known = name_of.get(work.model)
            sent = work.params if known is None else params.renamed(work.params, known)
            parts.append(b'{"custom_id":"%b","params":%b}' % (name.encode(), sent))
        return b'{"requests":[%b]}' % b",".join(parts)

    async def pause(self, seconds: float, *, stays: Callable[[], bool]) -> None:
        """Return after so many seconds, or as soon as something does not hold any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while stays():
                    self._changed.clear()
                    await self._changed.wait()

    def look(self) -> None:
        """A lease of its may be closing."""
        self._changed.set()

    def _is_leased(self, segment: SegmentRef) -> bool:
        run = self._runs.get(segment)
        return run is not None and not run.is_abandoned
