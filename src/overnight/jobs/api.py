"""The jobs of Python programs: the same job that a file describes, with rows, models and callables from Python.

    import overnight
    frame = overnight.map(frame, "Triage this: {{ content }}", output=Triage, name="triage", model="claude-haiku-4-5")

Calling the same again goes on where it stopped: the name of a job is its identity, its ledger lies in `.overnight/`.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from overnight.errors import NotSpent
from overnight.jobs import closing, jobfile, tell, writing
from overnight.jobs import job as jobs
from overnight.jobs.deadline import seconds_of
from overnight.jobs.estimate import Estimate
from overnight.jobs.foresee import foresee
from overnight.jobs.frames import frame_like, frame_rows
from overnight.jobs.night import Waiting
from overnight.jobs.report import Summary
from overnight.jobs.row import Answer, Key, Row, State
from overnight.jobs.schema import PydanticModel, shape_of_model
from overnight.jobs.session import ledger_of, night_of
from overnight.jobs.tell import Event
from overnight.ports.world import World

V = TypeVar("V")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Ok(Generic[V]):
    """A row with its answer: `value` is a text, a dict, or an instance of the model that was asked for."""

    key: Key
    value: V
    row: Mapping[str, Any] = field(default_factory=dict)
    derived: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A row without an answer, in exactly one state, and why."""

    key: Key
    state: State
    error: str
    row: Mapping[str, Any] = field(default_factory=dict)


class Job:
    """A job. `settings` are the tables of a job file as keywords, such as `limits={"budget_usd": 2.0}`.

    `rows`: a frame, a list of dicts, or a callable that gives one; instead of `source`. `output`: a pydantic model,
    or the table of a job file. `write`: called with each answer. `home`: where the ledger and relative paths begin.
    """

    def __init__(
        self,
        name: str,
        *,
        rows: Any = None,
        key: str = "id",
        output: Any = None,
        write: Callable[[Answer], None] | None = None,
        home: str | Path = ".",
        **settings: Any,
    ) -> None:
        shape = None
        if hasattr(output, "model_json_schema"):
            shape = shape_of_model(cast(PydanticModel, output))
        elif output is not None:
            settings["output"] = output
        if isinstance(settings.get("prompt"), str):
            settings["prompt"] = {"user": settings["prompt"]}
        read = jobfile.read({"name": name, **settings}, origin=f"job {name}")
        given = None if rows is None else (lambda: frame_rows(rows() if callable(rows) else rows, key))
        self.plan = jobs.Job(read, Path(home).absolute(), rows=given, given_shape=shape, write=write)
        self._model = output if shape is not None else None

    @classmethod
    def load(cls, file: str | Path) -> "Job":
        """The job of a file. JobError says which key is wrong."""
        return cls._of(jobs.Job.load(file))

    @classmethod
    def _of(cls, plan: jobs.Job) -> "Job":
        made = cls.__new__(cls)
        made.plan, made._model = plan, None
        return made

    def estimate(self, model: str = "") -> Estimate:
        """What a run would be and cost now. Asks the source, not the server; nothing is written down."""
        return foresee(self.plan, environment=os.environ, world=World(), model=model)

    def submit(self, *, say: Say | None = None, anew: bool = False) -> "Run | None":
        """Everything up to the batches being at the server; the unfinished run goes on if there is one.

        None if there is nothing to do. Durable on return: `Run.wait`, here or in another process, goes on.
        """
        with self._night(say, anew=anew) as night:
            begun = night.submit()
        return None if begun is None else Run(self, begun)

    def run(self, *, wait: str | float | None = None, say: Say | None = None, anew: bool = False) -> "Run | None":
        """From the source to the report; None if there is nothing to do. TimeoutError if `wait` is over before."""
        run = self.submit(say=say, anew=anew)
        if run is not None:
            run.wait(timeout=wait, say=say)
        return run

    async def asubmit(self, **options: Any) -> "Run | None":
        """`submit`, in a thread."""
        return await asyncio.to_thread(self.submit, **options)

    async def arun(self, **options: Any) -> "Run | None":
        """`run`, in a thread."""
        return await asyncio.to_thread(self.run, **options)

    def attach(self, run_id: str) -> "Run":
        """A run of this job by its id, whoever began it."""
        return Run(self, run_id)

    def _night(self, say: Say | None, *, anew: bool = False, plan: jobs.Job | None = None, on: Any = None) -> Any:
        used = plan or self.plan
        listener = tell.plain(used.settings.lines, used.settings.noun, say) if say else on or _silent
        return night_of(used, environment=os.environ, listener=listener, world=World(), anew=anew)


@dataclass(frozen=True)
class Run:
    """One run of a job, in this process or another."""

    job: Job
    id: str

    def wait(
        self,
        *,
        poll: float | None = None,
        timeout: str | float | None = None,
        say: Say | None = None,
        on_status: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> "Run":
        """Until every row has its state, everything is written and everybody is told.

        `poll`: seconds between looks. `timeout`: seconds, or "60m", "6h"; TimeoutError leaves the batches running.
        `on_status` gets what a look shows: id, status and counts.
        """
        plan = self.job.plan
        if poll is not None:
            plan = plan.with_batch(poll=poll)
        listener = _statuses(on_status) if on_status else None
        seconds = None if timeout is None else seconds_of(timeout)
        with self.job._night(say, plan=plan, on=listener) as night:
            until = None if seconds is None else night.work.now_ms + int(seconds * 1000)
            if not night.finish(self.id, Waiting(until)):
                names = " and ".join(self.batches)
                raise TimeoutError(f"Batch {names} did not complete within {(seconds or 0) / 60:g} minutes")
        return self

    async def await_(self, **options: Any) -> "Run":
        """`wait`, in a thread."""
        return await asyncio.to_thread(self.wait, **options)

    def results(self) -> Iterator[Ok[Any] | Failed]:
        """Every row in the order of the source, with its row of the source; read page by page."""
        for answer in self._answers():
            if answer.state == "succeeded":
                yield _ok(answer, self.job)
            else:
                yield Failed(answer.key, answer.state, answer.error, answer.columns)

    def by_id(self) -> dict[str, Ok[Any] | Failed]:
        """The results by custom id."""
        found = self._answers()
        return {
            answer.custom_id: _ok(answer, self.job)
            if answer.state == "succeeded"
            else Failed(answer.key, answer.state, answer.error, answer.columns)
            for answer in found
        }

    @property
    def summary(self) -> Summary:
        """Counts, cost, batches and the most common errors."""
        with ledger_of(self.job.plan, os.environ) as ledger:
            return closing.summary_of(self.job.plan, ledger, self.id)

    @property
    def counts(self) -> Mapping[State, int]:
        """How many rows are in each state."""
        return self.summary.counts

    @property
    def batches(self) -> Sequence[str]:
        """The batches of the run, in the order of their creation."""
        return self.summary.batches

    def frame(self, like: Any = ()) -> Any:
        """The rows with their answers as a table of the kind of `like`; a list of dicts without it."""
        records = [
            {**answer.columns, **answer.fields, "state": answer.state, "error": answer.error}
            for answer in self._answers()
        ]
        return frame_like(like, records)

    def _answers(self) -> Iterator[Answer]:
        with ledger_of(self.job.plan, os.environ) as ledger:
            yield from writing.answers_of(self.job.plan, ledger, self.id)


def map(
    data: Any,
    prompt: str,
    *,
    name: str,
    model: str,
    key: str = "id",
    output: Any = None,
    budget: float | None = None,
    timeout: str | float | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Any:
    """A table with answers: the same kind comes back, with a column for each field, `state` and `error`.

    Blocks until all rows have a state. The same call after a crash goes on, and pays nothing twice. `settings`: as
    for Job.
    """
    if budget is not None:
        settings["limits"] = {**settings.get("limits", {}), "budget_usd": budget}
    job = Job(name, rows=data, key=key, output=output, prompt=prompt, model=model, **settings)
    run = job.run(wait=timeout, say=say)
    return frame_like(data, []) if run is None else run.frame(like=data)


async def amap(*arguments: Any, **options: Any) -> Any:
    """`map`, in a thread."""
    return await asyncio.to_thread(map, *arguments, **options)


def submit(requests: Iterable[Mapping[str, Any]], *, name: str, say: Say | None = None, **settings: Any) -> Run:
    """Plain requests, {"custom_id": …, "params": …} each, as batches: split, written down, sent. The run they are.

    NotSpent if there is none.
    """
    given = [Row(str(request["custom_id"]), {}, dict(request)) for request in requests]
    settings = {"noun": "requests", "source": {"requests": "from Python"}, **settings}  # So that no prompt is missed.
    made = Job(name, **settings)
    job = Job._of(replace(made.plan, rows=lambda: given))
    run = job.submit(say=say)
    if run is None:
        raise NotSpent(f"job {name}: there is nothing to do")
    return run


def _ok(answer: Answer, job: Job) -> Ok[Any]:
    derived = {name: answer.fields[name] for name in job.plan.derived if name in answer.fields}
    fields = {name: value for name, value in answer.fields.items() if name not in derived}
    value: Any = fields
    if job._model is not None:
        value = job._model.model_validate(fields)
    elif set(fields) == {"value"}:
        value = fields["value"]
    return Ok(answer.key, value, answer.columns, derived)


def _statuses(on_status: Callable[[Mapping[str, Any]], None]) -> tell.Listener:
    def listen(event: Event) -> None:
        if event.name == "status":
            on_status(event.facts)

    return listen


def _silent(_event: Event) -> None:
    pass
