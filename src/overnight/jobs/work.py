"""What one process holds while it works on one job: its lock above all."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from overnight import limits
from overnight.errors import JobHeld, StoreError
from overnight.jobs import ledger as ledgers
from overnight.jobs import runs
from overnight.jobs.job import Job
from overnight.jobs.ledger import Ledger
from overnight.jobs.server import Server
from overnight.jobs.tell import Event, Listener
from overnight.ports import process
from overnight.ports.world import World
from overnight.wire.batch import rfc3339

_SEGMENTS_KEPT = 16  # Of 1,000 rows or 4 MB: more than a default batch has.

log = logging.getLogger("overnight.jobs")


class Stopped(Exception):
    """Somebody asked the process to end; what was sent goes on."""


class Columns:
    """Rows of the source by position; the last segments stay at hand, since results come in any order."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], tuple[int, list[dict[str, Any]]]] = {}

    def of(self, connection: Connection, run_id: str, segment: int, position: int) -> dict[str, Any]:
        """The columns of one row."""
        if (run_id, segment) not in self._kept:
            if len(self._kept) == _SEGMENTS_KEPT:
                del self._kept[next(iter(self._kept))]
            rows = runs.source_rows(connection, run_id, segment)
            self._kept[run_id, segment] = runs.first_of(connection, run_id, segment), rows
        first, rows = self._kept[run_id, segment]
        return rows[position - first]


@dataclass
class Work:
    """One job under one lock. `adopted`: the batch that a person said is the one whose creation was not confirmed."""

    job: Job
    ledger: Ledger
    server: Server
    world: World
    environment: Mapping[str, str]
    listener: Listener
    adopted: str = ""
    holder: str = field(default_factory=process.holder)
    columns: Columns = field(default_factory=Columns)
    is_stopped: bool = False

    @property
    def now_ms(self) -> int:
        """Wall clock."""
        return self.world.clock.now_ms()

    @property
    def instant(self) -> str:
        """Now, as the ledger writes it."""
        return rfc3339(self.now_ms)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction of the ledger that proves our lock: a process that stood still too long changes nothing."""
        with self.ledger.begin() as connection:
            ledgers.renew(connection, self.job.settings.name, self.holder, self.now_ms)
            yield connection

    def reach(self, mark: str) -> None:
        """A point where tests end the process."""
        self.world.marks.reach(mark)

    def tell(self, name: str, run_id: str = "", **facts: Any) -> None:
        """Print what happens; what belongs to a run is also kept in its story."""
        if run_id and name not in ("status", "row", "waiting"):
            with self.begin() as connection:
                runs.note(connection, run_id, self.instant, name, facts)
        self.listener(Event(name, facts))

    def wait(self, seconds: float) -> None:
        """Let time pass. Stopped if somebody asks us to end."""
        if not self.is_stopped:
            self.world.pause.wait_s(seconds)
        if self.is_stopped:
            raise Stopped


@contextmanager
def locked(work: Work) -> Iterator[Work]:
    """Hold the lock of the job, renewed in the background. JobHeld if somebody else has it."""
    name = work.job.settings.name
    ledgers.take(work.ledger, name, work.holder, work.now_ms, is_alive=process.is_alive)
    ended = threading.Event()
    beat = threading.Thread(target=_renew, args=(work, ended), name="job-lock", daemon=True)
    beat.start()
    try:
        yield work
    finally:
        ended.set()
        beat.join()
        ledgers.give_back(work.ledger, name, work.holder)


def _renew(work: Work, ended: threading.Event) -> None:
    """A long upload or a long answer must not cost the lock. Where renewing fails, the next transaction says so."""
    while not ended.wait(limits.JOB_LOCK_RENEW_S):
        try:
            with work.begin():
                pass
        except (JobHeld, StoreError) as error:
            log.warning("the lock of %s could not be renewed: %s", work.job.settings.name, error)
