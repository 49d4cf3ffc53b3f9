"""How good a GGUF is, asked through the embedded engine, as a user would ask it.

Three kinds of cells:
- *seen*: new combinations of material that training had;
- *held out*: no template, instruction, noun, vendor, department or sentiment word that training had; reviews also
  with *new nouns* or *new words* (of judgement) alone;
- *hand-written*: texts written one by one, by authors who saw neither lists nor generators, with a plain instruction.

Every cell counts exact answers. JSON is compared as values, so `45.00` is 45.
"""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from model import prompts
from model.chat import ASSISTANT, END, SYSTEM, USER
from model.tasks import outside
from overnight.core.retry import Answered
from overnight.engines.embedded import Embedded
from overnight.engines.engine import Call
from overnight.ports.entropy import SystemEntropy

HANDWRITTEN = Path(__file__).parent / "handwritten"
_TURN = re.compile("(" + "|".join(map(re.escape, (SYSTEM, USER, ASSISTANT))) + ")")
_ROLES = {SYSTEM: "system", USER: "user", ASSISTANT: "assistant"}


class Case(NamedTuple):
    """One request and the answer that is right."""

    params: dict[str, Any]
    wanted: Any  # Text, or a value if `is_json`, or the input of a tool.
    is_json: bool
    text: str


class Cell(NamedTuple):
    """Cases of one kind."""

    name: str
    cases: list[Case]


class Score(NamedTuple):
    """What came out of a cell."""

    name: str
    cases: int
    right: int
    valid_json: int | None  # None: not every case asked for JSON.
    fields: dict[str, int]  # Right values, by key.
    asked: dict[str, int]  # How many cases ask for each key.
    mistakes: list[tuple[str, Any, Any]]  # Text, wanted, said: the first few.

    @property
    def task(self) -> str:
        return self.name.split(" | ")[0]

    @property
    def kind(self) -> str:
        return self.name.split(" | ")[1]

    @property
    def parts(self) -> tuple[str, ...]:
        """What is counted beside the whole answer."""
        fields = prompts.KEYS if self.task.startswith("invoice") else ()
        return (*fields, "valid JSON") if self.valid_json is not None else ()

    def share(self, part: str = "") -> float:
        """Of right answers, or of one of `parts`."""
        counts = {"": self.right, "valid JSON": self.valid_json or 0, **self.fields}
        asked = self.asked.get(part, self.cases)
        return counts.get(part, 0) / asked


def generated(build: Path, count: int, splits: Sequence[str] = ("train", "held_out")) -> list[Cell]:
    """`count` cases in each cell; always the same for one state of the lists. Only `train` reads the build folder."""
    cells = []
    for split in splits:
        where = "seen" if split == "train" else "held out"
        for task, only in (
            ("sentiment", ""),
            ("ticket", "category"),
            ("ticket", "urgency"),
            ("ticket", "mood"),
            ("ticket", "json"),
            ("moderation", ""),
            ("invoice", "json"),
            ("invoice", "tool"),
            ("language", ""),
            ("outside", ""),
        ):
            name = f"{task} {only}".strip()
            cells.append(Cell(f"{name} | {where}", _drawn(build, task, split, only, count)))
    for only in ("words", "nouns"):
        cells.append(Cell(f"sentiment | new {only}", _drawn(build, "sentiment", "held_out", only, count)))
    return cells


def table(scores: Sequence[Score]) -> str:
    """The share of right answers in Markdown, a row for each task; then valid JSON and the fields of invoices."""
    kinds = list(dict.fromkeys(score.kind for score in scores))
    rows = [f"| task | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    parts = dict.fromkeys((score.task, part) for score in scores for part in ("", *score.parts))
    for task, part in parts:
        found = {score.kind: score for score in scores if score.task == task}
        shares = (f"{found[kind].share(part):.1%}" if kind in found else "" for kind in kinds)
        rows.append(f"| {task}{part and f': {part}'} | {' | '.join(shares)} |")
    return "\n".join(rows)


def _drawn(build: Path, task: str, split: str, only: str, count: int) -> list[Case]:
    dice = random.Random(f"evaluation/{task}/{split}/{only}")
    cases: list[Case] = []
    while len(cases) < count:
        family = prompts.family(dice, task, split, build, size=2, only=only, plain=0.3)
        cases += [case(family, branch) for branch in family.branches]
    return cases[:count]


def case(family: prompts.Family, branch: prompts.Branch) -> Case:
    """A branch as a request to the API."""
    parts = _TURN.split(family.prefix + branch.asked)[1:-2]
    turns = [(_ROLES[role], text.removesuffix(END)) for role, text in zip(parts[::2], parts[1::2], strict=True)]
    params: dict[str, Any] = {}
    if turns[0][0] == "system":
        system = turns.pop(0)[1]
        if family.tools:
            params["tools"] = [
                {key: tool[key] for key in ("name", "description") if key in tool}
                | {"input_schema": tool["parameters"]}
                for tool in family.tools
            ]
            system = system.partition("Tools:\n<tools>")[0].rstrip()
        if system:
            params["system"] = system
    params["messages"] = [{"role": role, "content": text} for role, text in turns]
    if family.form == "tool":
        said = json.loads(re.search(r"\{.*\}", branch.answer)[0])["arguments"]  # type: ignore[index]
        return Case(params, said, True, branch.text)
    is_json = branch.answer.startswith("{")
    return Case(params, json.loads(branch.answer) if is_json else branch.answer, is_json, branch.text)


_ASKED = {  # The plain instruction under which hand-written texts are judged.
    "sentiment": "Classify the sentiment of the review. Answer with one word: positive, negative or neutral.",
    "category": "Classify the support ticket. Answer with one of: billing, technical, account, feedback, other.",
    "urgency": "How urgent is this support ticket? Answer with one word: low, medium or high.",
    "mood": "What is the mood of the customer in this ticket? Answer with one word: positive, neutral or negative.",
    "moderation": 'Moderate the comment. Answer "ok", or "not ok: reason".',
    "invoice json": 'Extract the invoice line as JSON with the keys "department", "amount" and "description".',
    "language": "Which language is this text written in? Answer with the English name of the language.",
}


def handwritten() -> list[Cell]:
    """One cell a task, from the files in `model/handwritten`."""
    comments = _rows("moderation")
    reasons = {"selfharm": "self-harm"}
    verdicts = ["ok" if row["ok"] else f"not ok: {reasons.get(row['reason'], row['reason'])}" for row in comments]
    lines = [{key: row[key] for key in prompts.KEYS} for row in _rows("invoices")]
    cells = [
        _written("sentiment", _rows("sentiment"), [row["sentiment"] for row in _rows("sentiment")]),
        _written("category", _rows("tickets"), [row["category"] for row in _rows("tickets")]),
        _written("urgency", _rows("tickets"), [row["urgency"] for row in _rows("tickets")]),
        _written("mood", _rows("tickets"), [row["sentiment"] for row in _rows("tickets")]),
        _written("moderation", comments, verdicts),
        _written("invoice json", _rows("invoices"), lines),
        _written("language", _rows("languages"), [row["language"] for row in _rows("languages")]),
    ]
    cells.append(Cell("outside | hand-written", [_declined(row) for row in _rows("outside")]))
    return cells


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HANDWRITTEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def _written(task: str, rows: list[dict[str, Any]], wanted: Sequence[Any]) -> Cell:
    name = f"ticket {task}" if task in ("category", "urgency", "mood") else task
    cases = []
    for row, answer in zip(rows, wanted, strict=True):
        params = {"system": _ASKED[task], "messages": [{"role": "user", "content": row["text"]}]}
        cases.append(Case(params, answer, isinstance(answer, dict), row["text"]))
    return Cell(f"{name} | hand-written", cases)


def _declined(row: dict[str, Any]) -> Case:
    params: dict[str, Any] = {"messages": [{"role": "user", "content": row["text"]}]}
    if "system" in row:
        params["system"] = row["system"]
    return Case(params, outside.ANSWER, False, row["text"])


async def run(weights: Path, cells: Sequence[Cell], *, threads: int = 1) -> list[Score]:
    """Ask every case, greedily, without a schema."""
    engine = Embedded(weights, entropy=SystemEntropy(), threads=threads)
    await engine.start()
    try:
        return [await _score(engine, cell) for cell in cells]
    finally:
        await engine.close()


async def _score(engine: Embedded, cell: Cell) -> Score:
    gate = asyncio.Semaphore(engine.in_flight_max)

    async def ask(case: Case) -> dict[str, Any]:
        body = {"model": "overnight-tiny", "max_tokens": 200, **case.params}
        async with gate:
            outcome = await engine.answer(
                Call(params=msgspec.json.encode(body), model="overnight-tiny", api_version="2023-06-01", timeout_s=60)
            )
        if not isinstance(outcome, Answered):
            raise SystemExit(f"{cell.name}: {outcome} for {body}")
        return dict(json.loads(outcome.message))

    messages = await asyncio.gather(*(ask(case) for case in cell.cases))
    right, valid, fields, asked, mistakes = 0, 0, Counter[str](), Counter[str](), []
    for case, message in zip(cell.cases, messages, strict=True):
        said = _said(message, is_json=case.is_json)
        valid += isinstance(said, dict)
        if isinstance(case.wanted, dict):
            asked.update(case.wanted.keys())
            fields.update(
                key for key, value in case.wanted.items() if isinstance(said, dict) and said.get(key) == value
            )
        if said == case.wanted:
            right += 1
        elif len(mistakes) < 12:
            mistakes.append((case.text, case.wanted, said))
    asks_json = all(case.is_json for case in cell.cases)
    return Score(cell.name, len(cell.cases), right, valid if asks_json else None, dict(fields), dict(asked), mistakes)


def _said(message: dict[str, Any], *, is_json: bool) -> Any:
    for block in message["content"]:
        if block["type"] == "tool_use":
            return block["input"]
    text = "".join(block["text"] for block in message["content"]).strip()
    if not is_json:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
