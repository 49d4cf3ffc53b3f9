"""What no line of the code does: compare a secret in a time that tells of it, or make SQL, HTML or a command of text
that came from anywhere."""

import ast
import re
from collections.abc import Iterable, Iterator

import pytest
from sources import ROOT, Source, dotted, product

SECRET = re.compile(r"(^|_)(secret|token|signature|csrf|digest|hexdigest|mac|hmac|password|cookie|nonce|api_key)s?$")
NO_SECRET = {
    # Told to whoever asks: a check against damage, or what a body is recognised by.
    "src/overnight/store/manifest.py",
}
SHELLS = re.compile(r"(subprocess\.\w+|os\.(system|popen|exec\w*|spawn\w*)|eval|exec|pickle\.\w+|yaml\.load|marshal\.\w+)$")


def compared(among: Iterable[Source]) -> Iterator[str]:
    """Every `==`, `!=` or `in` whose sides have names of secrets."""
    for source in among:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Compare) and any(isinstance(sign, ast.Eq | ast.NotEq) for sign in node.ops):
                sides = [node.left, *node.comparators]
                if any(isinstance(side, ast.Constant) for side in sides):
                    continue  # Whether there is one.
                if any(SECRET.search(_name(side)) for side in sides):
                    yield f"{source.path}:{node.lineno} {ast.unparse(node)}"


def _name(node: ast.AST) -> str:
    """The last word of what is compared: of a name, an attribute, a call."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Subscript):
        found = node.slice
        return str(found.value) if isinstance(found, ast.Constant) else _name(node.value)
    return dotted(node).rpartition(".")[2].lstrip("_")


def test_x() -> None:
    found = list(compared(product()))
    assert found == []
    shells = []
    for source in product():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and SHELLS.search(dotted(node.func)): shells.append(f"{source.path}:{node.lineno} {dotted(node.func)}")
    assert shells==[]
