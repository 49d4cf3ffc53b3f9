"""`overnight demo`: what it prints is what the model said, through the official SDK and a real server."""

import re
import subprocess
import sys

import pytest

from overnight.cli.demo import INVOICES, REVIEWS, TICKETS, Invoice, invoice_line

_TOTAL = len(INVOICES) + len(TICKETS) + len(REVIEWS)


def test_the_demo_runs_a_batch_to_its_end_and_prints_every_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "overnight.cli.main", "demo"], capture_output=True, text=True, timeout=120, check=True
    )

    lines = done.stdout.splitlines()
    counts = [re.fullmatch(r"Status: (\w+) \| Done: (\d+) \| Remaining: (\d+)", line) for line in lines]
    polls = [(found[1], int(found[2]), int(found[3])) for found in counts if found]
    assert polls[-1] == ("ended", _TOTAL, 0)
    assert all(status == "in_progress" for status, _, _ in polls[:-1])
    assert all(done_now + left == _TOTAL for _, done_now, left in polls)
    answered = {line.split(" -> ")[0] for line in lines if " -> " in line}
    assert answered == {invoice.custom_id for invoice in INVOICES} | set(TICKETS) | set(REVIEWS)
    labels = {"T-101": "billing", "T-102": "technical", "T-103": "account", "T-104": "feedback"}
    labels |= {"R-201": "positive", "R-202": "negative", "R-203": "neutral", "R-204": "positive"}
    said = dict(line.split(" | ")[0].split(" -> ") for line in lines if line.startswith(("T-", "R-")))
    assert {custom_id: label.strip() for custom_id, label in said.items()} == labels
    right = [invoice for invoice in INVOICES if f"{invoice.custom_id} -> {invoice}" in done.stdout]
    assert right == list(INVOICES)
    assert "misread" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("answer", "invoice", "line"),
    [
        (
            '{"department": "IT", "amount": 124500, "description": "cables"}',
            ("IT", 124_500, "cables"),
            "IT | Rs 124500 | cables",
        ),
        (
            '{"department": "Sales", "amount": 200001, "description": "a booth"}',
            ("Sales", 200_001, "a booth"),
            "Sales | Rs 200001 | a booth | *** APPROVAL REQUIRED ***",
        ),
        (
            '{"department": "Sales", "amount": 200000, "description": "a booth"}',
            ("Sales", 200_000, "a booth"),
            "Sales | Rs 200000 | a booth",
        ),
        (
            '{"department": "IT", "amount": 1240, "description": "cables"}',
            ("IT", 124_500, "cables"),
            "IT | Rs 1240 | cables   (misread by the small model: the invoice says IT | Rs 124500 | cables)",
        ),
        (
            '{"department": "HR", "amount": 12, "description": "cables"}',
            ("IT", 12, "cables"),
            "HR | Rs 12 | cables   (misread by the small model: the invoice says IT | Rs 12 | cables)",
        ),
        (
            '{"department": "IT", "amount": 2500, "description": "cables"}',
            ("IT", 285_000, "cables"),
            "IT | Rs 2500 | cables   (misread by the small model: the invoice says IT | Rs 285000 | cables)"
            " and would have needed approval",
        ),
        ("no json", ("IT", 1, "cables"), "not valid: no json"),
        ('{"department": "IT"}', ("IT", 1, "cables"), 'not valid: {"department": "IT"}'),
        ("[]", ("IT", 1, "cables"), "not valid: []"),
    ],
)
def test_an_invoice_line_shows_what_was_read_and_where_it_was_misread(
    answer: str, invoice: tuple[str, int, str], line: str
) -> None:
    department, amount, description = invoice
    assert invoice_line(answer, Invoice("INV-001", "…", department, amount, description)) == line
