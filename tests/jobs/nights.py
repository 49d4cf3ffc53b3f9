"""What tests of jobs share: a folder with a job file and a database, nights of it, and time that passes at once.

    folder.table("invoices", ["id", "text", "department"], [("INV-001", "AWS", None)])
    folder.job(JOB)
    assert folder.run(server.environment).lines == ["1 invoices to do", …]

In process by `Folder.run`, `submit`, `collect` and `night`, with a `Time`; as a real command by `Folder.command`.
"""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from relay import Relay

from overnight.cli.joboptions import DONE, NOT_YET, Manner, finished
from overnight.jobs import tell
from overnight.jobs.job import Job
from overnight.jobs.night import Night, Waiting
from overnight.jobs.session import night_of
from overnight.ports.marks import Marks, NoMarks
from overnight.ports.world import World
from overnight.testing.hosted import HostedApi, Outcome, text
from overnight.testing.processes import running_server
from overnight.testing.wireclient import WireClient

JOB_FILE = "job.toml"
COMMAND = "overnight.cli.main"
FOREVER = Waiting(None)
_WAITS_MAX = 20_000  # A test that waits more often hangs.
_PATIENCE_S = 60.0

Params = dict[str, Any]


class Time:
    """A clock and a pause in one: waits are noted and pass at once. `on_wait` is called in each of them."""

    def __init__(self, *, now_ms: int = 1_780_000_000_000, on_wait: Callable[[float], None] | None = None) -> None:
        self._now_ms = now_ms
        self._on_wait = on_wait
        self.waits: list[float] = []  # Seconds.

    def now_ms(self) -> int:
        return self._now_ms

    def wait_s(self, seconds: float) -> None:
        self.waits.append(seconds)
        assert len(self.waits) < _WAITS_MAX, "this never ends"
        self._now_ms += round(seconds * 1000)
        if self._on_wait is not None:
            self._on_wait(seconds)

    def jump_to(self, now_ms: int) -> None:
        """What a real clock does between two processes."""
        self._now_ms = now_ms


class Printed(NamedTuple):
    """What a run of a job left behind. `lines` of stdout; `err` only of a real command."""

    code: int
    lines: list[str]
    err: str = ""


class Folder:
    """A job's folder: `job.toml`, and the SQLite file `rows.db` with its rows and answers."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.db = home / "rows.db"

    def job(self, toml: str, *, name: str = JOB_FILE) -> Path:
        """Write a job file."""
        path = self.home / name
        path.write_text(toml, encoding="utf-8")
        return path

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Make a table of `rows.db`. A column may carry its type: "id integer primary key"."""
        self.sql(f"create table {name} ({', '.join(columns)})")
        self.many(f"insert into {name} values ({', '.join('?' * len(columns))})", rows)

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Change `rows.db` once for each of `rows`."""
        with closing(sqlite3.connect(self.db)) as connection, connection:
            connection.executemany(statement, rows)

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask or change `rows.db`."""
        with closing(sqlite3.connect(self.db)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    def ledger(self, statement: str, *parameters: Any, job: str | None = None) -> list[tuple[Any, ...]]:
        """Ask the ledger of a job; `job` is its name, if the folder has several."""
        [path] = (self.home / ".overnight").glob(f"{job or '*'}.db")
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(statement, parameters).fetchall()

    @contextmanager
    def night(
        self,
        environment: Mapping[str, str],
        write: Callable[[str], None] = print,
        *,
        time: Time | None = None,
        marks: Marks | None = None,
        name: str = JOB_FILE,
        anew: bool = False,
    ) -> Iterator[Night]:
        """A night of the job, under its lock; `write` gets its lines. Errors are raised, not printed."""
        job, passing = Job.load(self.home / name), time or Time()
        listener = tell.plain(job.settings.lines, job.settings.noun, write)
        world = World(clock=passing, pause=passing, marks=marks or NoMarks())
        given = {"HOME": str(self.home), **environment}
        with night_of(job, environment=given, listener=listener, world=world, anew=anew) as night:
            yield night

    def run(self, environment: Mapping[str, str], **options: Any) -> Printed:
        """`overnight run` in this process; `options` of `night`."""
        with redirect_stdout(StringIO()) as out, self.night(environment, **options) as night:
            begun = night.unfinished()
            codes = [_finish(night, run_id) for run_id in begun]
            planned = night.plan(is_quiet=bool(begun))
            if planned is not None:
                night.work.tell("submitted", planned, rows=night.send(planned))
                codes.append(_finish(night, planned))
        return Printed(max(codes, default=DONE), out.getvalue().splitlines())

    def submit(self, environment: Mapping[str, str], **options: Any) -> Printed:
        """`overnight submit` in this process."""
        with redirect_stdout(StringIO()) as out, self.night(environment, **options) as night:
            night.submit()
        return Printed(DONE, out.getvalue().splitlines())

    def collect(self, environment: Mapping[str, str], *, wait_s: float = 0.0, **options: Any) -> Printed:
        """`overnight collect --wait …` in this process."""
        with redirect_stdout(StringIO()) as out, self.night(environment, **options) as night:
            until = Waiting(night.work.now_ms + round(wait_s * 1000))
            codes = [_finish(night, run_id, until) for run_id in night.unfinished()]
        return Printed(max(codes, default=DONE), out.getvalue().splitlines())

    def command(
        self, environment: Mapping[str, str], *arguments: str, cwd: Path | None = None, module: str = COMMAND
    ) -> Printed:
        """`overnight …` in a process of its own, with nothing in its environment but `environment` and HOME."""
        done = self.started(environment, *arguments, cwd=cwd, module=module)
        out, err = done.communicate(timeout=60)
        return Printed(done.returncode, out.splitlines(), err)

    def started(
        self, environment: Mapping[str, str], *arguments: str, cwd: Path | None = None, module: str = COMMAND
    ) -> subprocess.Popen[str]:
        """The same while it runs: the caller reads it, and waits for it or kills it."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd or self.home,
            env={"HOME": str(self.home), **environment},
        )


def _finish(night: Night, run_id: str, waiting: Waiting = FOREVER) -> int:
    return finished(night, run_id, Manner()) if night.finish(run_id, waiting) else NOT_YET


class Served:
    """A Message Batches server that answers by rule: `kind` "ours" (a process of `overnight serve`) or "hosted".

    `answer` is what a request gets, from its params; set it before a batch is made. "ours" asks for it in real time,
    so that it can only be `text`, `message` or `failed`, and an error that may pass is asked for again.
    """

    def __init__(self, kind: str, url: str, double: HostedApi, relay: Relay | None) -> None:
        self.kind = kind
        self.url = url
        self.double = double  # The hosted API itself, or the engine behind our server.
        self.answer: Callable[[Params], Outcome] = lambda params: text("ok")
        self._relay = relay
        self._gate = threading.Event()
        self._gate.set()
        self._before_gate = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a job needs to find it."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": HostedApi.key}

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Method and path of every call of a client."""
        return self._relay.calls if self._relay is not None else self.double.calls

    @property
    def batch_ids(self) -> list[str]:
        """Every batch that was made, newest first. No look of a client."""
        if self._relay is None:
            return [batch.id for batch in reversed(self.double.batches)]
        with closing(WireClient(self._relay.target)) as client:
            return client.ids()

    def results(self, batch_id: str) -> list[Any]:
        """The results of an ended batch, in the order of the server."""
        with closing(WireClient(self.url, api_key=HostedApi.key)) as client:
            answer = client.call("GET", f"/v1/messages/batches/{batch_id}/results")
        return [json.loads(line) for line in answer.body.splitlines()]

    def lose_next_create(self) -> None:
        """The next create makes a batch, and its answer never arrives."""
        if self._relay is not None:
            self._relay.lose_next_create()
        else:
            self.double.next_create("lost")

    def hold(self, *, done: int = 0) -> None:
        """Batches made from now on run until `release`, with live counts; `done` requests are answered at once."""
        if self._relay is not None:
            self._before_gate = done
            self._gate.clear()
        else:
            self.double.live_counts(True)
            self.double.progress(done)
            self.double.hold()

    def release(self) -> None:
        """Take `hold` back."""
        self._gate.set()
        if self._relay is None:
            self.double.release()

    def answered(self, params: Params) -> Outcome:
        """What the double asks for."""
        self._before_gate -= 1
        if self._before_gate < 0 and not self._gate.wait(_PATIENCE_S):
            raise TimeoutError("nobody released the server")
        return self.answer(params)


@contextmanager
def served(kind: str, data: Path) -> Iterator[Served]:
    """Such a server for the length of a block. `data` is where ours keeps its files."""
    found: list[Served] = []
    with ExitStack() as held:
        double = held.enter_context(HostedApi(lambda custom_id, params: found[0].answered(params)))
        if kind == "ours":
            config = data.with_suffix(".toml")
            engine = f'[[engines]]\nspec = "{double.url}"\nmodels = ["*"]\napi_key_env = "ENGINE_KEY"\n'
            config.write_text(engine, encoding="utf-8")
            environment = {"ENGINE_KEY": HostedApi.key}
            ours = held.enter_context(running_server(data, "--config", str(config), environment=environment))
            relay = held.enter_context(Relay(ours.url))
            found.append(Served(kind, relay.url, double, relay))
        else:
            found.append(Served(kind, double.url, double, None))
        held.callback(found[0].release)
        yield found[0]


def said(params: Params, *, first: bool = False) -> str:
    """The text of the last message of a request, or of the first: one that is asked again has three."""
    content = params["messages"][0 if first else -1]["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])
