"""From rows to a run that can be sent: each row rendered, cut into batches, and written down before anything is paid.

A row that an unfinished run has, that failed for good before, or whose answer is known, is not asked again.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import insert, update

from overnight import limits
from overnight.jobs import runs, split
from overnight.jobs.customid import Unique
from overnight.jobs.job import Job
from overnight.jobs.ledger import Ledger
from overnight.jobs.prompt import Rendered
from overnight.jobs.retry import Attempt, is_failed_for_good
from overnight.jobs.row import Row
from overnight.jobs.runs import Earlier
from overnight.jobs.tables import batch_jobs
from overnight.jobs.tables import runs as runs_table

encode = msgspec.json.Encoder().encode
_DIGEST_BYTES = 16


Reach = Callable[[str], None]
Check = Callable[[Iterable[str]], None]


class Planned(NamedTuple):
    """What a source gave: rows of the run, those of them to be sent, those known from before; and those left out."""

    rows: int
    to_send: int
    reused: int
    skipped_in_flight: int
    skipped_failed: int
    skipped_done: int
    is_rendered: bool  # By a template, which may be wrong for all of them; whole requests have none.

    def is_nothing(self, *, drop_known: bool) -> bool:
        """Whether there is no run: no row, or (`drop_known`) none that is not known from before."""
        return self.rows == 0 or (drop_known and self.reused == self.rows)


class _Pending(NamedTuple):
    row: Row
    rendered: Rendered
    digest: str


_UNSENT = {
    "bytes": 0,
    "same_as": None,
    "batch_job": None,
    "state": "planned",
    "fields": "",
    "error_type": "",
    "error": "",
}


@dataclass
class Planner:
    """Plans one run. `since`: answers from before it are forgotten. `anew`: answers and failures are, all of them."""

    job: Job
    ledger: Ledger
    run_id: str
    created_at: str
    since: str
    cached_since: str | None
    anew: bool = False
    drop_known: bool = False  # A run of which every row is known from before is none.
    _in_flight: set[str] = field(default_factory=set)
    _unique: Unique = field(default_factory=Unique)
    _first_with: dict[str, int] = field(default_factory=dict)
    _rows: int = 0
    _to_send: int = 0
    _reused: int = 0
    _is_rendered: bool = False
    _segments: int = 0
    _skipped_in_flight: int = 0
    _skipped_failed: int = 0
    _skipped_done: int = 0

    def __post_init__(self) -> None:
        batch = self.job.settings.batch
        self._cutter = split.Cutter(max_requests=batch.max_requests, max_bytes=batch.max_bytes)
        self._chunk: _Chunk | None = None
        self._chunks = 0

    def plan(self, rows: Iterable[Row], *, endpoint: str, reach: Reach, check: Check) -> Planned:
        """Write the run down, open. JobError, and no run, if a row cannot be rendered or two have one key.

        `check` gets the columns of the first row.
        """
        with self.ledger.begin() as connection:
            self._in_flight = runs.keys_in_flight(connection, self.job.settings.name, self.run_id)
            connection.execute(
                insert(runs_table).values(
                    id=self.run_id,
                    job=self.job.settings.name,
                    status="planning",
                    created_at=self.created_at,
                    shape=self.job.shape_digest(),
                    model=self.job.settings.model,
                    endpoint=endpoint,
                )
            )
        try:
            for segment in self._segments_of(rows, check):
                self._unique.check()
                self._add(segment)
                reach("job.segment-planned")
            self._unique.check()
        except BaseException:
            with self.ledger.begin() as connection:
                runs.remove(connection, self.run_id)
            raise
        return self._opened()

    def _opened(self) -> Planned:
        planned = Planned(
            self._rows,
            self._to_send,
            self._reused,
            self._skipped_in_flight,
            self._skipped_failed,
            self._skipped_done,
            self._is_rendered,
        )
        with self.ledger.begin() as connection:
            if planned.is_nothing(drop_known=self.drop_known):
                runs.remove(connection, self.run_id)
            else:
                runs.change(
                    connection,
                    self.run_id,
                    status="open",
                    rows=planned.rows,
                    skipped_in_flight=planned.skipped_in_flight,
                    skipped_failed=planned.skipped_failed,
                )
        return planned

    def _segments_of(self, rows: Iterable[Row], check: Check) -> Iterator[list[_Pending]]:
        segment, size = list[_Pending](), 0
        for number, row in enumerate(rows):
            if number == 0:
                check(row.columns)
                self._is_rendered = row.request is None
            rendered = self.job.renderer(row)
            self._unique.add(row.key, rendered.custom_id)
            if encode(row.key).decode() in self._in_flight:
                self._skipped_in_flight += 1
                continue
            segment.append(_Pending(row, rendered, digest(rendered.params)))
            size += len(rendered.params)
            if len(segment) == limits.JOB_SEGMENT_ROWS or size > limits.JOB_SEGMENT_BYTES:
                yield segment
                segment, size = [], 0
        if segment:
            yield segment

    def _add(self, segment: Sequence[_Pending]) -> None:
        name = self.job.settings.name
        with self.ledger.begin() as connection:
            known: Mapping[str, list[Earlier]] = {}
            if not self.anew:
                wanted = list({pending.digest for pending in segment})
                known = runs.earlier(connection, name, wanted, since=self.since)
            kept: list[_Pending] = []
            items: list[dict[str, Any]] = []
            for pending in segment:
                item = self._item(connection, pending, known.get(pending.digest, []))
                if item is not None:
                    kept.append(pending)
                    items.append(item)
            if not items:
                return
            rendered = [pending.rendered.params for pending in kept]
            columns = [pending.row.columns for pending in kept]
            runs.add_segment(connection, self.run_id, self._segments, rendered=rendered, rows=columns, planned=items)
            if self._chunk is not None:
                self._chunk.save(connection)
            self._segments += 1

    def _item(self, connection: Any, pending: _Pending, known: Sequence[Earlier]) -> dict[str, Any] | None:
        """The item of a row; None if it is left out."""
        mine = next((found for found in known if found.key == pending.row.key), None)
        if mine is not None and self._is_left_out(mine):
            return None
        position, self._rows = self._rows, self._rows + 1
        return {
            "run_id": self.run_id,
            "position": position,
            "item_key": encode(pending.row.key).decode(),
            "custom_id": pending.rendered.custom_id,
            "segment": self._segments,
            "digest": pending.digest,
            **_UNSENT,
            **(self._known(pending, known, mine) or self._to_be_sent(connection, pending, position)),
        }

    def _known(self, pending: _Pending, known: Sequence[Earlier], mine: Earlier | None) -> dict[str, Any] | None:
        """The state of a row that is not to be sent; None if it is."""
        size = len(split.request(pending.rendered.custom_id, pending.rendered.params))
        limit = self.job.settings.batch.max_bytes
        if pending.rendered.error:
            return {"state": "errored", "error_type": "invalid_request_error", "error": pending.rendered.error}
        if not split.fits_alone(size, max_bytes=limit):
            error = f"the request has {size} bytes, and a batch has room for {limit} ([batch] max_bytes)"
            return {"state": "errored", "error_type": "request_too_large", "error": error}
        if mine is not None and (mine.state == "succeeded" or _is_lost(mine)):
            self._reused += 1
            return {"state": mine.state, "fields": mine.fields, "error_type": mine.error_type, "error": mine.error}
        if self.cached_since is not None:
            found = next((earlier for earlier in known if earlier.is_cached(self.cached_since)), None)
            return None if found is None else {"state": "succeeded", "fields": found.fields}
        return None

    def _to_be_sent(self, connection: Any, pending: _Pending, position: int) -> dict[str, Any]:
        """Where a row goes that is to be sent: into a batch, or along with one that asks the same."""
        first = self._first_with.setdefault(pending.digest, position)
        if first != position:
            return {"same_as": first}
        self._to_send += 1
        size = len(split.request(pending.rendered.custom_id, pending.rendered.params))
        return {"bytes": size, "batch_job": self._chunk_for(connection, size)}

    def _is_left_out(self, mine: Earlier) -> bool:
        """A database has what was written, and what failed for good stays there as it is."""
        if not self.job.has_database_sink:
            return False
        is_done = mine.state == "succeeded" and mine.is_written
        is_lost = _is_lost(mine)
        self._skipped_done += is_done
        self._skipped_failed += is_lost
        return is_done or is_lost

    def _chunk_for(self, connection: Any, size: int) -> int:
        if self._cutter.begins_new(size):
            if self._chunk is not None:
                self._chunk.save(connection)
            self._chunks += 1
            made = connection.execute(
                insert(batch_jobs).values(
                    status="planned", created_at=self.created_at, run_id=self.run_id, chunk=self._chunks, attempt=1
                )
            )
            self._chunk = _Chunk(int(made.inserted_primary_key[0]))
        assert self._chunk is not None
        self._chunk.requests += 1
        self._chunk.bytes += size
        return self._chunk.id


def _is_lost(earlier: Earlier) -> bool:
    return is_failed_for_good(Attempt(earlier.state, 1, earlier.error_type, earlier.error))


@dataclass
class _Chunk:
    id: int
    requests: int = 0
    bytes: int = 0

    def save(self, connection: Any) -> None:
        connection.execute(
            update(batch_jobs)
            .where(batch_jobs.c.id == self.id)
            .values(total_requests=self.requests, bytes=self.bytes)
        )


def digest(params: bytes) -> str:
    """What tells a request from others: its params, to the byte."""
    return hashlib.blake2b(params, digest_size=_DIGEST_BYTES).hexdigest()
