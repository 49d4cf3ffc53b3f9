"""Texts and the language each is written in."""

from functools import cache
from pathlib import Path

from model import lists, sources
from model.texts import Dice

LOCALES = {
    "English": "",
    "German": "de",
    "French": "fr",
    "Spanish": "es",
    "Italian": "it",
    "Portuguese": "pt_BR",
    "Dutch": "nl",
    "Swedish": "sv",
    "Polish": "pl",
    "Turkish": "tr",
    "Russian": "ru",
    "Arabic": "ar",
    "Hindi": "hi",
    "Chinese": "zh_Hans",
    "Japanese": "ja",
    "Korean": "ko",
}


def sentence(dice: Dice, split: str, build: Path) -> tuple[str, str]:
    """A text and the English name of its language."""
    language = dice.choice(list(LOCALES))
    own = lists.entries(f"languages/{language.lower()}").of(split)
    if split == "train" and dice.random() < 0.5:
        others = _interface(language, build)
        return (dice.choice(others) if others else dice.choice(own)), language
    text = dice.choice(own)
    if split == "train" and dice.random() < 0.3:
        text += " " + dice.choice(own)
    return text, language


@cache
def _interface(language: str, build: Path) -> tuple[str, ...]:
    """Texts of a web framework's pages in this language, without slots and markup."""
    locale = LOCALES[language] or "de"
    pairs = sources.translations(build / "sources", locale)
    texts = (pair[0 if language == "English" else 1] for pair in pairs)
    usable = (text for text in texts if 12 <= len(text) <= 140 and not set(text) & set("%{}<>_\n&"))
    usable = (text for text in usable if not lists.words_of(text) & lists.held_out_words())
    return tuple(dict.fromkeys(usable))
