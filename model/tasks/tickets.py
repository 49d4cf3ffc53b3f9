"""Support tickets: category, urgency and the customer's mood."""

from typing import NamedTuple

from model.tasks.invoices import money
from model.texts import MONTHS, Dice, fill, joined, number, pick, typed

CATEGORIES = ("billing", "technical", "account", "feedback", "other")
URGENCIES = ("low", "medium", "high")
MOODS = ("positive", "neutral", "negative")


_MORE = 0.5  # How often a ticket says a second thing about its matter.


class Ticket(NamedTuple):
    """One ticket and what is right about it."""

    text: str
    category: str
    urgency: str
    mood: str


def ticket(dice: Dice, split: str) -> Ticket:
    """A ticket whose urgency and mood are what its sentences say, else medium and neutral."""
    category = dice.choice(CATEGORIES)
    matter, mood = _matter(dice, category, split)
    urgency = dice.choices(URGENCIES, [25, 45, 30])[0]
    if mood == "neutral":
        mood = dice.choices(MOODS, [20, 55, 25])[0]
        said = {"positive": "happy", "negative": "angry"}.get(mood)
    else:
        said = None
    parts = [matter]
    if dice.random() < _MORE:
        parts.append(pick(dice, f"tickets/{category}", split))
    for name in (said, {"low": "norush", "high": "urgent"}.get(urgency)):
        if name:
            parts.insert(dice.randint(0, len(parts)), pick(dice, f"tickets/{name}", split))
    if dice.random() < 0.3:
        parts.insert(0, pick(dice, "tickets/openers", split) + dice.choice([",", ".", "!"]))
    if dice.random() < 0.35:
        parts.append(pick(dice, "tickets/closers", split))
    slots = _slots(dice, split)
    return Ticket(typed(dice, joined(dice, [fill(part, slots) for part in parts])), category, urgency, mood)


def _matter(dice: Dice, category: str, split: str) -> tuple[str, str]:
    kind = dice.random()
    if category == "feedback" and kind < 0.28:
        return pick(dice, "tickets/feedback_praise", split), "positive"
    if category == "feedback" and kind < 0.45:
        return pick(dice, "tickets/feedback_dislike", split), "negative"
    matter = pick(dice, f"tickets/{category}", split)
    if matter.endswith("?") and dice.random() < 0.3:  # More questions of "other" would else give it away.
        matter = matter[:-1]
    return matter, "neutral"


def _slots(dice: Dice, split: str) -> dict:
    feature = "tickets/features" if split == "train" else "invoices/item_modifiers"
    return {
        "feature": lambda: pick(dice, feature, split),
        "plan": lambda: pick(dice, "tickets/plans", split),
        "amount": lambda: money(dice).written,
        "month": lambda: dice.choice(MONTHS),
        "number": lambda: number(dice),
        "code": lambda: str(dice.choice([400, 401, 403, 404, 429, 500, 502, 503, dice.randint(10, 9999)])),
        "device": lambda: pick(dice, "tickets/devices", split),
        "person": lambda: pick(dice, "tickets/people", split),
    }
