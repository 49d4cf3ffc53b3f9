"""The tables of a ledger. Whoever reads them with SQL finds every run, row and batch of a job, and every answer.

`batch_jobs` has the columns id, batch_id, status, created_at, completed_at, total_requests, succeeded and errored
that the programs of users have; the rest is ours. Instants are RFC 3339 in UTC, sizes bytes, money USD.
"""

from typing import Any

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()


def _text(name: str, **options: Any) -> Column[Any]:
    return Column(name, Text, nullable=False, server_default="", **options)


def _number(name: str, **options: Any) -> Column[Any]:
    return Column(name, Integer, nullable=False, server_default="0", **options)


runs = Table(
    "runs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("job", String(64), nullable=False),
    Column("status", String(16), nullable=False),  # planning, open, ended
    Column("created_at", String(32), nullable=False),
    Column("ended_at", String(32)),
    _text("shape"),  # A digest of what makes requests look as they do: pre-flight compares it.
    _text("model"),
    _text("endpoint"),
    _number("rows"),
    _number("skipped_in_flight"),
    _number("skipped_failed"),
    _number("cost_known"),  # Whether a price was known; 0 leaves the two below at 0.
    Column("cost_usd", Float, nullable=False, server_default="0"),
    Column("realtime_usd", Float, nullable=False, server_default="0"),
    Index("runs_of_job", "job", "created_at"),
)

spool = Table(  # Requests as they were rendered, and the rows they came from: gzip, one JSON value a line.
    "spool",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("segment", Integer, primary_key=True),
    Column("first", Integer, nullable=False),  # The position of its first item; the others follow it.
    Column("requests", LargeBinary, nullable=False),
    Column("source_rows", LargeBinary, nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("item_key", Text, nullable=False),  # JSON: 7 and "7" are different keys.
    Column("custom_id", String(64), nullable=False),
    _number("segment"),
    _number("bytes"),
    Column("digest", String(32), nullable=False),  # Of params: equal ones are sent once.
    Column("same_as", Integer),  # The position of the row whose answer is also this row's.
    Column("batch_job", Integer),  # The batch that asked, or will ask, last; none: real time, or nothing yet.
    Column("state", String(12), nullable=False),
    _number("attempts"),
    _number("more_room"),
    _text("explained"),  # JSON: the last answer that was invalid, and what was wrong about it.
    _number("is_explained"),  # Whether the next attempt sends it.
    _text("fields"),  # JSON of the answer.
    _text("error_type"),
    _text("error"),
    _number("input_tokens"),
    _number("output_tokens"),
    _number("cache_read"),
    _number("cache_write"),
    _number("realtime"),
    _number("written"),  # Whether the sink has it.
    Index("items_by_id", "run_id", "custom_id", unique=True),
    Index("items_of_batch", "batch_job", "position"),
    Index("items_by_state", "run_id", "state", "written", "position"),  # A page of unwritten answers is one range.
    Index("items_by_digest", "digest"),
)

batch_jobs = Table(
    "batch_jobs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("batch_id", String(80)),
    Column("status", String(16), nullable=False),  # planned, submitting, submitted, ended, collected, …
    Column("created_at", String(32), nullable=False),
    Column("completed_at", String(32)),
    _number("total_requests"),
    _number("succeeded"),
    _number("errored"),
    _number("expired"),
    _number("canceled"),
    _number("processing"),
    Column("run_id", String(40), nullable=False),
    _number("chunk"),
    _number("attempt"),
    Column("intent_at", String(32)),
    _text("idempotency_key"),
    _text("body_sha256"),
    _number("bytes"),
    Column("expires_at", String(32)),
    Column("gone_since", String(32)),  # The first 404 in a row.
    Column("cost_usd", Float),
    _text("error"),
    Index("batch_jobs_of_run", "run_id", "status"),
)

answers = Table(  # Results as they came: gzip, one line each.
    "answers",
    metadata,
    Column("batch_job", Integer, primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("lines", LargeBinary, nullable=False),
)

notices = Table(  # What was sent to whom. Written before it is sent: a message may get lost, it never comes twice.
    "notices",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("address", Integer, primary_key=True),  # Which of its urls.
    Column("status", String(8), nullable=False),  # sending, sent
    Column("at", String(32), nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("job", String(64), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("until_ms", Float, nullable=False),  # A double holds milliseconds exactly; not every INTEGER has 64 bits.
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(40), nullable=False),
    Column("at", String(32), nullable=False),
    Column("name", String(24), nullable=False),
    _text("facts"),  # JSON.
    Index("events_of_run", "run_id", "id"),
)
