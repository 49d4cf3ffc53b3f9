"""The Markdown pages of the project, taken apart as far as our tests need it: blocks, tables, links, headings.

A comment above a block or table says how it is checked; `test_docs_blocks` lists what there is.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from overnight.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(?P<language>\w*)\s*$")
_MARK = re.compile(r"^<!-- (?P<mark>checke?d?:? .*) -->$")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (?P<text>.+)$")


class Block(NamedTuple):
    """A fenced block. `mark` is the text of the comment above it, or empty."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page that a person reads."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    mark = ""
    for number, line in lines:
        if fence := _FENCE.match(line):
            content: list[str] = []
            for _, inner in lines:
                if inner == "```":
                    break
                content.append(inner)
            found.append(Block(page, number, fence["language"], mark, "\n".join(content) + "\n"))
            mark = ""
        elif comment := _MARK.match(line):
            mark = comment["mark"]
        elif line:
            mark = ""
    return found


def prose(page: Path) -> list[tuple[int, str]]:
    """The lines outside of fenced blocks, with their numbers."""
    found, is_code = [], False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code:
            found.append((number, line))
    return found


def links(page: Path) -> Iterator[tuple[int, str]]:
    for number, line in prose(page):
        for found in _LINK.finditer(line):
            yield number, found["target"]


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as code hosts make them: lower case, punctuation dropped, spaces to hyphens."""
    headings = (_HEADING.match(line) for _, line in prose(page))
    texts = [re.sub(r"[^\w\- ]", "", found["text"].lower()) for found in headings if found]
    return {text.replace(" ", "-") for text in texts}


def table(page: Path, mark: str) -> list[list[str]]:
    """The rows of the table below `<!-- checked by MARK -->`, without its head; code marks are stripped."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = lines.index(f"<!-- checked by {mark} -->")
    rows: list[list[str]] = []
    for line in lines[start + 1 :]:
        if line.startswith("|"):
            rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def marked_block(page: Path, mark: str) -> list[Block]:
    """The blocks below `<!-- checked by MARK -->`."""
    return [block for block in blocks(page) if block.mark == f"checked by {mark}"]


def parsed(words: list[str]) -> dict[str, Any]:
    """The parameters of a command line, without the `overnight` at its start; click's UsageError if it is wrong."""
    # With the settings of the group: a command keeps the help option that it is first parsed with.
    top = click.Context(cli, info_name="overnight", **cli.context_settings)
    name, command, rest = cli.resolve_command(top, words)
    assert command is not None
    return command.make_context(name, rest, parent=top).params
