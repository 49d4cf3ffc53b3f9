"""overnight.jobs.notify: who gets a message, what is in it, and what is never in an error."""

import logging
import sys
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from overnight import limits
from overnight.errors import JobError, ServerTrouble
from overnight.jobs import notify
from overnight.jobs.jobfile import Notify, Report
from overnight.jobs.notify import Message
from overnight.jobs.report import Summary
from overnight.jobs.row import Answer

# Apprise imports `imghdr` when it loads its plugins.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

ANSWERS = [
    Answer("INV-001", {"team": "it"}, "succeeded", {"amount": 124_500, "flag": False}),
    Answer("INV-003", {"team": "ads"}, "succeeded", {"amount": 285_000, "flag": True}),
    Answer("INV-004", {"team": "it"}, "expired", {}, "not done in 24 h"),
]
SUMMARY = Summary("invoices", "invoices", "run_1", 3, {"succeeded": 2, "expired": 1}, batch_usd=Decimal("0.275"))
CLEAN = SUMMARY._replace(rows=2, counts={"succeeded": 2})
LINE = Report(line="{{ key }} {{ amount }}")


def block(**values: Any) -> Notify:
    return Notify(urls=["json://example.org"], **values)


def made(
    *blocks: Notify, summary: Summary = SUMMARY, answers: Iterable[Answer] = ANSWERS, settings: Report = LINE
) -> list[Message]:
    return notify.messages(blocks, summary, lambda: iter([*answers]), settings)


# --- messages -----------------------------------------------------------------------------------------------------


def test_without_words_of_its_own_a_message_is_the_report() -> None:
    (message,) = made(block())
    assert message[:3] == (0, ("json://example.org",), "invoices: 2 of 3 invoices, 1 failed")
    assert message.body.splitlines()[:5] == [
        "INV-001 124500",
        "INV-003 285000",
        "INV-004: Failed - not done in 24 h",
        "",
        "3 invoices: 2 succeeded, 1 failed (1 expired)",
    ]


def test_the_title_of_a_clean_run_speaks_of_no_failure() -> None:
    assert made(block(), summary=CLEAN)[0].title == "invoices: 2 of 2 invoices"


@pytest.mark.parametrize(
    ("when", "summary", "count"), [("always", CLEAN, 1), ("problems", CLEAN, 0), ("problems", SUMMARY, 1)]
)
def test_a_block_for_problems_is_quiet_without_any(when: str, summary: Summary, count: int) -> None:
    assert len(made(block(when=when), summary=summary)) == count


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        pytest.param("flag", ["INV-003", "INV-004"], id="of a field: a failed row cannot tell"),
        pytest.param("team == 'it'", ["INV-001", "INV-004"], id="of a column: a failed row has it"),
        pytest.param("team == 'ads'", ["INV-003"], id="of a column that leaves the failed row out"),
        pytest.param("state != 'succeeded'", ["INV-004"], id="of the state"),
        pytest.param("", ["INV-001", "INV-003", "INV-004"], id="without"),
    ],
)
def test_a_block_speaks_of_its_rows(rows: str, named: list[str]) -> None:
    (message,) = made(block(rows=rows))
    assert [line[:7] for line in message.body.splitlines() if line.startswith("INV-")] == named
    assert "3 invoices: 2 succeeded" in message.body


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param("amount > 10 ** 9", id="true for none"),
        pytest.param("team == 'legal'", id="true for none, failed ones included"),
    ],
)
def test_a_block_without_a_row_has_no_message(rows: str) -> None:
    assert made(block(rows=rows)) == []


def test_each_block_has_its_own_message() -> None:
    messages = made(block(when="problems"), block(rows="false"), block(title="third"))
    assert [(message.block, message.title) for message in messages] == [
        (0, "invoices: 2 of 3 invoices, 1 failed"),
        (2, "third"),
    ]


def test_a_body_may_name_the_run_its_answers_and_the_report() -> None:
    body = (
        "{{ failed }}/{{ rows }} {{ counts.expired }} {{ counts.refused }} {{ batch_usd }} {{ year_usd }}\n"
        "{% for row in answers %}{{ row.key }}={{ row.amount | default('?') }};{% endfor %}"
    )
    (message,) = made(block(title="{{ job }}\r\nBcc: x@y.z", body=body))
    assert message.title == "invoices Bcc: x@y.z"
    assert message.body == "1/3 1 0 $0.28 unknown\nINV-001=124500;INV-003=285000;INV-004=?;"
    (message,) = made(block(body="Dear team,\n{{ report }}{% for row in answers %}.{% endfor %}"))
    assert message.body.startswith("Dear team,\nINV-001 124500\nINV-003 285000\nINV-004: Failed")
    assert message.body.endswith("\n...")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"title": "{{ jbo }}"}, r"\[\[notify\]\] 1 title: there is no name 'jbo'; .*; did you mean 'job'\?"),
        (
            {"body": "{{ anwsers }}"},
            r"\[\[notify\]\] 1 body: there is no name 'anwsers'; .*; did you mean 'answers'\?",
        ),
        ({"body": "{{ rows"}, r"\[\[notify\]\] 1 body: line 1: "),
        ({"rows": "flag >"}, r"\[\[notify\]\] 1 rows: "),
        ({"rows": "flga"}, r"\[\[notify\]\] 1 rows: there is no column 'flga'; .*; did you mean 'flag'\?"),
    ],
)
def test_a_wrong_template_is_named(values: dict[str, str], complaint: str) -> None:
    with pytest.raises(JobError, match=complaint):
        made(block(**values))


def test_a_message_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOB_MAIL_CHARACTERS_MAX", 20)
    assert made(block(body="x" * 20))[0].body == "x" * 20
    assert made(block(body="x" * 21))[0].body == "x" * 20 + "\n… cut here, the message is too long\n"
    of_report = made(block())[0].body
    assert of_report.startswith("INV-001 124500\n… and 2 more\n\n3 invoices: 2 succeeded")


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "environment", "complaint"),
    [
        pytest.param("nonsense://bob:hunter2@x", {}, r"\[\[notify\]\] 1: urls.0 is not an address", id="scheme"),
        pytest.param("hunter2", {}, r"\[\[notify\]\] 1: urls.0 is not an address", id="no URL"),
        pytest.param(
            "env:URL", {"URL": "hunter2"}, r"\[\[notify\]\] 1: urls.0 is not an address", id="in a variable"
        ),
        pytest.param("env:URL", {"OTHER": "hunter2"}, "'URL' is not set", id="variable"),
        pytest.param("json://bob:{env:PASSWORD}@x", {"P": "hunter2"}, "'PASSWORD' is not set", id="variable inside"),
    ],
)
def test_a_wrong_address_is_found_in_the_evening(url: str, environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(JobError, match=complaint) as error:
        notify.check([Notify(urls=[url])], Report(), environment)
    assert "hunter2" not in str(error.value)


def test_a_wrong_template_is_found_in_the_evening() -> None:
    notify.check([block()], LINE, {})
    with pytest.raises(JobError, match=r"\[report\] line: line 1"):
        notify.check([], Report(line="{{"), {})
    for part in ("title", "body"):
        with pytest.raises(JobError, match=rf"\[\[notify\]\] 2 {part}: there is no name 'x'"):
            notify.check([block(), block(**{part: "{{ x }}"})], Report(), {})


def test_without_apprise_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(JobError, match=r"pip install 'overnight\[notify\]'"):
        notify.check([block()], Report(), {})
    notify.check([], Report(), {})


@pytest.mark.parametrize(
    ("url", "shown", "secrets"),
    [
        pytest.param("json://bob:hunter2@127.0.0.1:1/hook/s3cr3t", "json://127.0.0.1:1", ["hunter2", "s3cr3t"]),
        pytest.param("json://bob:{env:PASSWORD}@127.0.0.1:1", "json://127.0.0.1:1", ["p@ss/word", "p%40ss%2Fword"]),
        pytest.param(
            "mailto://bob:hunter2@127.0.0.1:1?from=a@example.org&to=b@example.org",
            "mailto://127.0.0.1:1",
            ["hunter2"],
        ),
    ],
)
def test_a_refusal_names_scheme_host_and_reason_and_no_secret(
    url: str, shown: str, secrets: list[str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ServerTrouble) as error:
        notify.send(Message(0, (url,), "title", "body"), {"PASSWORD": "p@ss/word"})
    complaint = str(error.value)
    assert complaint.startswith(f"[[notify]] 1: {shown} did not take the message: ")
    assert "refused" in complaint
    assert [secret for secret in secrets if secret in complaint] == []
    assert [record for record in caplog.records if record.name.startswith("apprise")] == []
    assert "".join(capfd.readouterr()) == ""


def test_what_a_service_says_is_searched_for_secrets() -> None:
    urls = ["tgram://123456789:abcdefg_hijklmnop/12315544/", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"]
    telegram, slack, own = notify._services(0, [*urls, "json://bob:p%40ss%2Fword@example.org"], {})
    assert telegram.shown == "tgram://1...p"
    assert slack.shown == "slack://T...2"
    assert telegram.without_secrets("POST /bot123456789:abcdefg_hijklmnop/send") == "POST /bot***:***/send"
    said = "POST https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ refused"
    assert slack.without_secrets(said) == "POST https://hooks.slack.com/services/***/***/*** refused"
    assert own.without_secrets("at example.org: p@ss/word p%40ss%2Fword") == "at example.org: *** ***"
