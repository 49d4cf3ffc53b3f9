"""What the reference pages repeat from the code: limits, errors, settings, endpoints.

`renew.py` writes it, `test_docs_reference.py` and `test_docs_tables.py` compare it. Words that only a person can
write are kept when their row is renewed, and are `TELL` until they are written.
"""

import ast
import re
import tokenize
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from docpages import ROOT
from msgspec import NODEFAULT, inspect
from msgspec.structs import FieldInfo, fields

from overnight import errors, limits
from overnight.errors import ApiError, OvernightError, UpstreamRefused
from overnight.limits import MIB
from overnight.server.app import ROUTES
from overnight.server.config import ENVIRONMENT_PREFIX, Settings

ARCHITECTURE = ROOT / "ARCHITECTURE.md"
REFERENCE = ROOT / "docs" / "reference"
LIMITS, ERRORS, CONFIGURATION = REFERENCE / "limits.md", REFERENCE / "errors.md", REFERENCE / "configuration.md"
HTTP_API = REFERENCE / "http-api.md"
TELL = "TELL"
_HEAD = ("limit", "value", "what happens there", "why")
_SECTION = re.compile(r"^# --- (?P<title>.+?)(?: \((?P<note>.+)\))? -+$")
_UNITS = (
    ("BYTES|^MIB$", "bytes"),
    ("_MS(_MAX)?$", "ms"),
    ("_S(_MAX|_EACH_MAX)?$", "s"),
    ("LENGTH|CHARACTERS", "characters"),
    ("USD", "USD"),
    ("DAYS", "days"),
)
_LARGER = {  # Steps of a unit, the largest first.
    "bytes": ((MIB, "MiB"), (1_000_000, "MB"), (1024, "KiB")),
    "ms": ((86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")),
    "s": ((3_600, "h"), (60, "min")),
}


class Limit(NamedTuple):
    """A constant of limits.py, with the comment beside it and the section above it (empty: a unit, no bound)."""

    name: str
    value: float
    comment: str
    section: str
    note: str

    @property
    def unit(self) -> str:
        return next((unit for pattern, unit in _UNITS if re.search(pattern, self.name)), "—")

    @property
    def shown(self) -> str:
        """The value as people say it."""
        for size, unit in _LARGER.get(self.unit, ()):
            if self.value >= size and self.value % size == 0 and not (unit == "days" and self.value == size):
                return f"{int(self.value) // size:,} {unit}"
        number = f"{self.value:,.0f}" if self.value == int(self.value) else f"{self.value:,}"
        return number if self.unit == "—" else f"{number} {self.unit}"


def all_limits() -> list[Limit]:
    """Every constant of limits.py, in its order."""
    text = (ROOT / "src" / "overnight" / "limits.py").read_text()
    comments = {
        token.start[0]: token.string.removeprefix("# ")
        for token in tokenize.generate_tokens(StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    lines, found, section, note, after = text.splitlines(), [], "", "", 0
    for node in ast.parse(text).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above = [lines[number - 1] for number in range(after + 1, node.lineno) if number in comments]
        for heading in filter(None, map(_SECTION.match, above)):
            section, note = heading["title"], heading["note"] or ""
        if above and not _SECTION.match(above[-1]):
            note = " ".join(filter(None, [note, above[-1].removeprefix("# ")]))
        after = node.end_lineno or node.lineno
        beside = " ".join(comments[number] for number in range(node.lineno, after + 1) if number in comments)
        found.append(Limit(node.target.id, getattr(limits, node.target.id), beside, section, note))
    return found


def told_of_limits() -> dict[str, str]:
    """What happens at each limit: the words of limits.md, of a new one those of ARCHITECTURE.md if it has some."""
    there = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| [^|]* \| (.*) \|$", ARCHITECTURE.read_text(), re.MULTILINE))
    here = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| (.*?) \| [^|]* \|$", LIMITS.read_text(), re.MULTILINE))
    units = {limit.name: "a unit, not a bound" for limit in all_limits() if not limit.section}
    moved = {name: words.replace("](docs/", "](../") for name, words in there.items()}
    return {**moved, **{name: words for name, words in here.items() if words != TELL}, **units}


def limits_text() -> str:
    """The sections of limits.md."""
    told, text, section = told_of_limits(), "", ""
    for limit in all_limits():
        if not limit.section:
            continue
        if limit.section != section:
            section = limit.section
            text += f"\n## {section}\n\n{_noted(limit.note)}" + markdown(_HEAD, [])
        why = _linked(limit.comment).replace("|", "\\|")
        text += f"| `{limit.name}` | {limit.shown} | {told.get(limit.name, TELL)} | {why} |\n"
    return f"{text}\n"


def limit_rows() -> list[list[str]]:
    """Name, value and unit of each constant in `limits.py`, in its order."""
    return [[limit.name, f"{limit.value:,}", limit.unit] for limit in all_limits()]


def _noted(note: str) -> str:
    if not note:
        return ""
    said = _linked(f"Source: {note}" if note.startswith("http") else note)
    return f"{said[:1].upper()}{said[1:].rstrip('.')}.\n\n"


def _linked(text: str) -> str:
    """Text of a comment with its addresses as links; a file of docs/ is one too."""
    text = re.sub(r"https?://[^\s,;)]+", lambda url: f"<{url[0]}>", text)
    decision = re.search(r"docs/adr/(\d{4})", text)
    files = sorted((ROOT / "docs" / "adr").glob(f"{decision[1]}-*.md")) if decision else []
    return text.replace(decision[0], f"[ADR {decision[1]}](../adr/{files[0].name})") if decision and files else text


# --- Errors ---------------------------------------------------------------------------------------------------------


def below(base: type[OvernightError]) -> list[type[OvernightError]]:
    """All errors below `base` that `errors.py` defines, each before its own."""
    direct = [found for found in base.__subclasses__() if found.__module__ == errors.__name__]
    return [found for child in direct for found in (child, *below(child))]


def error_row(kind: type[OvernightError]) -> list[str]:
    """Name, status, type and headers of an error."""
    if not issubclass(kind, ApiError):
        return [kind.__name__, "—", "—", ""]
    shown = ", ".join(name if name == "retry-after" else f"{name}: {value}" for name, value in _headers(kind).items())
    return [kind.__name__, str(kind.status), kind.type, shown]


def _headers(kind: type[ApiError]) -> dict[str, str]:
    made: Any = kind.__new__(kind)
    made.retry_after_s = 1
    found = made.headers()
    assert isinstance(found, dict)
    return found


def errors_text() -> str:
    """The tables of errors.md."""
    api = [kind for kind in below(OvernightError) if issubclass(kind, ApiError) and kind is not ApiError]
    rows = [
        [f"`{found.__name__}`", *_pair(found), _again(found), _words(found)]
        for found in sorted(api, key=lambda found: found.status)
    ]
    others = [[f"`{found.__name__}`", _words(found)] for found in below(OvernightError) if found not in api]
    return (
        "\n## Of the HTTP API\n\n"
        + markdown(["error", "status", "type", "an SDK tries again", "when"], rows)
        + "\n## Of commands and of the store\n\n"
        + markdown(["error", "when"], [row for row in others if row[0] != "`ApiError`"])
        + "\n"
    )


def _pair(kind: type[ApiError]) -> tuple[str, str]:
    """Status and type."""
    if kind is UpstreamRefused:  # Its own ones stand in for those of an engine.
        return "the engine's", "the engine's"
    return str(kind.status), kind.type


def _again(kind: type[ApiError]) -> str:
    """What the official SDKs do: https://github.com/anthropics/anthropic-sdk-python, `_should_retry`."""
    headers = _headers(kind)
    if headers.get("x-should-retry") == "false" or not (kind.status in (408, 409, 429) or kind.status >= 500):
        return "no"
    return "after `retry-after`" if "retry-after" in headers else "yes"


def _words(kind: type[OvernightError]) -> str:
    code = f" `error.details.error_code` is `{kind.code}`." if issubclass(kind, ApiError) and kind.code else ""
    return f"{' '.join((kind.__doc__ or TELL).split())}{code}".replace("|", "\\|")


# --- Settings -------------------------------------------------------------------------------------------------------


def setting_rows() -> list[list[str]]:
    """Name, default and variable of each setting. Tables have none, but for engines, which are specs there."""
    found = inspect.type_info(Settings)
    assert isinstance(found, inspect.StructType)
    kinds = {field.name: field.type for field in found.fields}
    return [[*_setting(field), _variable(field.name, kinds[field.name])] for field in fields(Settings)]


def table_rows(kind: type[msgspec.Struct]) -> list[list[str]]:
    """Name and default of each setting of a table."""
    return [_setting(field) for field in fields(kind)]


def _variable(name: str, kind: Any) -> str:
    is_table = isinstance(kind, inspect.DictType) or (
        isinstance(kind, inspect.ListType) and isinstance(kind.item_type, inspect.StructType)
    )
    return "—" if is_table and name != "engines" else ENVIRONMENT_PREFIX + name.upper()


def _setting(field: FieldInfo) -> list[str]:
    return [field.encode_name, _default(field)]


def _default(field: FieldInfo) -> str:
    if field.default is not NODEFAULT:
        return msgspec.json.encode(field.default).decode()
    if field.default_factory is NODEFAULT:
        return "required"
    value = msgspec.to_builtins(field.default_factory())
    if value and isinstance(value[0], dict):
        value = [
            {name: found for name, found in item.items() if found not in ("", [], {}, None, False)} for item in value
        ]
    return re.sub(r"([,:])(?=[\"{\[])", r"\1 ", msgspec.json.encode(value).decode())


# --- Endpoints ------------------------------------------------------------------------------------------------------


def endpoints() -> list[str]:
    """Method and path of each endpoint, in the order of the routes."""
    return [f"{method} {path.replace(':path', '')}" for method, path, _ in ROUTES]


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(cells)} |\n" for cells in rows]
    return f"| {' | '.join(head)} |\n{'|---' * len(head)}|\n{''.join(lines)}"


def renew_rows(page: Path, mark: str, rows: Sequence[Sequence[str]], *, keeps_words: bool = True) -> None:
    """Renew the rows of the table below `<!-- checked by MARK -->`; with words, the last cell of each is kept."""
    text = page.read_text()
    before, found, after = text.partition(f"<!-- checked by {mark} -->\n\n")
    assert found, f"{page} has no table {mark}"
    table, blank, rest = after.partition("\n\n")
    head, line, *old = table.splitlines()
    columns = len(rows[0])
    told = {cells[0]: cells[-1] for cells in map(_cells, old) if len(cells) > columns} if keeps_words else {}
    lines = [head, line]
    for row in rows:
        words = [told.get(row[0], TELL)] if keeps_words else []
        lines.append(f"| {' | '.join([*row, *words])} |")
    page.write_text(before + found + "\n".join(lines) + blank + rest)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
