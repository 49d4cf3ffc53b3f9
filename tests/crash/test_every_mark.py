"""Whatever happens between two marks, nothing acknowledged is lost, doubled or changed (invariants I1 to I3).

Each test runs the same client against a real server that kills itself at one mark, starts an ordinary server on
what is left, and lets the client demand what it was promised.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest
from crash_engine import TimedUpstream, running_engine
from crash_workload import (
    CHECKPOINT_LOSS_S,
    Ledger,
    ServerGone,
    Session,
    asked_again,
    check_nothing_left,
    check_promises,
    recorded,
    work,
)

from overnight.ports.marks import MARKS
from overnight.testing import crashpoint
from overnight.testing.crashpoint import DISK_MARKS
from overnight.testing.processes import ServerProcess, running_server

ENGINE_DELAY_S = 0.1
POINTS = {
    "create.received": (1, 3),
    "create.objects-durable": (1,),
    "create.committed": (2, 3),
    "lease.committed": (1, 4),
    "request.dispatched": (1, 200),
    "request.answered": (1, 250),
    "checkpoint.durable": (1, 2),
    "seal.object-durable": (1, 4),
    "seal.committed": (1, 4),
    "cancel.committed": (1,),
    "delete.committed": (1,),
    "disk.piece": (2,),
    "disk.created": (2,),
    "disk.torn": (1, 2),
    "disk.appended": (2,),
    "disk.removed": (1, 2),
}
LONG_POINTS = {
    "create.received": (2, 4),
    "create.committed": (1, 4),
    "lease.committed": (2, 3),
    "request.dispatched": tuple(range(2, 355, 22)),
    "request.answered": tuple(range(2, 355, 22)),
    "seal.object-durable": (2, 3, 5, 6),
    "seal.committed": (2, 3, 5, 6),
    "disk.piece": (1, 3, 4, 5, 6, 7),
    "disk.created": (1, 3, 4, 5),
    "disk.appended": (1,),
}
CHOSEN = [
    (mark, count)
    for points in ([POINTS, LONG_POINTS] if os.environ.get("OVERNIGHT_LONG") else [POINTS])
    for mark, counts in points.items()
    for count in (counts if os.environ.get("OVERNIGHT_LONG") else counts[:1])
]


@pytest.fixture
def engine() -> Iterator[TimedUpstream]:
    with running_engine(delay_s=ENGINE_DELAY_S) as upstream:
        yield upstream


@contextmanager
def crashing(data: Path, engine: TimedUpstream, crash_at: str) -> Iterator[ServerProcess]:
    """A server that dies at this mark and keeps a log of all marks beside its directory."""
    environment = crashpoint.settings(crash_at=crash_at, marks_log=marks_log(data))
    module = "overnight.testing.crashpoint"
    server = ServerProcess(data, "--engine", engine.url, module=module, environment=environment)
    try:
        yield server
    finally:
        server.kill()


def marks_log(data: Path) -> Path:
    return data.with_name("marks.txt")


def last_mark(data: Path) -> tuple[str, float]:
    """The mark that the dead server reached last, and when (monotonic clock)."""
    mark, _, time_s = marks_log(data).read_text().splitlines()[-1].partition(" ")
    return mark, float(time_s)


@pytest.mark.parametrize(("mark", "count"), CHOSEN)
def test_a_kill_at_any_mark_costs_nothing_that_was_promised(
    mark: str, count: int, tmp_path: Path, engine: TimedUpstream
) -> None:
    data, ledger = tmp_path / "data", Ledger()
    with crashing(data, engine, f"{mark}:{count}") as server:
        with pytest.raises(ServerGone):
            work(server.url, ledger)
        assert server.wait() == -9
    died_at, died_at_s = last_mark(data)
    assert died_at == mark
    done = recorded(data, tmp_path)

    with running_server(data, "--engine", engine.url) as restarted:
        left = check_promises(restarted.url, ledger)
        unknown = set(left) - ledger.acknowledged.keys()
        assert len(unknown) <= len(ledger.sent) - len(ledger.acknowledged) <= 1
        check_nothing_left(restarted.url, data, left)
    again = asked_again(engine, after_s=died_at_s)
    assert not done & again.keys(), "a request with a durable result was asked again"
    assert all(len(times) <= 2 for times in engine.asked_at_s.values())


def test_every_mark_is_reached_and_tested(tmp_path: Path, engine: TimedUpstream) -> None:
    data, ledger = tmp_path / "data", Ledger()
    with crashing(data, engine, "") as server:
        work(server.url, ledger)
        assert server.stop() == 0
    reached = {line.partition(" ")[0] for line in marks_log(data).read_text().splitlines()}
    of_servers = {
        mark for mark in MARKS if not mark.startswith(("job.", "handoff."))
    }  # The others: tests/jobs/test_jobs_crashes.py
    assert reached == {*of_servers, *DISK_MARKS} == POINTS.keys()


def test_a_kill_repeats_at_most_what_was_in_flight_and_half_a_second_of_results(
    tmp_path: Path, engine: TimedUpstream
) -> None:
    data, ledger = tmp_path / "data", Ledger()
    with crashing(data, engine, "request.answered:900") as server:
        session = Session(server.url, ledger)
        with closing(session.client):
            batch_id = session.create("long", 1000)  # One segment: what is not in a checkpoint is nowhere.
            with pytest.raises(ServerGone):
                session.until_ended(batch_id, requests=1000)
        assert server.wait() == -9
    _, died_at_s = last_mark(data)

    with running_server(data, "--engine", engine.url) as restarted:
        check_promises(restarted.url, ledger)
    answered_at_s = {word: time_s + ENGINE_DELAY_S for word, time_s in asked_again(engine, after_s=died_at_s).items()}
    assert answered_at_s, "what was in flight is asked again"
    assert died_at_s - min(answered_at_s.values()) < CHECKPOINT_LOSS_S
    first_s = min(times[0] for times in engine.asked_at_s.values())
    assert died_at_s - first_s > 2 * CHECKPOINT_LOSS_S, "the run was too short to show anything"


def test_four_deaths_in_a_row_cost_nothing_that_was_promised(tmp_path: Path, engine: TimedUpstream) -> None:
    data, ledger = tmp_path / "data", Ledger()
    for crash_at in ("checkpoint.durable:2", "disk.torn:1", "disk.removed:1", "seal.object-durable:1"):
        with crashing(data, engine, crash_at) as server:
            with pytest.raises((ServerGone, OSError, HTTPException)):  # Wherever the client was just then.
                check_promises(server.url, ledger) if ledger.sent else work(server.url, ledger)
            assert server.wait() == -9
    with running_server(data, "--engine", engine.url) as restarted:
        check_nothing_left(restarted.url, data, check_promises(restarted.url, ledger))
