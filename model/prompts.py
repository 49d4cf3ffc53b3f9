"""Whole conversations: a task's text in somebody's words of instruction, and the answer.

A **family** is what several requests of one batch have in common, the prefix (system prompt, instruction, earlier
examples), with a number of branches: the text of each request and its answer.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from model import chat, lists
from model.chat import ASSISTANT, END, USER
from model.tasks import invoices, languages, lexical, moderation, outside, sentiment, tickets
from model.texts import Dice, pick, pseudo_word

KEYS = ("department", "amount", "description")
PART = "part"  # Of single words of an invoice line: which field begins or goes on here.
ATTRIBUTES: Mapping[str, Sequence[str]] = {
    "sentiment": sentiment.LABELS,
    "category": tickets.CATEGORIES,
    "urgency": tickets.URGENCIES,
    "mood": tickets.MOODS,
    "moderation": ("ok", *moderation.REASONS),
    "language": tuple(languages.LOCALES),
    PART: ("nothing", "department", "rest of it", "amount", "description", "rest of that"),
}


class Branch(NamedTuple):
    """One request behind the prefix of its family, up to the answer, and the answer without its end."""

    asked: str
    answer: str
    text: str  # What the task is about, without instruction.
    known: Mapping[str, str]  # What is true of the text, by attribute: see ATTRIBUTES.
    fields: Sequence[str] = ()  # Department, amount and description as they stand in `text`.


class Family(NamedTuple):
    """Requests that share `prefix`."""

    prefix: str
    branches: list[Branch]
    task: str
    form: str  # What the answer looks like: word, json, tool, category, urgency, mood, …
    tools: tuple[dict, ...] = ()  # Those that the prefix describes.


class _Drawn(NamedTuple):
    """A text, the answer to it, and what is known of it."""

    text: str
    answer: str
    known: Mapping[str, str]
    fields: Sequence[str] = ()


class _Brief(NamedTuple):
    """What is asked for: `draw` makes a text and the answer to it."""

    instruction: str
    draw: Callable[[], _Drawn]
    form: str
    tools: tuple[dict, ...] = ()


def family(
    dice: Dice, task: str, split: str, build: Path, *, size: int, only: str = "", plain: float = 0.0
) -> Family:
    """`size` requests of one kind. `plain` is the share of families without roles, guidance and examples."""
    if task == "outside":
        return _outside(dice, split, size)
    brief = _BRIEFS[task](dice, split, build, only)
    wrapper = _wrapper(dice, task)
    is_plain = dice.random() < plain
    kind, tail = dice.random(), ""
    if brief.tools and kind < 0.4:  # The instruction comes with the text, the tools before it.
        head = chat.system(_role(dice), brief.tools) + USER + brief.instruction + dice.choice(["\n\n", "\n"])
    elif brief.tools or kind < 0.66:
        head = chat.system(_system(dice, brief.instruction, is_plain=is_plain), brief.tools) + USER
    elif kind < 0.9:
        role = chat.system(_role(dice)) if dice.random() < 0.35 else ""
        head = role + USER + brief.instruction + dice.choice(["\n\n", "\n"])
    else:
        head, tail = USER, dice.choice(["\n\n", "\n"]) + brief.instruction
    if not is_plain and not tail and head.endswith(USER) and dice.random() < 0.15:
        head = _with_examples(dice, head, brief, wrapper)
    branches = []
    for _ in range(size):
        drawn = brief.draw()
        asked = wrapper.replace("{text}", drawn.text) + tail + END + ASSISTANT
        branches.append(Branch(asked, drawn.answer, drawn.text, drawn.known, drawn.fields))
    return Family(head, branches, task, brief.form, brief.tools)


def _with_examples(dice: Dice, head: str, brief: _Brief, wrapper: str) -> str:
    for _ in range(dice.randint(1, 3)):
        drawn = brief.draw()
        head += f"{wrapper.replace('{text}', drawn.text)}{END}{ASSISTANT}{drawn.answer}{END}{USER}"
    return head


def _outside(dice: Dice, split: str, size: int) -> Family:
    prompt = pick(dice, "outside/systems", split) if dice.random() < 0.5 else _role(dice)
    branches = []
    for _ in range(size):
        text = outside.request(dice, split)
        branches.append(Branch(text + END + ASSISTANT, outside.ANSWER, text, {}))
    return Family(chat.system(prompt) + USER, branches, "outside", "outside")


def _role(dice: Dice) -> str:
    return pick(dice, "instructions/roles", "train") if dice.random() < 0.5 else ""


def _system(dice: Dice, instruction: str, *, is_plain: bool) -> str:
    if is_plain or dice.random() < 0.3:
        return instruction
    guidance = dice.choices([0, 1, 2, 3, 8, 20], [35, 25, 18, 12, 8, 2])[0]
    around = dice.sample(lists.entries("instructions/guidelines").train, guidance)
    split = dice.randint(0, len(around)) if dice.random() < 0.5 else 0
    parts = [_role(dice), *around[:split], instruction, *around[split:]]
    return dice.choices([" ", "\n", "\n- "], [75, 20, 5])[0].join(part for part in parts if part)


def _wrapper(dice: Dice, task: str) -> str:
    found = [line.split("|", 1) for line in lists.entries("instructions/wrappers").train]
    own = [text for kind, text in found if kind == (task if dice.random() < 0.5 else "any")]
    return dice.choice(["{text}", *own, "{text}"]).replace("\\n", "\n") if dice.random() < 0.6 else "{text}"


def _instruction(dice: Dice, name: str, split: str) -> str:
    return pick(dice, f"instructions/{name}", split).replace("\\n", "\n")


def _labels(dice: Dice, labels: Sequence[str]) -> str:
    shuffled = dice.sample(list(labels), len(labels))
    separator, last = dice.choice(
        [(", ", " or "), (", ", ", "), (", ", ", or "), ("/", "/"), (" | ", " | "), (", ", " and ")]
    )
    return separator.join(shuffled[:-1]) + last + shuffled[-1]


def _keys(dice: Dice, keys: Sequence[str]) -> str:
    quote = dice.choice(["", "", '"', "'"]) if dice.random() < 0.5 else ""
    quoted = [f"{quote}{key}{quote}" for key in keys]
    if len(quoted) == 1:
        return quoted[0]
    return ", ".join(quoted[:-1]) + dice.choice([" and ", ", ", ", and "]) + quoted[-1]


def _word(dice: Dice, name: str, split: str, labels: Sequence[str]) -> tuple[str, Callable[[str], str]]:
    """An instruction that lists `labels`, and how it wants one written."""
    style: Callable[[str], str] = str.capitalize if dice.random() < 0.12 else str
    return _instruction(dice, name, split).replace(
        "{labels}", _labels(dice, [style(label) for label in labels])
    ), style


def _sentiment(dice: Dice, split: str, build: Path, only: str) -> _Brief:
    is_json = dice.random() < 0.25
    if is_json:
        text = _instruction(dice, "sentiment_json", split).replace("{labels}", _labels(dice, sentiment.LABELS))
        style: Callable[[str], str] = lambda label: json.dumps({"sentiment": label})  # noqa: E731
    else:
        text, style = _word(dice, "sentiment_word", split, sentiment.LABELS)

    def draw() -> _Drawn:
        if split == "train" and dice.random() < 0.2:
            review, label = lexical.few_words(dice, build)
        else:
            review, label = sentiment.review(dice, split, only=only)
        return _Drawn(review, style(label), {"sentiment": label})

    return _Brief(text, draw, "json" if is_json else "word")


_WORDS = {
    "category": ("category_word", tickets.CATEGORIES),
    "urgency": ("urgency_word", tickets.URGENCIES),
    "mood": ("mood_word", tickets.MOODS),
}


def _ticket(dice: Dice, split: str, build: Path, only: str) -> _Brief:
    form = only or dice.choices(["category", "urgency", "mood", "json"], [38, 16, 14, 32])[0]
    if form == "json":
        return _ticket_json(dice, split)
    name, labels = _WORDS[form]
    text, style = _word(dice, name, split, labels)

    def draw() -> _Drawn:
        ticket = tickets.ticket(dice, split)
        return _Drawn(ticket.text, style(getattr(ticket, form)), _known(ticket))

    return _Brief(text, draw, form)


def _known(ticket: tickets.Ticket) -> Mapping[str, str]:
    return {"category": ticket.category, "urgency": ticket.urgency, "mood": ticket.mood}


def _ticket_json(dice: Dice, split: str) -> _Brief:
    keys = ["category", "urgency", "sentiment"]
    if dice.random() < 0.4:
        keys = dice.sample(keys, dice.choice([2, 3, 3, 1]))
    allowed = {"category": tickets.CATEGORIES, "urgency": tickets.URGENCIES, "sentiment": tickets.MOODS}
    listed = " ".join(f"{key} is one of {_labels(dice, allowed[key])}." for key in keys)
    text = _instruction(dice, "ticket_json", split)
    if "{labels_of}" not in text and dice.random() < 0.3:
        text += " {labels_of}"
    text = text.replace("{keys}", _keys(dice, keys)).replace("{labels_of}", listed)

    def draw() -> _Drawn:
        ticket = tickets.ticket(dice, split)
        fields = {"category": ticket.category, "urgency": ticket.urgency, "sentiment": ticket.mood}
        return _Drawn(ticket.text, json.dumps({key: fields[key] for key in keys}), _known(ticket))

    return _Brief(text, draw, "json")


def _moderation(dice: Dice, split: str, build: Path, only: str) -> _Brief:
    form = "json" if dice.random() < 0.35 else "word"

    def draw() -> _Drawn:
        text, reason = moderation.comment(dice, split)
        known = {"moderation": reason or "ok"}
        if form == "json":
            return _Drawn(text, json.dumps({"ok": reason is None, "reason": reason}), known)
        return _Drawn(text, "ok" if reason is None else f"not ok: {reason}", known)

    return _Brief(_instruction(dice, f"moderation_{form}", split), draw, form)


def _language(dice: Dice, split: str, build: Path, only: str) -> _Brief:
    form = "json" if dice.random() < 0.25 else "word"

    def draw() -> _Drawn:
        text, language = languages.sentence(dice, split, build)
        answer = json.dumps({"language": language}) if form == "json" else language
        return _Drawn(text, answer, {"language": language})

    return _Brief(_instruction(dice, f"language_{form}", split), draw, form)


def _invoice(dice: Dice, split: str, build: Path, only: str) -> _Brief:
    form = only or dice.choices(["json", "tool", "input"], [80, 13, 7])[0]
    keys = list(KEYS)
    if not only and dice.random() < 0.25:
        keys = dice.sample(keys, dice.choice([2, 3, 3]))

    def fields() -> _Drawn:
        found = invoices.invoice(dice, split)
        values = {
            "department": json.dumps(found.department, ensure_ascii=False),
            "amount": found.amount,
            "description": json.dumps(found.description, ensure_ascii=False),
        }
        answer = "{" + ", ".join(f'"{key}": {values[key]}' for key in keys) + "}"
        return _Drawn(found.text, answer, {}, (found.department, found.written, found.description))

    if form == "json":
        return _Brief(_instruction(dice, "invoice_json", split).replace("{keys}", _keys(dice, keys)), fields, form)
    name, described = _tool(dice, keys)
    if form == "input":  # How the engine asks for the input of a tool that must be called.
        asked = f"Use the tool {name}" + (f": {described['description']}" if "description" in described else "")
        rest = dice.choice(
            [
                "",
                _instruction(dice, "invoice_tool", split),
                _instruction(dice, "invoice_json", split).replace("{keys}", _keys(dice, keys)),
            ]
        )
        return _Brief(f"{asked}\n\n{rest}".rstrip(), fields, form)
    instruction = _instruction(dice, "invoice_tool", split)

    def called() -> _Drawn:
        drawn = fields()
        return drawn._replace(answer=chat.call(name, drawn.answer))

    return _Brief(instruction, called, form, (described,))


_VERBS = ("record", "save", "store", "book", "add", "create", "log", "submit", "enter", "register", "post")
_OBJECTS = (
    "invoice",
    "expense",
    "invoice_line",
    "cost",
    "ledger_entry",
    "bill",
    "purchase",
    "expense_line",
    "payment",
)


def _tool(dice: Dice, keys: Sequence[str]) -> tuple[str, dict]:
    name = f"{dice.choice(_VERBS)}_{dice.choice(_OBJECTS)}"
    if dice.random() < 0.1:
        name = f"{dice.choice(_VERBS)}_{pseudo_word(dice)}"
    properties: dict[str, dict] = {key: {"type": "number" if key == "amount" else "string"} for key in keys}
    if dice.random() < 0.3:
        meanings = {"department": "Who pays", "amount": "Plain number", "description": "What was bought"}
        for key in keys:
            properties[key]["description"] = meanings[key]
    schema: dict = {"type": "object", "properties": properties, "required": list(keys)}
    if dice.random() < 0.4:
        schema["additionalProperties"] = False
    tool: dict = {"name": name, "parameters": schema}
    described = dice.choice(
        ["Record one invoice line.", "Save an expense in the ledger.", "Store what was bought.", ""]
    )
    return name, {"name": name, "description": described, "parameters": schema} if described else tool


_BRIEFS = {
    "sentiment": _sentiment,
    "ticket": _ticket,
    "moderation": _moderation,
    "invoice": _invoice,
    "language": _language,
}
