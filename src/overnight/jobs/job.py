"""A job: its settings, and what Python may put in the place of a source, a parser or a sink."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from overnight.errors import JobError
from overnight.jobs import jobfile, source
from overnight.jobs.deadline import time_of_day
from overnight.jobs.jobfile import JobFile
from overnight.jobs.output import Reader
from overnight.jobs.prompt import Renderer
from overnight.jobs.row import Answer, Row
from overnight.jobs.schema import Shape, shape_of
from overnight.jobs.templates import Expression

Write = Callable[[Answer], None]


@dataclass(frozen=True)
class Job:
    """What is to be done. `home` is where relative paths begin, and where the ledger lies.

    `rows`: from Python instead of [source]. `shape`: a model of Python instead of [output].
    `write`: called once for each answer, and again for one whose writing was interrupted, instead of [sink].
    """

    settings: JobFile
    home: Path
    rows: Callable[[], Iterable[Row]] | None = None
    given_shape: Shape | None = None
    write: Write | None = None
    rows_max: int | None = None  # Only the first rows of the source.

    @classmethod
    def load(cls, file: str | Path) -> "Job":
        """The job of a TOML file, or of a JSONL file of whole requests. JobError says which key is wrong."""
        path = Path(file).expanduser().absolute()
        if path.suffix == ".jsonl":
            return cls(_of_requests(path), path.parent)
        return cls(jobfile.load(path), path.parent)

    @cached_property
    def shape(self) -> Shape | None:
        """What answers must look like."""
        return self.given_shape or shape_of(self.settings.output, home=self.home)

    @cached_property
    def renderer(self) -> Renderer:
        """Makes requests of rows."""
        return Renderer(self.settings, self.shape, home=self.home)

    @cached_property
    def reader(self) -> Reader:
        """Reads answers."""
        return Reader(self.settings.output, self.shape)

    @cached_property
    def derived(self) -> dict[str, Expression]:
        """The columns that are computed from answers."""
        return {name: Expression(text, where=f"[derive] {name}") for name, text in self.settings.derive.items()}

    def source_rows(self, environment: Mapping[str, str]) -> Iterable[Row]:
        """The rows of the job as they are now, from Python or from [source]."""
        if self.rows is not None:
            found = self.rows()
        else:
            found = source.rows(self.settings.source, home=self.home, environment=environment)
        return islice(found, self.rows_max)

    @property
    def field_names(self) -> list[str]:
        """What an answer has: `value`, or the fields of its shape, and the derived columns."""
        properties = self.shape.schema.get("properties") if self.shape else None
        return [*(properties if isinstance(properties, dict) and properties else ["value"]), *self.settings.derive]

    @property
    def has_database_sink(self) -> bool:
        """Whether answers leave the source of a next run, so that what is written is done."""
        return bool(self.settings.sink.sql)

    def check(self) -> None:
        """Everything that can be wrong without a row or a server. JobError."""
        _ = self.renderer, self.reader, self.derived
        sink = self.settings.sink
        if sink.sql and not sink.db:
            raise JobError('[sink] db: a statement needs a database, such as db = "env:DATABASE_URL"')
        if self.settings.limits.fallback and not self.settings.limits.deadline:
            raise JobError("[limits] fallback: there is no deadline that it could follow")
        given = self.settings.limits.deadline
        if given and time_of_day(given) is None:
            raise JobError(f'[limits] deadline: {given!r} is no time of day, such as "06:00"')

    def shape_digest(self) -> str:
        """Changes when requests look different: template, params, schema or model."""
        parts = {
            "model": self.settings.model,
            "max_tokens": self.settings.max_tokens,
            "params": self.settings.params,
            "prompt": msgspec.structs.asdict(self.settings.prompt),
            "schema": self.shape.schema if self.shape else {},
            "choices": self.settings.output.choices,
        }
        return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]

    def with_batch(self, **changes: Any) -> "Job":
        """The same job with other settings in [batch], such as `poll`."""
        return self.with_(batch=msgspec.structs.replace(self.settings.batch, **changes))

    def with_(self, **changes: Any) -> "Job":
        """The same job with other settings, such as `model`."""
        return replace(self, settings=msgspec.structs.replace(self.settings, **changes))


def _of_requests(path: Path) -> JobFile:
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem).lstrip("_.-") or "requests"
    return JobFile(name[:64], noun="requests", source=jobfile.Source(requests=path.name))


def derive(job: Job, names: Mapping[str, Any]) -> dict[str, Any]:
    """The derived columns of one answer; each may use those before it."""
    known, found = dict(names), {}
    for name, expression in job.derived.items():
        known[name] = found[name] = expression.value(known)
    return found
