"""Small parts that all generators share: choices, numbers, names, noise. Every dice comes from outside."""

import random
from collections.abc import Callable, Sequence

from model import lists

Dice = random.Random
MONTHS = "January February March April May June July August September October November December".split()
_SYLLABLES = (
    "ba be bi bo ca ce co da de di do fa fi fo ga ge go ha he hi in ja ka ke ki la le li lo ma me mi mo na ne no "
    "or pa pe po qua ra re ri ro sa se si so ta te ti to un va ve vi wa we xa ya za ber ton ling mer son ter ing "
    "ster den man lock stra threp phy sher al on is nt ll rd gran ulk brix zen dorf quist"
).split()


def pick(dice: Dice, name: str, split: str) -> str:
    """An entry of list `name` that belongs to `split`."""
    return dice.choice(lists.entries(name).of(split))


def pseudo_word(dice: Dice) -> str:
    """A word nobody has seen: it can only be copied."""
    return "".join(dice.choice(_SYLLABLES) for _ in range(dice.randint(2, 4)))


def code(dice: Dice) -> str:
    """A product code or reference, such as `KX-4471` or `b20`."""
    letters = "".join(dice.choice("ABCDEFGHKLMNPRSTUVWXYZ") for _ in range(dice.randint(1, 3)))
    digits = "".join(dice.choice("0123456789") for _ in range(dice.randint(1, 4)))
    found = letters + dice.choice(["-", "", "", "/"]) + digits
    return found.lower() if dice.random() < 0.15 else found


def capital(text: str) -> str:
    """With a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def fill(template: str, slots: dict[str, Callable[[], str]]) -> str:
    """`template` with each slot filled on its own, and `a` before a vowel mended."""
    for name, make in slots.items():
        while (slot := f"{{{name}}}") in template:
            value = make()
            before, _, after = template.partition(slot)
            if value[:1].lower() in "aeio" and before.endswith((" a ", "\na ")) | (before.lower() == "a "):
                before = before[:-1] + "n "
            template = before + (capital(value) if not before or before.endswith(". ") else value) + after
    return template


def joined(dice: Dice, sentences: Sequence[str]) -> str:
    """Sentences as one text, each with its end mark."""
    found = []
    for sentence in sentences:
        mark = "" if sentence[-1] in "?!.," else dice.choices([".", "!", "...", ""], [80, 12, 2, 6])[0]
        found.append(capital(sentence) + mark if dice.random() < 0.93 else sentence + mark)
    return " ".join(
        one if one[-1] in "?!.," or place == len(found) - 1 else one + "." for place, one in enumerate(found)
    )


def typed(dice: Dice, text: str) -> str:
    """The text as somebody in a hurry types it, now and then."""
    kind = dice.random()
    if kind < 0.08:
        return text.lower()
    if kind < 0.12:
        return text.rstrip(".")
    if kind < 0.15:
        return text.rstrip(".!") + "!!"
    if kind < 0.165:
        return text.upper()
    if kind < 0.20 and len(text) > 12:
        place = dice.randrange(1, len(text) - 2)
        return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return text


def number(dice: Dice) -> str:
    """A reference number of three to six digits."""
    return str(dice.randint(100, 10 ** dice.randint(3, 6)))


def date(dice: Dice) -> str:
    """A day, written in one of the usual ways."""
    day, month, year = dice.randint(1, 28), dice.randint(1, 12), dice.randint(2023, 2028)
    return dice.choice(
        [
            f"{year}-{month:02}-{day:02}",
            f"{day:02}.{month:02}.{year}",
            f"{day:02}/{month:02}/{year}",
            f"{day} {MONTHS[month - 1]}",
            f"{MONTHS[month - 1]} {day}",
            f"{day} {MONTHS[month - 1][:3]} {year}",
        ]
    )
