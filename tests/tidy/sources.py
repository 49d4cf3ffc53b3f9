"""Our Python files, parsed once."""

import ast
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Source(NamedTuple):
    """One file. `path` is relative to the repository, with slashes."""

    path: str
    text: str
    tree: ast.Module

    @property
    def is_product(self) -> bool:
        """Whether it is shipped, and no test of ours."""
        return self.path.startswith("src/")

    def comments(self) -> Iterator[tuple[int, str]]:
        for token in tokenize.generate_tokens(StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


@cache
def sources() -> tuple[Source, ...]:
    files = sorted(
        path for folder in ("src", "tests", "benchmarks", "fuzz") for path in (ROOT / folder).rglob("*.py")
    )
    found = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        found.append(Source(file.relative_to(ROOT).as_posix(), text, ast.parse(text, filename=str(file))))
    return tuple(found)


@cache
def product() -> tuple[Source, ...]:
    return tuple(source for source in sources() if source.is_product)


@cache
def texts() -> dict[str, str]:
    """Every text file that is or would be in git, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    found = {}
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            content = (ROOT / name).read_bytes()
            if b"\0" not in content:
                found[name] = content.decode()
    return found


def dotted(node: ast.AST) -> str:
    """`a.b.c` of names and attributes; a call or index inside is `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def imported(tree: ast.Module) -> dict[str, str]:
    """What each imported name of a module stands for, in full."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def used(source: Source) -> Iterator[tuple[int, str]]:
    """Every name and attribute that is read, in full: `time.monotonic`, `os.environ`."""
    names = imported(source.tree)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = dotted(node).partition(".")
            if first in names:
                yield node.lineno, names[first] + dot + rest
