"""SECURITY.md says which test shows what: the tests that it names are there, and those of this folder are named."""

import ast
import re
from pathlib import Path

from sources import ROOT

NAMED = re.compile(r"`(tests/[\w/.]+\.py)?::(test_\w+)`|`(tests/[\w/]+\.py)`")
OF_TESTS = ("test_the_check", "test_the_search", "test_what_is_no_secret", "test_what_is_not_secret_came_out")


def named() -> set[tuple[str, str]]:
    """Files and functions that the tables name; `::test_…` is in the file before it."""
    found, file = set[tuple[str, str]](), ""
    for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines():
        for given, function, whole in NAMED.findall(line):
            assert not whole, f"{whole}: a test, not a file"
            file = given or file
            found.add((file, function))
        file = ""
    return found


def functions(path: Path) -> set[str]:
    """The tests of a file, those of classes included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_is_named_is_there() -> None:
    found = named()
    assert len(found) > 70
    assert [(file, name) for file, name in sorted(found) if name not in functions(ROOT / file)] == []


def test_every_test_of_this_folder_is_named() -> None:
    found, folder = named(), Path(__file__).parent
    missing = [
        (path.name, name)
        for path in sorted(folder.glob("test_*.py"))
        if path != Path(__file__)
        for name in sorted(functions(path))
        if (f"tests/security/{path.name}", name) not in found and not name.startswith(OF_TESTS)
    ]
    assert missing == []
