"""overnight.jobs.notify with a real SMTP server: what arrives is what was meant, for whom it was meant."""

from collections.abc import Iterator
from typing import Any

import pytest
from smtpbox import PASSWORD, Mailbox, open_mailbox

from overnight.errors import ServerTrouble
from overnight.jobs import notify
from overnight.jobs.jobfile import Notify, Report
from overnight.jobs.report import Summary
from overnight.jobs.row import Answer

# Apprise imports `imghdr` when it loads its plugins.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

ENVIRONMENT = {"MAIL_PASSWORD": PASSWORD}
SUMMARY = Summary("invoices", "invoices", "run_1", 3, {"succeeded": 2, "expired": 1}, errors=[("late", 1)])
REPORT = Report(
    heading="=== Ergebnisse für März ===",
    line="{{ key }} -> {{ note }}{% if flag %} *** APPROVAL REQUIRED ***{% endif %}",
)
ANSWERS = [
    Answer("INV-001", {}, "succeeded", {"note": "Büromöbel <b>fett</b> & *mehr* :smile: \\n", "flag": False}),
    Answer("INV-003", {}, "succeeded", {"note": "日本 €", "flag": True}),
    Answer("INV-004", {}, "expired", {}, "late"),
]


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with open_mailbox() as found:
        yield found


@pytest.fixture
def server(mailbox: Mailbox) -> str:
    return mailbox.address


def sent(server: str, *blocks: dict[str, Any], to: str = "a@example.org") -> None:
    urls = [f"mailto://{server}?from=night@example.org&to={to}"]
    made = notify.messages([Notify(urls=urls, **block) for block in blocks], SUMMARY, lambda: ANSWERS, REPORT)
    for message in made:
        notify.send(message, ENVIRONMENT)


def test_every_recipient_gets_one_mail(server: str, mailbox: Mailbox) -> None:
    sent(server, {}, to="finance@example.org,it@example.org")
    assert {name: len(mails) for name, mails in mailbox.by_recipient.items()} == {
        "finance@example.org": 1,
        "it@example.org": 1,
    }


def test_a_mail_is_the_report_as_plain_text_to_the_letter(server: str, mailbox: Mailbox) -> None:
    sent(server, {})
    ((_, mail),) = mailbox.mails
    assert mail.get_content_type() == "text/plain"
    assert mail["Subject"] == "invoices: 2 of 3 invoices, 1 failed"
    assert mail.get_content().splitlines() == [
        "=== Ergebnisse für März ===",
        r"INV-001 -> Büromöbel <b>fett</b> & *mehr* :smile: \n",
        "INV-003 -> 日本 € *** APPROVAL REQUIRED ***",
        "INV-004: Failed - late",
        "",
        "3 invoices: 2 succeeded, 1 failed (1 expired)",
        "Most common errors:",
        "  1 × late",
        "Cost: unknown, the model has no price; [prices] in the job file sets one",
        "Run: run_1, 0 s",
    ]


def test_a_title_with_umlauts_and_line_ends_stays_one_header(server: str, mailbox: Mailbox) -> None:
    sent(server, {"title": "Rechnungen für {{ job }}\nBcc: evil@example.org", "body": "fertig"})
    ((recipients, mail),) = mailbox.mails
    assert recipients == ["a@example.org"]
    assert mail["Subject"] == "Rechnungen für invoices Bcc: evil@example.org"
    assert mail["Bcc"] is None


def test_each_team_gets_its_own_rows(server: str, mailbox: Mailbox) -> None:
    sent(
        server, {"rows": "flag", "title": "approve"}, {"rows": "'Büro' in note", "title": "office"}, {"rows": "false"}
    )
    bodies = {mail["Subject"]: mail.get_content() for _, mail in mailbox.mails}
    assert set(bodies) == {"approve", "office"}
    assert "INV-003" in bodies["approve"]
    assert "INV-001" not in bodies["approve"]
    assert "INV-001" in bodies["office"]


def test_a_password_comes_from_the_environment_whatever_is_in_it(server: str, mailbox: Mailbox) -> None:
    url = f"mailto://bob:{{env:MAIL_PASSWORD}}@{server}?from=a@example.org&to=b@example.org"
    notify.send(notify.Message(0, (url,), "t", "b"), ENVIRONMENT)
    assert list(mailbox.by_recipient) == ["b@example.org"]


def test_a_refused_login_says_so_without_the_password(server: str, mailbox: Mailbox) -> None:
    url = f"mailto://bob:{{env:MAIL_PASSWORD}}@{server}?from=a@example.org&to=b@example.org"
    with pytest.raises(ServerTrouble) as error:
        notify.send(notify.Message(0, (url,), "t", "b"), {"MAIL_PASSWORD": "hunter2/x"})
    assert str(error.value).startswith(f"[[notify]] 1: mailto://{server} did not take the message: ")
    assert "Authentication credentials invalid" in str(error.value)
    assert "hunter2" not in str(error.value)
    assert mailbox.mails == []


def test_one_address_that_is_refused_does_not_keep_the_others_from_theirs(server: str, mailbox: Mailbox) -> None:
    urls = tuple(f"mailto://{server}?from=a@example.org&to={name}@example.org" for name in ("nobody", "b"))
    with pytest.raises(ServerTrouble, match="no such mailbox here"):
        notify.send(notify.Message(0, urls, "t", "b"), {})
    assert list(mailbox.by_recipient) == ["b@example.org"]
