"""A few words of one mood, without a sentence: the quickest way to learn which way a word points."""

from functools import cache
from pathlib import Path

from model import lists, sources
from model.tasks import sentiment
from model.texts import Dice, capital

_CHARGED = 1.0  # Of at most 4: what a word needs to count as positive or negative.
_PLAIN_AMONG = 6_000  # Neutral words are taken from the most common ones.
_STEM = 3  # So many last letters may differ between forms of one word.


def few_words(dice: Dice, build: Path) -> tuple[str, str]:
    """One to four words, and their mood."""
    label = dice.choice(sentiment.LABELS)
    chosen = dice.choices(_by_mood(build)[label], k=dice.choice([1, 1, 2, 3, 4]))
    text = dice.choice([" ", ", ", " and ", ". "]).join(chosen)
    return (capital(text) if dice.random() < 0.5 else text) + dice.choice(["", "", ".", "!"]), label


@cache
def _by_mood(build: Path) -> dict[str, list[str]]:
    """Words by mood, those of `lists` too; none is a form of a word that is held out."""
    found = {label: set(_single(f"sentiment/{label}_words")) for label in sentiment.LABELS}
    from model import words  # noqa: PLC0415  Needs numpy, and only training comes here.

    rated = dict(sources.charged_words(build / "sources"))
    common = words.lexicon(build).words
    for word in common:
        score = rated.get(word, 0.0)
        if abs(score) >= _CHARGED:
            found["positive" if score > 0 else "negative"].add(word)
    charged = found["positive"] | found["negative"]
    found["neutral"] |= {word for word in common[:_PLAIN_AMONG] if word not in rated and word not in charged}
    held = tuple(word[: max(4, len(word) - _STEM)] for word in lists.held_out_words())
    return {
        label: sorted(word for word in chosen if not word.startswith(held) and len(word) > 2)
        for label, chosen in found.items()
    }


def _single(name: str) -> list[str]:
    return [line.lower() for line in lists.entries(name).train if line.isalpha()]
