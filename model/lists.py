"""The word lists and sentence templates, and which of them training never sees.

Every fifth entry is held out, by the hash of its text, so nobody chooses. A word that stands in the fixed text of a
template cannot be held out as a noun. A training entry that contains a word held out as a noun or a sentiment word
is dropped, wherever it stands. So an evaluation text made of held-out entries shares no template, noun, vendor,
department or sentiment word with any training text. Vendors and departments are names and held out whole: "Customer
Care" may be, while "Customer Success" is not. What shares four words in a row with a text of `overnight demo` is
dropped too.
"""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from overnight.cli import demo

_RUN = 4
HOME = Path(__file__).parent / "lists"
_HELD_OUT_OF = 5
_JUDGING = ("sentiment/positive_words", "sentiment/negative_words", "sentiment/neutral_words")
_NOUNS = (
    "sentiment/products",
    "sentiment/aspects",
    "tickets/features",
    "moderation/things",
    "invoices/item_modifiers",
    "invoices/item_heads",
)
_MORE_NOUNS = ("invoices/more_heads", "invoices/more_modifiers")
_SHARED = (  # Too general to hold out, such as greetings, names, plans and guidance; or for training alone.
    "tickets/openers",
    "tickets/closers",
    "tickets/people",
    "tickets/plans",
    "tickets/devices",
    "moderation/groups",
    "moderation/places",
    "invoices/places",
    "invoices/adjectives",
    "invoices/more_heads",
    "invoices/more_modifiers",
    "invoices/units",
    "instructions/roles",
    "instructions/guidelines",
    "instructions/wrappers",
    "outside/bare",
)


class Entries(NamedTuple):
    """One list, split. `held_out` is empty for a list that is shared."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, split: str) -> tuple[str, ...]:
        """`train` or `held_out`, by name."""
        return self.train if split == "train" or not self.held_out else self.held_out


def words_of(text: str) -> set[str]:
    """The words of a text, lower case; slots are none."""
    return set(re.findall(r"[^\W\d_]+", re.sub(r"\{\w+\}", " ", text).lower()))


@cache
def entries(name: str) -> Entries:
    """The list `name`, such as `tickets/billing`."""
    lines = _lines(name)
    if name in _SHARED:
        return Entries(tuple(line for line in lines if _may_be_learnt(line)), ())
    if name in _NOUNS:
        held = tuple(line for line in lines if words_of(line) <= held_out_words())
    else:
        held = tuple(line for line in lines if _is_held(line))
    return Entries(tuple(line for line in lines if line not in held and _may_be_learnt(line)), held)


def _may_be_learnt(line: str) -> bool:
    return not words_of(line) & held_out_words() and not runs_of(line) & _shown()


def runs_of(text: str) -> set[tuple[str, ...]]:
    """All runs of four words in a row, lower case, numbers included."""
    found = re.findall(r"[a-z']+|\d+", text.lower())
    return {tuple(found[at : at + _RUN]) for at in range(len(found) - _RUN + 1)}


@cache
def _shown() -> frozenset[tuple[str, ...]]:
    texts = [invoice.text for invoice in demo.INVOICES] + list(demo.TICKETS.values()) + list(demo.REVIEWS.values())
    return frozenset().union(*map(runs_of, texts))


@cache
def held_out_words() -> frozenset[str]:
    """Nouns and sentiment words that no training text contains."""
    fixed = set().union(*(words_of(line) for name in names() if not _is_vocabulary(name) for line in _lines(name)))
    judging = {line.lower() for name in _JUDGING for line in _lines(name) if _is_held(line) and line.isalpha()}
    nouns = {word for name in _NOUNS for line in _lines(name) for word in words_of(line)}
    return frozenset(judging | {word for word in nouns - fixed if _is_held(word) and len(word) > 2})


def _is_vocabulary(name: str) -> bool:
    return name in (*_JUDGING, *_NOUNS, *_MORE_NOUNS, "invoices/items", "invoices/departments", "invoices/vendors")


@cache
def names() -> tuple[str, ...]:
    """All lists."""
    return tuple(sorted(path.relative_to(HOME).with_suffix("").as_posix() for path in HOME.rglob("*.txt")))


@cache
def _lines(name: str) -> tuple[str, ...]:
    text = (HOME / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(dict.fromkeys(line for line in text.split("\n") if line.strip()))


def _is_held(text: str) -> bool:
    return hashlib.sha256(text.lower().encode()).digest()[0] % _HELD_OUT_OF == 0
