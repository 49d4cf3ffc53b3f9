"""Requests that are the same to the byte, asked once: an opt-in, and only at temperature 0.

The first of them leads and the others follow: the row of the leader becomes theirs, under their own `custom_id`. A
leader that is canceled or expires leaves its place to the next. Segments are sorted, so equals are neighbours;
those that a border of segments or batches divides meet their answer in a small memory. Nothing is shared between
workspaces, or between versions and betas of the API.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b

from msgspec.structs import replace

from overnight import limits
from overnight.runner.segmentrun import Took, Work
from overnight.wire import result
from overnight.wire.result import Kind


class Twins:
    """The leaders and recent answers of one worker."""

    def __init__(self, on_orphans: Callable[[list[Work]], None]) -> None:
        """`on_orphans` is given the followers of a leader that will have no row for them."""
        self._on_orphans = on_orphans
        self._leaders: dict[bytes, Work] = {}
        self._recent = OrderedDict[bytes, tuple[Kind, bytes, Took | None]]()  # Rows of leaders, the oldest first.
        self._recent_bytes = 0

    def unasked(self, works: Iterable[Work]) -> list[Work]:
        """Those that have to be asked: no row is known of them, and nobody is being asked the same."""
        found: list[Work] = []
        for work in works:
            if not work.is_greedy:
                found.append(work)
                continue
            digest = work.digest = _digest(work)
            leader = self._leaders.get(digest)
            if leader is not None and leader.is_open:
                leader.twins.append(work)
            elif (known := self._recent.get(digest)) is not None:
                kind, line, took = known
                work.run.record(work, kind, result.renamed(line, work.custom_id), _free(took))
            else:
                self._leaders[digest] = work
                work.on_row = self._on_row
                found.append(work)
        return found

    def _on_row(self, work: Work, kind: Kind | None, line: bytes) -> None:
        """A leader has its row. Kind None: its lease was lost."""
        digest = work.digest
        if self._leaders.get(digest) is work:
            del self._leaders[digest]
        twins, work.twins = [twin for twin in work.twins if twin.is_open], []
        if kind == "succeeded":
            self._remember(digest, kind, line, work.took)
        if kind in ("succeeded", "errored"):
            for twin in twins:
                twin.run.record(twin, kind, result.renamed(line, twin.custom_id), _free(work.took))
        elif twins:
            self._on_orphans(twins)

    def _remember(self, digest: bytes, kind: Kind, line: bytes, took: Took | None) -> None:
        self._recent[digest] = (kind, line, took)
        self._recent_bytes += len(line)
        while self._recent_bytes > limits.TWINS_BYTES_MAX:
            _, (_, dropped, _) = self._recent.popitem(last=False)
            self._recent_bytes -= len(dropped)


def _free(took: Took | None) -> Took | None:
    """What a twin took: the same tokens, which nobody was paid for."""
    return took and took._replace(sums=replace(took.sums, usd_nano=0))


def _digest(work: Work) -> bytes:
    batch = work.run.batch
    digest = blake2b(work.params, digest_size=16)
    digest.update(f"\0{batch.workspace}\0{batch.api_version}\0{batch.betas}".encode())
    return digest.digest()
