"""Everything else: the model says what it can do, and nothing more."""

from model.texts import Dice, fill, number, pick, typed

ANSWER = "I can only classify reviews, support tickets and comments, read invoice lines, and name languages."


def request(dice: Dice, split: str) -> str:
    """What somebody asks an assistant that knows more."""
    if dice.random() < 0.12:
        return pick(dice, "outside/bare", split)
    slots = {
        "thing": lambda: pick(dice, "moderation/things", split),
        "place": lambda: pick(dice, "moderation/places", split),
        "person": lambda: pick(dice, "tickets/people", split),
        "number": lambda: number(dice),
    }
    return typed(dice, fill(pick(dice, "outside/requests", split), slots))
