"""What `overnight demo` shows was never a training text, nor a part of one."""

import random

import pytest
from model import lists
from model.tasks import invoices, sentiment, tickets

from overnight.cli import demo

TEXTS = 5_000
SHOWN = [invoice.text for invoice in demo.INVOICES] + list(demo.TICKETS.values()) + list(demo.REVIEWS.values())
DRAWN = {
    "sentiment": lambda dice: sentiment.review(dice, "train")[0],
    "tickets": lambda dice: tickets.ticket(dice, "train").text,
    "invoices": lambda dice: invoices.invoice(dice, "train").text,
}


@pytest.mark.parametrize("name", lists.names())
def test_no_entry_for_training_shares_four_words_in_a_row_with_the_demo(name: str) -> None:
    shown = set().union(*map(lists.runs_of, SHOWN))
    assert [line for line in lists.entries(name).train if lists.runs_of(line) & shown] == []


def test_an_entry_that_does_is_dropped() -> None:
    assert "I want my money back" in (lists.HOME / "sentiment" / "negative_sentences.txt").read_text(encoding="utf-8")
    assert "I want my money back" not in lists.entries("sentiment/negative_sentences").train


@pytest.mark.parametrize("task", DRAWN)
def test_no_training_text_is_or_contains_one_of_the_demo(task: str) -> None:
    dice = random.Random(task)
    for _ in range(TEXTS):
        text = DRAWN[task](dice).lower()
        assert [shown for shown in SHOWN if shown.lower().rstrip(".") in text] == []
