"""What is held out never reaches a training text."""

import random

import pytest
from model import lists
from model.tasks import invoices, moderation, outside, sentiment, tickets

TEXTS = 3_000
DRAWN = {
    "sentiment": lambda dice, split: sentiment.review(dice, split)[0],
    "tickets": lambda dice, split: tickets.ticket(dice, split).text,
    "moderation": lambda dice, split: moderation.comment(dice, split)[0],
    "invoices": lambda dice, split: invoices.invoice(dice, split).text,
    "outside": outside.request,
}


@pytest.mark.parametrize("task", DRAWN)
def test_no_training_text_contains_a_word_that_is_held_out(task: str) -> None:
    dice = random.Random(task)
    found = set().union(*(lists.words_of(DRAWN[task](dice, "train")) for _ in range(TEXTS)))
    assert len(found) > 500
    assert sorted(found & lists.held_out_words()) == []


def test_evaluation_texts_do_contain_such_words() -> None:
    dice = random.Random(1)
    found = set().union(*(lists.words_of(sentiment.review(dice, "held_out")[0]) for _ in range(500)))
    assert len(found & lists.held_out_words()) > 50


@pytest.mark.parametrize("name", lists.names())
def test_no_entry_is_on_both_sides(name: str) -> None:
    entries = lists.entries(name)
    assert entries.train
    assert not set(entries.train) & set(entries.held_out)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_an_invoice_line_holds_the_fields_that_are_asked_for(split: str) -> None:
    dice = random.Random(split)
    for _ in range(TEXTS):
        line = invoices.invoice(dice, split)
        assert line.department in line.text
        assert line.description in line.text
        assert "{" not in line.text
        assert line.amount.replace(".", "") in line.text.replace(",", "").replace(".", "")
