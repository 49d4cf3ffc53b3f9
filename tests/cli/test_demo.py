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
    assert "T-101 -> billing " in done.stdout  # Three answers the first weights always get right.
    assert "R-201 -> positive " in done.stdout
    assert "R-202 -> negative " in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("answer", "said", "line"),
    [
        (
            '{"department": "IT", "amount": 124500, "description": "cables"}',
            124_500,
            "IT | Rs 124500 | cables",
        ),
        (
            '{"department": "Sales", "amount": 200001, "description": "a booth"}',
            200_001,
            "Sales | Rs 200001 | a booth | *** APPROVAL REQUIRED ***",
        ),
        (
            '{"department": "Sales", "amount": 200000, "description": "a booth"}',
            200_000,
            "Sales | Rs 200000 | a booth",
        ),
        (
            '{"department": "IT", "amount": 1240, "description": "cables"}',
            124_500,
            "IT | Rs 1240 | cables   (misread by the small model: the invoice says Rs 124500)",
        ),
        (
            '{"department": "IT", "amount": 2500, "description": "cables"}',
            285_000,
            "IT | Rs 2500 | cables   (misread by the small model: the invoice says Rs 285000)"
            " and would have needed approval",
        ),
        ("no json", 1, "not valid: no json"),
        ('{"department": "IT"}', 1, 'not valid: {"department": "IT"}'),
        ("[]", 1, "not valid: []"),
    ],
)
def test_an_invoice_line_shows_what_was_read_and_where_it_was_misread(answer: str, said: int, line: str) -> None:
    assert invoice_line(answer, Invoice("INV-001", "…", said)) == line
