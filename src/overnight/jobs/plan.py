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
    """What a source gave: rows of the run, of them those that are to be sent, and those that were left out."""

    rows: int
    to_send: int
    skipped_in_flight: int
    skipped_failed: int
    skipped_done: int


class _Pending(NamedTuple):
    row: Row
    rendered: Rendered
    digest: str


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
    _in_flight: set[str] = field(default_factory=set)
    _unique: Unique = field(default_factory=Unique)
    _first_with: dict[str, int] = field(default_factory=dict)
    _rows: int = 0
    _to_send: int = 0
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
            self._rows, self._to_send, self._skipped_in_flight, self._skipped_failed, self._skipped_done
        )
        with self.ledger.begin() as connection:
            if planned.rows == 0:
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
        item = {
            "run_id": self.run_id,
            "position": position,
            "item_key": encode(pending.row.key).decode(),
            "custom_id": pending.rendered.custom_id,
            "segment": self._segments,
            "digest": pending.digest,
            "bytes": 0,
            "same_as": None,
            "batch_job": None,
            "state": "planned",
            "fields": "",
            "error_type": "",
            "error": "",
        }
        answered = mine if mine is not None and mine.state == "succeeded" else self._cached(known)
        size = len(split.request(pending.rendered.custom_id, pending.rendered.params))
        if pending.rendered.error:
            item |= {"state": "errored", "error_type": "invalid_request_error", "error": pending.rendered.error}
        elif not split.fits_alone(size, max_bytes=self.job.settings.batch.max_bytes):
            limit = self.job.settings.batch.max_bytes
            error = f"the request has {size} bytes, and a batch has room for {limit} ([batch] max_bytes)"
            item |= {"state": "errored", "error_type": "request_too_large", "error": error}
        elif answered is not None:
            item |= {"state": "succeeded", "fields": answered.fields}
        elif pending.digest in self._first_with:
            item |= {"same_as": self._first_with[pending.digest]}
        else:
            self._first_with[pending.digest] = position
            item |= {"bytes": size, "batch_job": self._chunk_for(connection, size)}
            self._to_send += 1
        return item

    def _is_left_out(self, mine: Earlier) -> bool:
        if mine.state == "succeeded":
            is_done = mine.is_written and self.job.has_database_sink
            self._skipped_done += is_done
            return is_done
        attempt = Attempt(mine.state, 1, mine.error_type, mine.error)
        is_failed = is_failed_for_good(attempt) and self.job.has_database_sink
        self._skipped_failed += is_failed
        return is_failed

    def _cached(self, known: Sequence[Earlier]) -> Earlier | None:
        if self.cached_since is None:
            return None
        return next((found for found in known if found.state == "succeeded"), None)

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
