"""jobs.customid: ids that the API takes, and rows that are there twice."""

import re

import pytest

from overnight import limits
from overnight.errors import JobError
from overnight.jobs.customid import Unique, custom_id
from overnight.jobs.row import Key


@pytest.mark.parametrize("wanted", ["INV-001", "7", "mod-049999", "_", "-", "a" * limits.CUSTOM_ID_LENGTH_MAX])
def test_a_legal_id_stays_as_it_is(wanted: str) -> None:
    assert custom_id(wanted) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("", id="empty"),
        pytest.param("a b", id="space"),
        pytest.param("a\n", id="line end"),
        pytest.param("jörg", id="letter beyond ASCII"),
        pytest.param("٣", id="digit beyond ASCII"),
        pytest.param('a","params":{}', id="quotes"),
        pytest.param("invoices/2026/1.pdf", id="path"),
        pytest.param("a" * (limits.CUSTOM_ID_LENGTH_MAX + 1), id="a character too long"),
    ],
)
def test_any_other_becomes_a_legal_hash_the_same_every_time(wanted: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", custom_id(wanted))
    assert custom_id(wanted) == custom_id(wanted)


def test_hashes_of_different_ids_differ() -> None:
    assert len({custom_id(f"row {number}") for number in range(1_000)}) == 1_000


def test_a_hash_is_the_same_on_every_night() -> None:
    assert custom_id("a b") == "c8687a08aa5d6ed2044328fa6a697ab8"


def unique(*rows: tuple[Key, str]) -> Unique:
    found = Unique()
    for key, wanted in rows:
        found.add(key, wanted)
    return found


def test_rows_that_differ_are_fine() -> None:
    unique((1, "1"), (2, "2"), ("a", "a")).check()


def test_rows_that_are_there_twice_are_named_three_of_them() -> None:
    repeated = [(number, str(number)) for number in (1, 2, 3, 4, 1, 2, 3, 4)]
    with pytest.raises(JobError) as error:
        unique(*repeated).check()
    assert "key 1, key 2, key 3 came twice" in str(error.value)
    assert "[source] key" in str(error.value)


def test_two_keys_with_one_id_are_named_with_their_id() -> None:
    with pytest.raises(JobError, match=r"id 'x' \(of key 2\) came twice"):
        unique((1, "x"), (2, "x")).check()


def test_the_number_7_and_the_text_7_are_two_keys_and_one_id() -> None:
    with pytest.raises(JobError, match=r"id '7' \(of key '7'\) came twice"):
        unique((7, "7"), ("7", "7")).check()
