"""Every benchmark runs, here with next to nothing to do, and prints one line of JSON that can be compared."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = {
    "ingest": ("--requests", "50", "--megabytes", "0.1"),
    "results": ("--requests", "50", "--line-bytes", "600", "--downloads", "1"),
    "dispatch": ("--requests", "40"),
    "creates": ("--clients", "2", "--seconds", "0.1"),
    "prefix": ("--prefixes", "2", "--each", "2", "--prefix-bytes", "40"),
    "beside": ("--seconds", "0.5", "--per-s", "20"),
}
GOALS = {
    "ingest": {"ack_over_limit": 4.0, "memory_above_body_mb": 100.0},
    "results": {"cpu_over_sendfile": 1.5},
    "dispatch": {"plain_cpu_us": 40.0, "aiohttp_requests_per_s_a_core": 8_000.0},
    "creates": {"over_single_commits": 20.0},
    "prefix": {"submitted_over_ours": 2.0},
    "beside": {"p99_over_alone": 1.5, "batch_over_flood": 0.5},
}


def line_of(name: str, on: Path) -> dict:
    command = [
        sys.executable,
        str(BENCHMARKS / f"{name}.py"),
        "--rounds",
        "1",
        "--seed",
        "7",
        "--on",
        str(on),
        *TINY[name],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.fixture(scope="module", params=TINY)
def line(request, tmp_path_factory):
    found = line_of(request.param, tmp_path_factory.mktemp("disk"))
    assert found["benchmark"] == request.param
    return found


def test_a_benchmark_prints_one_line_with_all_that_is_needed_to_compare_it(line):
    assert line["seed"] == 7
    assert line["workload"]["rounds"] == 1
    assert line["machine"]["cores"] >= 1
    assert line["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert line["commit"]


def test_each_goal_has_its_bound_and_a_verdict_that_follows_from_the_value(line):
    goals = line["goals"]
    assert {goal: found.get("at_most", found.get("at_least")) for goal, found in goals.items()} == GOALS[
        line["benchmark"]
    ]
    for found in goals.values():
        meets = found["value"] <= found["at_most"] if "at_most" in found else found["value"] >= found["at_least"]
        assert found["is_met"] is meets


def test_the_disk_that_was_asked_for_is_left_as_it_was(tmp_path):
    line_of("ingest", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bodies_are_the_same_for_the_same_seed_and_have_the_size_asked_for(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import prose

    body = prose.batch_body(300, 600_000, seed=3)
    assert body == prose.batch_body(300, 600_000, seed=3)
    assert body != prose.batch_body(300, 600_000, seed=4)
    assert abs(len(body) - 600_000) < 60_000
    assert len({entry["custom_id"] for entry in json.loads(body)["requests"]}) == 300


def test_neighbours_in_the_batch_of_the_prefix_benchmark_share_no_prefix_until_they_are_sorted(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import prefix
    from overnight.store import segments
    from overnight.wire import create

    ours = segments.sorted_by_prefix
    requests = create.read(bytearray(prefix.body(3, 4, 400, seed=3)))
    with prefix.stored_in(list):
        assert changes_of_team(segments.sorted_by_prefix(requests)) == 11
    assert segments.sorted_by_prefix is ours
    assert changes_of_team(ours(requests)) == 2


def changes_of_team(requests):
    teams = [request.custom_id.partition("-")[0] for request in requests]
    return sum(one != other for one, other in pairwise(teams))


def test_the_quantile_of_the_beside_benchmark_is_one_of_the_values(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import beside

    assert [beside.quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 2.0, 3.0, 3.0]
