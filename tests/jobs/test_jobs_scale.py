"""What a night costs the ledger grows with its segments and batches. Counted in statements and in SQLite's own steps,
never in seconds, which this machine shares."""

from pathlib import Path
from typing import Any

from counting import Cost, counted
from nights import Folder

from overnight.testing.hosted import HostedApi, failed, text

FEW, MANY = 2_000, 4_000
PER_BATCH = 100
STATEMENTS_PER_BATCH_MAX = 90  # With its share of the retries; one for each row would be 100 more.
JOB = f"""
name = "tickets"
model = "claude-haiku-4-5"
max_tokens = 50
[source]
db = "sqlite:///rows.db"
sql = "select id, subject from tickets where category is null order by id"
key = "id"
[prompt]
user = "{{{{ subject }}}}"
[output]
choices = ["billing", "technical"]
[sink]
db = "sqlite:///rows.db"
sql = "update tickets set category = :value where id = :key and category is null"
[derive]
is_short = "subject | length < 100"
[limits]
budget_usd = 100.0
[batch]
max_requests = {PER_BATCH}
"""


def tickets(home: Path, rows: int) -> Folder:
    home.mkdir()
    folder = Folder(home)
    folder.table("tickets", ["id integer primary key", "subject", "category"], [])
    add(folder, 0, rows)
    folder.job(JOB)
    return folder


def add(folder: Folder, first: int, rows: int) -> None:
    new = [(key, f"Ticket {key}", None) for key in range(first, first + rows)]
    folder.many("insert into tickets values (?, ?, ?)", new)


def given(server: HostedApi) -> dict[str, str]:
    return {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": server.key}


def night(home: Path, rows: int) -> Cost:
    """A whole night, every tenth row of which is asked twice."""
    tried = set[str]()

    def answer(custom_id: str, params: dict[str, Any]) -> Any:
        if custom_id.endswith("5") and custom_id not in tried:
            tried.add(custom_id)
            return failed("overloaded_error", "busy")
        return text("billing")

    folder = tickets(home, rows)
    with HostedApi(answer) as server, counted() as cost:
        assert folder.run(given(server)).code == 0
    assert folder.sql("select count(*) from tickets where category = 'billing'") == [(rows,)]
    return cost


def test_a_night_of_twice_the_rows_takes_twice_the_work_and_no_statement_for_a_row(tmp_path: Path) -> None:
    few, many = night(tmp_path / "few", FEW), night(tmp_path / "many", MANY)
    batches = (MANY - FEW) // PER_BATCH
    assert 0 < many.total - few.total < STATEMENTS_PER_BATCH_MAX * batches
    assert many.total < 2.1 * few.total
    assert many.steps < 2.1 * few.steps


def test_planning_a_night_does_not_read_the_nights_before_it(tmp_path: Path) -> None:
    steps = []
    for rows in (500, FEW):
        folder = tickets(tmp_path / str(rows), rows)
        with HostedApi(lambda custom_id, params: text("billing")) as server:
            assert folder.run(given(server)).code == 0
            add(folder, FEW, 200)
            with counted() as cost, folder.night(given(server)) as night:
                assert night.plan() is not None
            steps.append(cost.steps)
    assert 0 < steps[1] < 1.2 * steps[0]
