"""The pages about jobs, compared with the code that they repeat. `python tests/docs/renew.py` renews them."""

from typing import get_args

import jobdocs
from docpages import ROOT, table

from overnight.jobs.retry import Attempt, after
from overnight.jobs.row import State

_AGAIN = {
    "no": "final",
    "the same request": "again",
    "once, with twice the `max_tokens": "more_room",
    "once, with what was wrong about the answer": "explained",
    "the run pauses": "paused",
}
RENEW = "python tests/docs/renew.py"


def test_every_key_of_a_job_file_is_documented() -> None:
    keys = jobdocs.keys()
    assert jobdocs.generated("keys", jobdocs.JOB_FILE) == keys, RENEW
    assert "TELL" not in keys


def test_every_line_of_a_job_is_documented() -> None:
    lines = jobdocs.lines()
    assert jobdocs.generated("lines", jobdocs.JOB_FILE) == lines, RENEW
    assert "TELL" not in lines


def test_every_state_of_a_row_is_documented() -> None:
    states = jobdocs.states()
    assert jobdocs.generated("states", jobdocs.JOB_FILE) == states, RENEW
    assert "TELL" not in states


def test_the_table_of_behaviours_names_the_tests_that_show_them() -> None:
    assert jobdocs.generated("requirements", jobdocs.REQUIREMENTS) == jobdocs.requirements(), RENEW


def test_every_id_in_the_name_of_a_test_is_a_behaviour() -> None:
    assert jobdocs.shown().keys() - jobdocs.behaviours().keys() == set()


def test_there_are_107_behaviours() -> None:
    assert len(jobdocs.behaviours()) == 107


def test_every_example_has_a_page_and_one_job_file() -> None:
    folders = [path for path in (ROOT / "docs" / "examples").iterdir() if path.is_dir()]
    assert len(folders) == 7
    assert [folder.name for folder in folders if not (folder / "README.md").is_file()] == []
    assert [folder.name for folder in folders if not (folder / f"{folder.name}.toml").is_file()] == []


def test_the_table_of_attempts_is_retry_py() -> None:
    rows = table(ROOT / "docs" / "explanation" / "jobs.md", "test_the_table_of_attempts_is_retry_py")
    found = {(state, kind): _AGAIN[again] for state, kind, again in rows}
    assert found == {(state, kind): after(Attempt(state, 1, kind), attempts_max=3) for state, kind, _ in rows}  # type: ignore[arg-type]
    assert {state for state, _, _ in rows} == set(get_args(State)) - {"planned", "submitted", "succeeded", "held"}
