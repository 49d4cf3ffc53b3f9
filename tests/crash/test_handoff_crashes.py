"""A process that hands over is killed between every two steps; the next one finishes, and nothing is paid twice.

The upstream is the strict double of the hosted API, which knows no Idempotency-Key and outlives the processes.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handoff_process import BATCH_REQUESTS, COUNT

from overnight.ports.marks import MARKS
from overnight.testing import crashpoint
from overnight.testing.hosted import HostedApi, Outcome, failed, text

PROCESS = Path(__file__).with_name("handoff_process.py")
QUICK = {
    "HANDOFF_GATHER_MS": 50,
    "HANDOFF_POLL_MS": 50,
    "HANDOFF_SETTLE_MS": 300,
    "HANDOFF_LISTING_LAG_MS": 1_500,
    "RETRY_DELAY_MS": 100,
}
POINTS = {
    "handoff.intended": (1, 3),
    "handoff.posted": (1, 2),
    "handoff.submitted": (1, 3),
    "handoff.ended": (1, 2),
    "handoff.part-applied": (1, 3),
    "handoff.collected": (1, 3),
    "checkpoint.durable": (1,),
    "seal.object-durable": (1, 2),
    "seal.committed": (1, 5),
    "disk.torn": (1,),
}
CHOSEN = [(mark, count) for mark, counts in POINTS.items() for count in counts]
UNLUCKY = "r5"  # Fails once, so that its segment is checkpointed, given back and read anew.


def said(params: dict[str, Any]) -> str:
    return str(params["messages"][0]["content"])


@pytest.fixture
def hosted() -> Iterator[HostedApi]:
    tries = Counter[str]()

    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        tries[said(params)] += 1
        if said(params) == UNLUCKY and tries[UNLUCKY] == 1:
            return failed("api_error", "Internal server error")
        return text(f"echo {said(params)}")

    with HostedApi(script) as found:
        found.end_after_looks(0)
        yield found


def started(data: Path, hosted: HostedApi, *, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    """A process from its start to its end."""
    environment = crashpoint.settings(crash_at=crash_at, marks_log=data.with_name("marks.txt"), changed_limits=QUICK)
    command = [sys.executable, str(PROCESS), str(data), hosted.url]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def check_finished(finished: subprocess.CompletedProcess[str], hosted: HostedApi) -> None:
    assert finished.returncode == 0, finished.stderr
    results = json.loads(finished.stdout)
    assert {name: found["message"]["content"][0]["text"] for name, found in results.items()} == {
        f"r{index}": f"echo r{index}" for index in range(COUNT)
    }
    asked = Counter(said(params) for create in hosted.creates for params in create.params)
    assert asked == {name: 2 if name == UNLUCKY else 1 for name in results}


@pytest.mark.parametrize(("mark", "count"), CHOSEN)
def test_a_kill_at_any_mark_pays_for_nothing_twice(mark: str, count: int, tmp_path: Path, hosted: HostedApi) -> None:
    hosted.list_lag(1)
    died = started(tmp_path / "data", hosted, crash_at=f"{mark}:{count}")
    assert died.returncode == -9, (died.stdout, died.stderr)
    check_finished(started(tmp_path / "data", hosted), hosted)


def test_every_mark_of_a_handoff_is_reached_and_tested(tmp_path: Path, hosted: HostedApi) -> None:
    check_finished(started(tmp_path / "data", hosted), hosted)
    reached = {line.partition(" ")[0] for line in (tmp_path / "marks.txt").read_text().splitlines()}
    ours = {mark for mark in MARKS if mark.startswith("handoff.")}
    assert ours == {mark for mark in reached if mark.startswith("handoff.")}
    assert ours <= POINTS.keys()
    assert len(hosted.creates) == -(-COUNT // BATCH_REQUESTS) + 1


def test_a_death_at_each_step_in_turn_pays_for_nothing_twice(tmp_path: Path, hosted: HostedApi) -> None:
    for mark in ("handoff.intended", "handoff.posted", "handoff.submitted", "handoff.ended", "handoff.part-applied"):
        assert started(tmp_path / "data", hosted, crash_at=f"{mark}:1").returncode == -9, mark
    check_finished(started(tmp_path / "data", hosted), hosted)
