"""Text 001: large lists in several batches, waiting for all of them, cost tables.

The numbers are the point of some rows. Measured on two cores under a load of 15: 50,000 rows took 45 to 150 s, 25,000
15 s, 100,002 rows of 3 KB 77 s, and a night of 100,000 rows 200 s.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from counting import Cost, counted
from nights import Folder, Params, Served, Time, said, served

from overnight import limits
from overnight.cli.joboptions import DONE
from overnight.errors import JobError
from overnight.jobs import batches, jobfile, split
from overnight.jobs.job import Job
from overnight.jobs.row import Row
from overnight.jobs.session import night_of
from overnight.ports.world import World
from overnight.testing.hosted import HostedApi, Outcome, failed, text
from overnight.testing.wireclient import WireClient

BATCHES = "/v1/messages/batches"
CREATED = '[lines]\nbatch = "Created batch {{ id }} with {{ requests }} requests"\n'
MODERATION = """
name = "moderation"
model = "claude-haiku-4-5"
max_tokens = 10
id = "mod-{{ '%06d' % n }}"
[source]
sql = "select n, 'post ' || n as text from range({first}, {last}) as numbers(n)"
key = "n"
[prompt]
user = "{{ text }}"
[batch]
poll = 0.01
"""


def moderation(first: int, last: int, *tables: str) -> str:
    job = MODERATION.replace("{first}", str(first)).replace("{last}", str(last))
    return "\n".join([job.rstrip(), *tables])


def try_out(folder: Folder, server: Served) -> None:
    """A small night first, as with `--limit`: of a new job one row is asked alone, and missing from its batch."""
    folder.job(moderation(900_000, 900_002))
    assert folder.run(server.environment).code == DONE


def sizes_of(folder: Folder) -> list[int]:
    """Requests of the batches after those of the try-out."""
    found = folder.ledger("select total_requests from batch_jobs where status = 'submitted' order by id")
    return [requests for (requests,) in found]


def shown_total(server: Served, batch_id: str) -> int:
    with closing(WireClient(server.url, api_key=HostedApi.key)) as client:
        counts = client.retrieve(batch_id)["request_counts"]
        client.cancel(batch_id)
    return sum(counts.values())


# --- Cutting -------------------------------------------------------------------------------------------------------


def test_001_08_50000_items_are_one_batch_with_ids_by_a_template(server: Served, folder: Folder) -> None:
    """The server has them; what they are answered is no part of this."""
    try_out(folder, server)
    server.hold()
    folder.job(moderation(0, 50_000, "max_requests = 100_000\n"))
    folder.submit(server.environment)
    assert sizes_of(folder) == [50_000]
    [newest, _] = server.batch_ids
    assert shown_total(server, newest) == 50_000
    ids = [
        name for (name,) in folder.ledger("select custom_id from items where state = 'submitted' order by position")
    ]
    assert (len(set(ids)), ids[0], ids[-1]) == (50_000, "mod-000000", "mod-049999")
    if server.kind == "hosted":
        assert server.double.creates[-1].custom_ids == ids
    server.release()


def test_001_09_a_large_list_is_split_into_batches_of_10000(folder: Folder, tmp_path: Path) -> None:
    with served("hosted", tmp_path / "server") as server:
        try_out(folder, server)
        server.hold()
        folder.job(moderation(0, 25_000))
        folder.submit(server.environment)
        _, *made = server.double.creates
    assert [len(create.custom_ids) for create in made] == [10_000, 10_000, 5_000]
    assert [made[0].custom_ids[0], made[1].custom_ids[0], made[2].custom_ids[0]] == [
        "mod-000000",
        "mod-010000",
        "mod-020000",
    ]


def test_001_09_the_size_of_batches_is_configurable(server: Served, folder: Folder) -> None:
    folder.job(moderation(0, 25, "max_requests = 10\n"))
    folder.submit(server.environment)
    assert sizes_of(folder) == [10, 10, 5]
    assert [shown_total(server, batch_id) for batch_id in reversed(server.batch_ids)] == [10, 10, 5]


def test_001_10_each_batch_is_printed_with_its_requests(server: Served, folder: Folder) -> None:
    folder.job(moderation(0, 25, "max_requests = 10\n", CREATED))
    printed = folder.submit(server.environment)
    first, second, third = reversed(server.batch_ids)
    assert [line for line in printed.lines if line.startswith("Created")] == [
        f"Created batch {first} with 10 requests",
        f"Created batch {second} with 10 requests",
        f"Created batch {third} with 5 requests",
    ]


@pytest.mark.parametrize("setting", ["max_requests = 100_001", "max_bytes = 268_435_457"])
def test_001_11_more_than_the_api_takes_cannot_be_configured(setting: str, folder: Folder) -> None:
    path = folder.job(moderation(0, 1, setting))
    with pytest.raises(JobError, match=rf"batch\.{setting.split(maxsplit=1)[0]}: expected"):
        Job.load(path)


def planned_bodies(home: Path, rows: Callable[[], Iterable[Row]]) -> list[tuple[int, int]]:
    """Requests and bytes of the bodies that a job with the largest settings would send."""
    largest = {"max_requests": limits.BATCH_REQUESTS_MAX, "max_bytes": limits.BATCH_BODY_BYTES_MAX}
    settings = jobfile.read({"name": "large", "model": "any", "prompt": {"user": "{{ text }}"}, "batch": largest})
    with HostedApi() as hosted:
        environment = {"ANTHROPIC_BASE_URL": hosted.url, "ANTHROPIC_API_KEY": hosted.key}
        job = Job(settings, home, rows=rows)
        with night_of(job, environment=environment, listener=lambda event: None, world=World()) as night:
            run_id = night.plan()
            assert run_id is not None
            with night.work.begin() as connection:
                planned = batches.of_run(connection, run_id)
                requests = (list(batches.requests_of(connection, batch)) for batch in planned)
                return [(len(found), len(split.body(found))) for found in requests]


def test_001_11_no_batch_is_larger_than_256_mb(tmp_path: Path) -> None:
    """300 rows of 1 MB: 268 fit, and the first of them was asked alone."""
    mb = "x" * 1_000_000
    found = planned_bodies(tmp_path, lambda: (Row(number, {"text": f"{number} {mb}"}) for number in range(300)))
    assert all(size <= 256 * 1024 * 1024 for _, size in found)
    assert [requests for requests, _ in found] == [267, 32]


def test_001_11_100001_rows_of_3_kb_are_two_batches(tmp_path: Path) -> None:
    """100,002 rows of 3 KB, of which the first was asked alone: bytes end a batch before the number does."""
    kb = "x" * 3_000
    found = planned_bodies(tmp_path, lambda: (Row(number, {"text": f"{number} {kb}"}) for number in range(100_002)))
    assert sum(requests for requests, _ in found) == 100_001
    assert all(size <= 256 * 1024 * 1024 for _, size in found)
    assert len(found) == 2


def test_001_11_100001_small_requests_are_two_batches() -> None:
    sizes = itertools.repeat(100, 100_001)
    cut = split.cut(sizes, max_requests=limits.BATCH_REQUESTS_MAX, max_bytes=limits.BATCH_BODY_BYTES_MAX)
    assert Counter(cut) == {0: 100_000, 1: 1}


# --- Waiting for many ----------------------------------------------------------------------------------------------


def test_001_12_batches_are_watched_together_and_each_is_collected_once(server: Served, folder: Folder) -> None:
    """One of three ends long before the others: its results are had at once, and it is not looked at again."""

    def let_end(_seconds: float) -> None:
        if len(time.waits) == 1 and server.kind == "hosted":
            with closing(WireClient(server.url, api_key=HostedApi.key)) as somebody:
                somebody.cancel(server.batch_ids[-1])  # Its row is done, so that it is answered all the same.
        if results_calls():
            server.release()

    def results_calls() -> Counter[str]:
        return Counter(path for _, path in server.calls if path.endswith("/results"))

    time = Time(on_wait=let_end)
    server.hold(done=1)
    folder.job(moderation(0, 3, "max_requests = 1\n"))
    printed = folder.run(server.environment, time=time)
    assert printed.code == DONE
    assert results_calls() == {f"{BATCHES}/{batch_id}/results": 1 for batch_id in server.batch_ids}
    waiting = [line for line in printed.lines if line.startswith("Waiting")]
    assert "Waiting for 2 batches..." in waiting
    assert waiting == sorted(waiting, reverse=True)
    asked = [path.partition("?")[0] for method, path in server.calls if method == "GET"]
    first = next(path for path in asked if path.endswith("/results")).removesuffix("/results")
    assert asked.count(BATCHES) >= 2
    assert first not in asked


def test_001_13_waiting_is_printed_while_any_remain_every_120_s(folder: Folder, tmp_path: Path) -> None:
    def cancel_one(_seconds: float) -> None:
        if len(time.waits) in (1, 3):
            with closing(WireClient(server.url, api_key=HostedApi.key)) as somebody:
                somebody.cancel(server.batch_ids[-1 if len(time.waits) == 1 else -2])
        if len(time.waits) == 5:
            server.release()

    time = Time(on_wait=cancel_one)
    with served("hosted", tmp_path / "server") as server:
        server.hold(done=1)
        folder.job(moderation(0, 3, "max_requests = 1\n").replace("poll = 0.01", "poll = 120"))
        printed = folder.run(server.environment, time=time)
    assert [line for line in printed.lines if line.startswith("Waiting")] == [
        "Waiting for 3 batches...",
        "Waiting for 3 batches...",
        "Waiting for 2 batches...",
        "Waiting for 2 batches...",
        "Waiting for 1 batches...",
    ]
    assert time.waits == [120.0] * 5


# --- Failures among many -------------------------------------------------------------------------------------------


class Steps:
    """Notes what the databases had done at each mark, in statements."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self.at: dict[str, list[int]] = {}

    def reach(self, mark: str) -> None:
        self.at.setdefault(mark, []).append(self._cost.total)


def test_001_19_10000_failures_of_100000_rows_take_few_statements(folder: Folder, tmp_path: Path) -> None:
    """From the last result that was read to the body of the batch that asks again, nothing is done once for a row."""
    folder.job(moderation(0, 100_000, "max_requests = 100_000\n", '[lines]\nstatus = ""\n'))

    def answer(params: Params) -> Outcome:
        is_bad = len(server.double.creates) == 1 and said(params).endswith("7")
        return failed("overloaded_error", "Overloaded") if is_bad else text("ok")

    with served("hosted", tmp_path / "server") as server, counted() as cost:
        marks = Steps(cost)
        server.answer = answer
        assert folder.run(server.environment, marks=marks).code == DONE
        first, again = server.double.creates
    assert (len(first.custom_ids), len(again.custom_ids)) == (99_999, 10_000)
    assert 0 < marks.at["job.intended"][-1] - marks.at["job.collected"][0] < 2_000, "2 for 100 rows"


# --- Tables of cost ------------------------------------------------------------------------------------------------

PRICED = """
name = "priced"
model = "claude-sonnet-4-20250514"
max_tokens = 100
[source]
db = "sqlite:///rows.db"
sql = "select id, text from rows"
key = "id"
[prompt]
user = "{{ text }}"
"""
TOKENS_500 = 1_750  # Characters, at 3.5 for each token.


def priced(folder: Folder) -> dict[str, Any]:
    """A job whose one row is a request of 500 tokens, answered with 100 at the most."""
    folder.job(PRICED)
    folder.table("rows", ["id", "text"], [])
    job = Job.load(folder.home / "job.toml")
    around = len(job.renderer(Row(1, {"text": ""})).params)
    folder.sql("insert into rows values (1, ?)", "x" * (TOKENS_500 - around))
    return {"ANTHROPIC_API_KEY": "none"}


def test_001_07_estimate_prints_costs_by_volume(folder: Folder) -> None:
    assert folder.command(priced(folder), "estimate", "job.toml", "--table").lines == [
        "     rows  standard   batch  savings",
        "   10,000       $30     $15      $15",
        "  100,000      $300    $150     $150",
        "1,000,000    $3,000  $1,500   $1,500",
    ]


def test_001_24_estimate_compares_models(folder: Folder) -> None:
    environment = priced(folder)
    folder.sql(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < 1000) "
        "insert into rows select i, text from n, rows where id = 1"
    )
    models = "claude-haiku-4-5,claude-sonnet-4-20250514,claude-opus-4-6"
    assert folder.command(environment, "estimate", "job.toml", "--models", models).lines == [
        "model                     standard  batch  savings",
        "claude-haiku-4-5                $1  $0.50    $0.50",
        "claude-sonnet-4-20250514        $3  $1.50    $1.50",
        "claude-opus-4-6                 $5  $2.50    $2.50",
    ]
