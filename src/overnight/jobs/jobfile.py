"""A job file: one TOML file that says what to read, what to ask, and where answers go.

Every key is here. An unknown one stops the start and names the nearest that exists. Secrets are never in the file:
a value `env:NAME` is read from the environment when it is used.
"""

import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from overnight import limits
from overnight.errors import JobError

Text = Annotated[str, Meta(min_length=1)]
Whole = Annotated[int, Meta(ge=1)]
Money = Annotated[float, Meta(gt=0)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Source(_Table, frozen=True):
    """Where rows come from: a query to a database, or over files, files of a pattern, or requests in JSONL."""

    db: str = ""  # An SQLAlchemy URL, mostly "env:DATABASE_URL". Empty: `sql` is asked of DuckDB, over files.
    sql: str = ""  # A query. Its columns are what templates may name.
    file: str = ""  # CSV, Parquet or JSONL; a pattern reads many as one table.
    glob: str = ""  # One row for each file: `path`, `name`, `stem`, `suffix`, `bytes`.
    requests: str = ""  # JSONL of whole requests, {"custom_id": …, "params": …} a line.
    key: Text = "key"  # The column that names a row; its values are unique.


class Prompt(_Table, frozen=True):
    """What is asked of each row: Jinja2 templates over its columns."""

    user: str = ""  # The message of the user.
    system: str = ""  # The system prompt.
    document: str = ""  # Renders to the path of a PDF, an image or a text, sent in front of `user`.
    folder: str = "."  # Where documents lie: a row can name none outside of it.
    cache: Literal["", "5m", "1h"] = ""  # Marks the system prompt for prompt caching.


class Output(_Table, frozen=True):
    """What an answer must be; without anything, text. What is not is `invalid`, alone."""

    choices: list[str] = []  # One of these words; case, spaces and quotes around it do not count.
    schema: dict[str, Any] = {}  # JSON Schema, or the short form: {amount = "integer", kind = {enum = [...]}}.
    file: str = ""  # A JSON Schema in a file.
    model: str = ""  # "module:Class", a pydantic model.
    enforce: bool = True  # Sends the schema as output_config.format, so that the server enforces it.
    on_failure: str = ""  # What stands in the place of a value where there is none, such as "error".


class Sink(_Table, frozen=True):
    """Where answers go: a guarded update of a database, or a file that is written whole."""

    db: str = ""  # As in [source].
    sql: str = ""  # Bound by name: :key, :value, each field of the answer, derived columns, :now.
    on_error: str = ""  # The same for rows without an answer: :key, :state, :error.
    file: str = ""  # CSV, Parquet or JSONL: the columns of the source, `value` or fields, `state` and `error`.


class Batch(_Table, frozen=True):
    """How rows are cut into batches, and how they are waited for."""

    max_requests: Annotated[int, Meta(ge=1, le=limits.BATCH_REQUESTS_MAX)] = limits.JOB_BATCH_REQUESTS  # In a batch.
    max_bytes: Annotated[int, Meta(ge=1_000, le=limits.BATCH_BODY_BYTES_MAX)] = limits.JOB_BATCH_BYTES  # As sent.
    min_batch: Annotated[int, Meta(ge=0)] = 0  # Fewer rows than this are asked in real time.
    poll: Annotated[float, Meta(gt=0)] = 0.0  # Seconds between looks, fixed; 0: 1, growing to 300.
    on_unknown: Literal["adopt", "resubmit", "stop"] = "adopt"  # When it is not known if a batch was made.
    delete: bool = False  # Delete a batch on the server when its results are here.


class Limits(_Table, frozen=True):
    """What a run may cost, in USD, and how long it may take."""

    budget_usd: Money | None = None  # For a run; batches that are likely to go beyond it are held.
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3  # For each row, over all batches.
    deadline: str = ""  # "06:00", local time: what is not done by then is cancelled.
    reserve_minutes: Annotated[int, Meta(ge=0)] = 30  # How long before the deadline.
    fallback: Literal["", "realtime"] = ""  # What happens to the rows that a deadline cancelled.
    fallback_usd: Money | None = None  # What that may cost, beside the budget.
    tolerate: Annotated[str, Meta(pattern=r"^\d+(\.\d+)?%?$")] = "0"  # Failed rows that are no failed run.


class Currency(_Table, frozen=True):
    """A currency beside USD."""

    code: Text  # Such as "INR".
    per_usd: Money  # How much of it a dollar is.
    symbol: str = ""  # Stands before amounts; empty: the code does.


class Report(_Table, frozen=True):
    """What is printed and mailed when a run has ended."""

    heading: str = ""  # The first line.
    line: str = ""  # One line for each row, in the order of the source; `key`, its fields, `state`, `error`.
    currency: Currency | None = None  # Shown beside USD.


class Lines(_Table, frozen=True):
    """What is printed while a job works. Jinja2; an empty line prints nothing. docs/reference/job-file.md."""

    found: str = "{{ rows }} {{ noun }} to do"  # Rows were planned.
    nothing: str = "No {{ noun }} to do"  # There was no row.
    batch: str = "Batch submitted: {{ id }} with {{ requests }} requests"  # A batch is at the server.
    submitted: str = "Submitted {{ rows }} {{ noun }}"  # All batches are.
    resuming: str = "Resuming batch {{ id }}"  # A batch of an unfinished run is gone on with.
    first_status: str = ""  # The first look at a batch that still runs; empty: as `status`.
    status: str = "Status: {{ status }} | Done: {{ done }} | Remaining: {{ processing }}"  # A look at a batch.
    waiting: str = "Waiting for {{ batches }} batches..."  # Instead of a line for each, where there are many.
    ended: str = ""  # A batch has ended.
    retrying: str = "Retrying {{ requests }} failed requests in batch {{ id }}"  # … as `batch`, for those.
    attempt_failed: str = "Attempt {{ attempt }} failed: {{ error }}. Retrying..."  # A create or a download broke.
    row: str = ""  # One line for each answer, as it is collected.
    collected: str = "Answered {{ succeeded }} {{ noun }}"  # A run has its answers.
    done: str = "Done!"  # The very end of a run.


class Notify(_Table, frozen=True):
    """Who is told: Apprise URLs, such as mailto://. One block for each team."""

    urls: Annotated[list[str], Meta(min_length=1)]  # "env:NAME", or with {env:NAME} in it for a secret.
    when: Literal["always", "problems"] = "always"  # Problems: only when rows failed.
    rows: str = ""  # An expression over the columns of an answer: only these rows are in the message.
    title: str = ""  # Jinja2; empty: "tickets: 2,990 of 3,000 tickets, 10 failed".
    body: str = ""  # Jinja2; empty: the report.


class Endpoint(_Table, frozen=True):
    """Which server is asked. Without it, the SDK's variables: ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY."""

    use: str = ""  # The name of an endpoint in the user's file, ~/.config/overnight/endpoints.toml.
    base_url: str = ""  # Such as "http://127.0.0.1:8642".
    key: str = ""  # "env:NAME"; a key itself is refused.
    betas: list[str] = []  # Sent as anthropic-beta.


class Price(_Table, frozen=True):
    """What a model costs, USD for a million tokens; in the place of the price data that is installed."""

    input: Annotated[float, Meta(ge=0)]  # Input that the prompt cache has nothing to do with.
    output: Annotated[float, Meta(ge=0)]  # Output.
    batch: Annotated[float, Meta(ge=0, le=1)] = 0.5  # The share of a price that is paid in a batch.
    cache_read: Annotated[float, Meta(ge=0)] | None = None  # Read from the prompt cache; absent: as `input`.
    cache_write: Annotated[float, Meta(ge=0)] | None = None  # Written to it; absent: as `input`.


class Cache(_Table, frozen=True):
    """Answers of earlier runs for requests that are the same to the byte."""

    days: Annotated[int, Meta(ge=1)]  # How old an answer may be.


class Ledger(_Table, frozen=True):
    """Where the state of the job is kept."""

    url: str = ""  # An SQLAlchemy URL; empty: SQLite in .overnight/ beside the job file.
    keep_days: Annotated[int, Meta(ge=1)] = 35  # Longer than the hosted API keeps results.


class JobFile(_Table, frozen=True):
    """A whole job file."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]  # Runs and answers belong to it.
    model: str = ""  # As the server knows it.
    max_tokens: Whole = 1024  # Of an answer.
    noun: Text = "rows"  # What lines and reports call the rows.
    id: str = ""  # A template for custom ids; empty: the key if it is legal, else a hash of it.
    params: dict[str, Any] = {}  # Passed through untouched.
    source: Source = Source()
    prompt: Prompt = Prompt()
    output: Output = Output()
    derive: dict[str, str] = {}  # Columns computed from the answer: name = expression.
    sink: Sink = Sink()
    batch: Batch = Batch()
    limits: Limits = Limits()
    report: Report = Report()
    lines: Lines = Lines()
    notify: list[Notify] = []
    endpoint: Endpoint = Endpoint()
    prices: dict[str, Price] = {}
    cache: Cache | None = None
    ledger: Ledger = Ledger()


def load(file: Path) -> JobFile:
    """The job in `file`. JobError names the key that is wrong, and what was probably meant."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise JobError(f"cannot read the job file {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(f"{file} is not valid TOML: {error}") from error
    return read(values, origin=str(file))


def read(values: dict[str, Any], *, origin: str = "job") -> JobFile:
    """A job from plain values, as in a file. A single [notify] table is a list of one."""
    if isinstance(values.get("notify"), dict):
        values = {**values, "notify": [values["notify"]]}
    _check_keys(values, JobFile, origin, ())
    try:
        return msgspec.convert(values, JobFile)
    except msgspec.ValidationError as error:
        raise JobError(f"{origin}: {_in_toml_words(str(error))}") from error


def _check_keys(values: Any, kind: Any, origin: str, path: tuple[str, ...]) -> None:
    """Names the nearest known key, which msgspec's own complaint does not."""
    table, items = _table_of(kind)
    if table is None:
        return
    if isinstance(values, list):
        for value in values:
            _check_keys(value, table, origin, path)
        return
    if not isinstance(values, dict):
        return
    if items == "values":
        for name, value in values.items():
            _check_keys(value, table, origin, (*path, name))
        return
    fields = {field.name: field.type for field in msgspec.structs.fields(table)}
    for name, value in values.items():
        if name not in fields:
            where = f"[{'.'.join(path)}] " if path else ""
            nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"the keys here are {', '.join(fields)}"
            raise JobError(f"{origin}: {where}there is no key {name!r}; {hint}")
        _check_keys(value, fields[name], origin, (*path, name))


def _table_of(kind: Any) -> tuple[type[_Table] | None, str]:
    """The table within a type, and whether it stands for the `values` of a dict."""
    if isinstance(kind, type) and issubclass(kind, _Table):
        return kind, ""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType, list, dict):
        for argument in typing.get_args(kind):
            table, _ = _table_of(argument)
            if table is not None:
                return table, "values" if origin is dict else ""
    return None, ""


def _in_toml_words(complaint: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.limits.attempts`" as "limits.attempts: expected …"."""
    what, _, where = complaint.partition(" - at `$.")
    what = what[:1].lower() + what[1:].replace("`", "")
    return f"{where.rstrip('`')}: {what}" if where else what
