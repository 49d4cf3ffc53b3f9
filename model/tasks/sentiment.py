"""Reviews: positive, negative or neutral."""

from model import lists
from model.texts import Dice, capital, fill, joined, pick, typed

LABELS = ("positive", "negative", "neutral")
_DENIED = {  # What a denial makes of a judgement.
    "positive": (
        "not {adj} at all",
        "far from {adj}",
        "anything but {adj}",
        "not exactly {adj}",
        "hardly {adj}",
        "never {adj}",
    ),
    "negative": ("not {adj} at all", "never {adj}", "by no means {adj}", "not {adj} in the least"),
}
_STRENGTH = (
    "",
    "",
    "",
    "",
    "very ",
    "really ",
    "so ",
    "quite ",
    "absolutely ",
    "rather ",
    "surprisingly ",
    "pretty ",
)
_MIXED = (
    "the {aspect} is {good} but the {aspect} is {bad}",
    "{good} {aspect}, {bad} {aspect}",
    "I like the {good} {aspect}, but the {aspect} turned out {bad}",
    "the {aspect} was {bad}, although the {aspect} was {good}",
    "on the one hand {good} {aspect}, on the other a {bad} {aspect}",
    "while the {aspect} is {bad}, I found the {aspect} {good}",
    "{aspect}: {good}. {aspect}: {bad}",
    "plus: {good} {aspect}. Minus: {bad} {aspect}",
    "a {good} {product} with a {bad} {aspect}",
)


_JUDGED = [35, 40, 25]  # How often a review judges once, twice and three times; all its judgements agree.


def review(dice: Dice, split: str, *, only: str = "") -> tuple[str, str]:
    """A review and its label. `only`: "words" if an adjective alone carries the judgement, "nouns" for new nouns."""
    label = dice.choice(LABELS)
    words = "train" if only == "nouns" else split
    nouns = "train" if only == "words" else split
    texts = "train" if only else split
    parts = [
        _judgement(dice, label, words, texts, framed=only == "words")
        for _ in range(dice.choices([1, 2, 3], _JUDGED)[0])
    ]
    if dice.random() < 0.3:
        parts.insert(dice.randint(0, len(parts)), pick(dice, "sentiment/fillers", texts))
    slots = {name: lambda name=name: pick(dice, f"sentiment/{name}s", nouns) for name in ("product", "aspect")}
    return typed(dice, joined(dice, [fill(part, slots) for part in parts])), label


def _judgement(dice: Dice, label: str, words: str, texts: str, *, framed: bool) -> str:
    kind = dice.random()
    if framed or kind < 0.45:
        return _framed(dice, label, words, texts)
    if kind < 0.55 and label == "neutral" and texts == words:
        return _mixed(dice, words, texts)
    return pick(dice, f"sentiment/{label}_sentences", texts)


def _framed(dice: Dice, label: str, words: str, texts: str) -> str:
    frame = pick(dice, "sentiment/frames", texts)
    if label != "neutral" and dice.random() < 0.1:
        opposite = "negative" if label == "positive" else "positive"
        adjective = _word(dice, opposite, words, single=True)
        denied = dice.choice(_DENIED[opposite]).replace("{adj}", adjective)
        return f"{dice.choice(['The {aspect} is', 'The {product} was', 'It is', 'I find the {aspect}'])} {denied}"
    single = " {adj} {" in frame or frame.startswith("{adj} {")
    adjective = _word(dice, label, words, single=single)
    if not single and " " not in adjective:
        adjective = dice.choice(_STRENGTH) + adjective
    return frame.replace("{adj}", capital(adjective) if frame.startswith("{adj}") else adjective)


def _mixed(dice: Dice, words: str, texts: str) -> str:
    if texts != "train":
        return pick(dice, "sentiment/neutral_sentences", texts)
    good, bad = (_word(dice, label, words, single=True) for label in ("positive", "negative"))
    return dice.choice(_MIXED).replace("{good}", good).replace("{bad}", bad)


def _word(dice: Dice, label: str, split: str, *, single: bool) -> str:
    choices = lists.entries(f"sentiment/{label}_words").of(split)
    return dice.choice([word for word in choices if not single or " " not in word])
