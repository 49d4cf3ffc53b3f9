"""The jobs of docs/examples, each on a real server with the model inside, as a person runs them."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from email import message_from_bytes, policy
from pathlib import Path

import duckdb
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as Mailbox

from overnight.testing.processes import ServerProcess, running_server

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


class Mails(Mailbox):
    """Keeps what arrives: recipients and text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_message(self, message: object) -> None:
        mail = message_from_bytes(bytes(message), policy=policy.default)  # type: ignore[call-overload]
        body = mail.get_body(("plain",))
        assert body is not None
        self.found.append((mail["X-RcptTo"], body.get_content()))


class Smtp(Controller):
    """On a port that the system picks; aiosmtpd itself would knock at port 0."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an example, with its database if it has one."""
    name = str(request.param)
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    if (folder / f"{name}.sql").is_file():
        with closing(sqlite3.connect(folder / f"{name}.db")) as database:
            database.executescript((folder / f"{name}.sql").read_text())
    return folder


def run(home: Path, server: ServerProcess, **environment: str) -> str:
    """What `overnight run` prints; all rows must have succeeded."""
    config = home / "config" / "overnight"
    config.mkdir(parents=True, exist_ok=True)
    (config / "endpoints.toml").write_text(f'[endpoints.local]\nbase_url = "{server.url}"\n')
    clean = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "overnight.cli.main", "run", f"{home.name}/{home.name}.toml"]
    done = subprocess.run(
        command, cwd=home.parent, env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def records(file: Path) -> list[dict[str, object]]:
    relation = duckdb.sql(f"select * from '{file}'")
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


@pytest.mark.parametrize("home", ["tickets"], indirect=True)
def test_every_ticket_gets_a_category_and_the_second_night_has_nothing_to_do(
    home: Path, server: ServerProcess
) -> None:
    assert "6 tickets: 6 succeeded" in run(home, server)
    with closing(sqlite3.connect(home / "tickets.db")) as database:
        found = dict(database.execute("select subject, category from tickets").fetchall())
    assert found["Charged twice"] == "billing"
    assert set(found.values()) <= {"billing", "technical", "account", "feedback", "other"}
    assert run(home, server) == "No tickets to do\n"


@pytest.mark.parametrize("home", ["invoices"], indirect=True)
def test_invoices_are_read_flagged_reported_and_mailed(home: Path, server: ServerProcess) -> None:
    mails = Mails()
    smtp = Smtp(mails, hostname="127.0.0.1", port=0)
    smtp.start()
    try:
        url = f"mailto://127.0.0.1:{smtp.port}?from=night@example.org&to="
        printed = run(
            home,
            server,
            ACCOUNTS_MAIL_URL=f"{url}accounts@example.org,it@example.org",
            FINANCE_MAIL_URL=f"{url}finance@example.org",
        )
    finally:
        smtp.stop()
    with closing(sqlite3.connect(home / "invoices.db")) as database:
        rows = database.execute("select number, department, amount, needs_approval from invoices").fetchall()
    assert [row[0] for row in rows if row[3]] == ["INV-003", "INV-005"]
    assert ("INV-001", "IT", 124_500, 0) in rows
    assert "=== INVOICE CLASSIFICATION RESULTS ===" in printed
    assert printed.count("*** APPROVAL REQUIRED ***") == 2
    by_recipient = dict(mails.found)
    assert {name for names in by_recipient for name in names.split(", ")} == {
        "accounts@example.org",
        "it@example.org",
        "finance@example.org",
    }
    assert "INV-001" in next(text for names, text in mails.found if "accounts" in names)
    assert "INV-001" not in by_recipient["finance@example.org"]
    assert "INV-003" in by_recipient["finance@example.org"]


@pytest.mark.parametrize("home", ["moderation"], indirect=True)
def test_comments_of_a_csv_file_are_judged_into_another(home: Path, server: ServerProcess) -> None:
    run(home, server)
    with (home / "moderated.csv").open(newline="") as file:
        found = {row["id"]: row for row in csv.DictReader(file)}
    assert len(found) == 8
    assert (found["1001"]["value"], found["1001"]["is_shown"]) == ("ok", "true")
    assert (found["1002"]["value"], found["1002"]["is_shown"]) == ("not ok: insult", "false")


@pytest.mark.parametrize("home", ["moderation"], indirect=True)
def test_the_same_job_reads_parquet(home: Path, server: ServerProcess) -> None:
    duckdb.sql(f"copy (from '{home}/comments.csv') to '{home}/comments.parquet'")
    job = home / "moderation.toml"
    job.write_text(
        job.read_text().replace("comments.csv", "comments.parquet").replace("moderated.csv", "out.parquet")
    )
    run(home, server)
    assert [row["state"] for row in records(home / "out.parquet")] == ["succeeded"] * 8


@pytest.mark.parametrize("home", ["languages"], indirect=True)
def test_the_language_of_each_file_of_a_folder_is_named(home: Path, server: ServerProcess) -> None:
    run(home, server)
    found = {row["stem"]: row["value"] for row in records(home / "languages.csv")}
    assert found.keys() == {path.stem for path in (home / "texts").iterdir()}
    assert (found["zoo"], found["eki"]) == ("German", "Japanese")


@pytest.mark.parametrize("home", ["translation"], indirect=True)
def test_letters_of_a_folder_become_lines_of_a_file(home: Path, server: ServerProcess) -> None:
    run(home, server)
    found = records(home / "translations.jsonl")
    assert [row["stem"] for row in found] == ["abonnement", "factura", "lieferung"]
    assert [row["state"] for row in found] == ["succeeded"] * 3
    assert all(row["value"] for row in found), "the model inside names the language instead: it cannot translate"


@pytest.mark.parametrize("home", ["documents"], indirect=True)
def test_each_letter_of_a_folder_becomes_fields(home: Path, server: ServerProcess) -> None:
    run(home, server)
    found = [json.loads(line) for line in (home / "letters.jsonl").read_text().splitlines()]
    assert [row["stem"] for row in found] == ["2026-11-20-charge", "2026-11-21-outage", "2026-11-21-shortcuts"]
    assert found[0]["category"] == "billing"
    assert all(row["is_pressing"] == (row["urgency"] == "high") for row in found)


@pytest.mark.parametrize("home", ["evaluation"], indirect=True)
def test_the_report_says_where_a_model_is_wrong(home: Path, server: ServerProcess) -> None:
    printed = run(home, server)
    found = records(home / "answers.parquet")
    wrong = [row for row in found if row["value"] != row["label"]]
    assert len(found) == 10
    assert len(wrong) <= 4
    assert [row["is_right"] for row in found] == [row["value"] == row["label"] for row in found]
    for row in wrong:
        assert f"{row['id']}: {row['value']}, but it is {row['label']}" in printed
