"""Comments: ok, or not ok with a reason."""

from model.texts import Dice, fill, joined, number, pick, pseudo_word, typed

REASONS = ("insult", "hate", "threat", "spam", "sexual", "privacy", "self-harm")


def comment(dice: Dice, split: str) -> tuple[str, str | None]:
    """A comment and why it is not ok; None: it is."""
    reason = None if dice.random() < 0.5 else dice.choice(REASONS)
    name = reason.replace("-", "") if reason else dice.choice(["ok", "ok", "ok_hard"])
    parts = [pick(dice, f"moderation/{name}", split)]
    if dice.random() < 0.4:
        parts.append(pick(dice, f"moderation/{name}", split))
    if dice.random() < 0.15:
        parts.insert(dice.randint(0, 1), pick(dice, "moderation/ok", split))
    slots = {
        "person": lambda: pick(dice, "tickets/people", split),
        "thing": lambda: pick(dice, "moderation/things", split),
        "group": lambda: pick(dice, "moderation/groups", split),
        "place": lambda: pick(dice, "moderation/places", split),
        "number": lambda: number(dice),
        "link": lambda: _link(dice),
    }
    return typed(dice, joined(dice, [fill(part, slots) for part in parts])), reason


def _link(dice: Dice) -> str:
    domain = dice.choice(["com", "net", "info", "biz", "xyz", "org"])
    return f"{dice.choice(['', 'www.', 'http://', 'https://'])}{pseudo_word(dice)}.{domain}"
