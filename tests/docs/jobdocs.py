"""What the pages about jobs repeat from the code: keys, lines, states, and which behaviour is shown by which test.

`renew.py` writes it, `test_docs_jobs.py` compares it.
"""

import ast
import json
import re
import tokenize
import tomllib
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import msgspec
from docpages import ROOT
from msgspec import NODEFAULT, inspect

from overnight.jobs import jobfile, row, tell

JOB_FILE = ROOT / "docs" / "reference" / "job-file.md"
REQUIREMENTS = ROOT / "docs" / "reference" / "requirements.md"
BEHAVIOURS = ROOT / "docs" / "reference" / "requirements.toml"
_SOURCE = ROOT / "src" / "overnight" / "jobs"
_TABLES = {  # The tables of a job file, as they are written there; [lines] has a section of its own.
    "source": jobfile.Source,
    "prompt": jobfile.Prompt,
    "output": jobfile.Output,
    "sink": jobfile.Sink,
    "batch": jobfile.Batch,
    "limits": jobfile.Limits,
    "report": jobfile.Report,
    "report.currency": jobfile.Currency,
    "notify": jobfile.Notify,
    "endpoint": jobfile.Endpoint,
    "prices.MODEL": jobfile.Price,
    "cache": jobfile.Cache,
    "ledger": jobfile.Ledger,
}
_WRITTEN = {"notify": "[[notify]]", "prices.MODEL": '[prices."MODEL"]'}


def generated(name: str, page: Path) -> str:
    """The text between the two comments `generated NAME: begin` and `…: end` of a page."""
    return _parts(name, page)[1]


def renew(name: str, page: Path, text: str) -> None:
    """Put `text` between these comments."""
    before, _, after = _parts(name, page)
    page.write_text(before + text + after)


def _parts(name: str, page: Path) -> tuple[str, str, str]:
    begin, end = f"<!-- generated {name}: begin -->\n", f"<!-- generated {name}: end -->\n"
    before, _, rest = page.read_text().partition(begin)
    inside, found, after = rest.partition(end)
    assert found, f"{page} has no part {name}"
    return before + begin, inside, end + after


def keys() -> str:
    """Every table of a job file: what it is for, its keys, their types, defaults and meanings."""
    top = _table(jobfile.JobFile, without_tables=True)
    sections = [
        f"### {_WRITTEN.get(name, f'[{name}]')}\n\n{_told(kind)}{_table(kind)}" for name, kind in _TABLES.items()
    ]
    return top + "".join(sections)


def lines() -> str:
    """The lines of [lines], when each is printed, and what its template may name."""
    comments = _comments(_SOURCE / "jobfile.py", "Lines")
    rows = []
    for field in msgspec.structs.fields(jobfile.Lines):
        facts = ", ".join(f"`{fact}`" for fact in tell._FACTS.get(field.name, ())) or "—"
        if field.name == "row":
            facts = "as [report] line, without the columns of the source"
        rows.append([f"`{field.name}`", _code(json.dumps(field.default)), comments.get(field.name, "TELL"), facts])
    return _markdown(["line", "default", "when", "facts"], rows)


def states() -> str:
    """The states of a row."""
    text = (_SOURCE / "row.py").read_text()
    told = dict(re.findall(r'^    "(\w+)",  # (.*)$', text, re.MULTILINE))
    rows = [[f"`{state}`", _sentence(told.get(state, "TELL"))] for state in get_args(row.State)]
    return _markdown(["state", "meaning"], rows)


def _told(kind: type) -> str:
    told = (kind.__doc__ or "").strip()
    return re.sub(r"\. (?=[A-Z])", ".\n", told).replace(" docs/reference/job-file.md.", "") + "\n"


def _table(kind: type[msgspec.Struct], *, without_tables: bool = False) -> str:
    comments = _comments(_SOURCE / "jobfile.py", kind.__name__)
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    rows = []
    for field in found.fields:
        is_table = any(isinstance(part, inspect.StructType) for part in _all_types(field.type))
        if without_tables and is_table:
            continue
        meaning = _sentence(comments.get(field.name, "TELL"))
        rows.append(
            [f"`{field.name}`", "[report.currency]" if is_table else _type(field.type), _default(field), meaning]
        )
    return _markdown(["key", "type", "default", "meaning"], rows)


def _sentence(comment: str) -> str:
    """A comment as a cell: it begins small and ends without a stop, unless it holds several sentences."""
    word = comment.partition(" ")[0]
    first = (
        comment[:1].lower() + comment[1:] if word == "A" or (word[1:].isalpha() and word[1:].islower()) else comment
    )
    return first.removesuffix(".").replace("|", "\\|")


def _default(field: inspect.Field) -> str:
    if field.default is None:
        return "—"
    if field.default is not NODEFAULT:
        return _code(msgspec.json.encode(field.default).decode())
    if field.default_factory is not NODEFAULT:
        return _code(msgspec.json.encode(field.default_factory()).decode())
    return "required"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _type(kind: Any) -> str:
    found = ""
    match kind:
        case inspect.UnionType(types):
            found = " or ".join(_type(one) for one in types if not isinstance(one, inspect.NoneType))
        case inspect.LiteralType(values):
            found = ", ".join(f'`"{value}"`' for value in values)
        case inspect.ListType(item):
            found = f"list of {_type(item)}s"
        case inspect.IntType() | inspect.FloatType():
            found = _PLAIN[type(kind)] + _bounds(kind)
        case inspect.StrType(pattern=str(pattern)):
            found = f"text, `{pattern}`".replace("|", "\\|")
        case _:
            found = _PLAIN[type(kind)]
    return found


_PLAIN = {
    inspect.StrType: "text",
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.DictType: "table",
}


def _bounds(kind: Any) -> str:
    signs = (("gt", "> "), ("ge", "≥ "), ("le", "≤ "))
    found = [f"{sign}{bound:,}" for name, sign in signs if (bound := getattr(kind, name)) is not None]
    return f" {', '.join(found)}" if found else ""


def _all_types(kind: Any) -> Iterator[Any]:
    yield kind
    for inner in [*getattr(kind, "types", ()), getattr(kind, "item_type", None), getattr(kind, "value_type", None)]:
        if inner is not None:
            yield from _all_types(inner)


def _comments(file: Path, class_name: str) -> Mapping[str, str]:
    """The comment beside each field of a class."""
    text = file.read_text()
    on_line = {
        token.start[0]: token.string.removeprefix("# ")
        for token in tokenize.generate_tokens(StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    (node,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == class_name]
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    return {
        item.target.id: on_line[line]
        for item in fields
        for line in range(item.lineno, (item.end_lineno or item.lineno) + 1)
        if isinstance(item.target, ast.Name) and line in on_line
    }


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    made = "".join(f"| {' | '.join(cells)} |\n" for cells in [head, *rows])
    first, _, rest = made.partition("\n")
    return f"\n{first}\n{'|---' * len(head)}|\n{rest}\n"


def behaviours() -> dict[str, str]:
    """The behaviours that users described, by id."""
    found = tomllib.loads(BEHAVIOURS.read_text())
    return {number: text for group in found.values() for number, text in group.items()}


def shown() -> dict[str, list[str]]:
    """Tests by the id in their names: test_004_15_… shows 004-15, test_004_15_004_18_… both."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                numbers = re.match(r"test((?:_\d{3}_\d{2})+)_", node.name)
                for group, number in re.findall(r"_(\d{3})_(\d{2})", numbers[1]) if numbers else []:
                    found.setdefault(f"{group}-{number}", []).append(
                        f"{file.relative_to(ROOT).as_posix()}::{node.name}"
                    )
    return found


def requirements() -> str:
    """Each behaviour and the tests that show it; `open` where there is none."""
    tests = shown()
    text = ""
    for title, group in tomllib.loads(BEHAVIOURS.read_text()).items():
        rows = [[number, told, _links(tests.get(number, []))] for number, told in group.items()]
        text += f"\n## {title}\n{_markdown(['id', 'behaviour', 'shown by'], rows)}".removesuffix("\n")
    done = sum(number in tests for number in behaviours())
    return f"\n{done} of {len(behaviours())} are shown by a test.\n{text}\n"


def _links(tests: list[str]) -> str:
    if not tests:
        return "open"
    return ", ".join(f"[{name}](../../{path})" for path, _, name in (test.partition("::") for test in tests))
