"""What no line of the code does: compare a secret in a time that tells of it, or take text that came from anywhere
for markup."""

import ast
import re
from collections.abc import Iterable, Iterator

import pytest
from sources import ROOT, Source, dotted, product

SECRET = re.compile(
    r"(^|[-_])(secret|token|signature|signed|csrf|digest|hexdigest|mac|hmac|password|cookie|api_?key)s?(_text)?$"
)
NO_SECRETS = {  # Digests and tokens that everybody may know.
    "src/overnight/jobs/night.py": "shape != self.work.job.shape_digest()",  # Whether a job file was changed.
    "src/overnight/server/usagereport.py": "_token(at_ms) != token",  # A place in a report, as text.
}
MARKUP = re.compile(r"\|\s*safe\b|autoescape\s+false", re.IGNORECASE)


def compared(among: Iterable[Source]) -> Iterator[str]:
    """Every `==` and `!=` with a side that has the name of a secret. That one is empty may be compared."""
    for source in among:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Compare) and any(isinstance(sign, ast.Eq | ast.NotEq) for sign in node.ops):
                sides = [node.left, *node.comparators]
                is_empty = any(isinstance(side, ast.Constant) for side in sides)
                found = ast.unparse(node)
                if not is_empty and any(map(_is_secret, sides)) and NO_SECRETS.get(source.path) != found:
                    yield f"{source.path}:{node.lineno} {found}"


def _is_secret(node: ast.AST) -> bool:
    """By its last word: of a name, an attribute, a call, a key."""
    if isinstance(node, ast.Call):
        return _is_secret(node.func)
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and SECRET.search(str(node.slice.value)) is not None
    return SECRET.search(dotted(node).rpartition(".")[2]) is not None


def _shipped() -> list[Source]:
    return [source for source in product() if not source.path.startswith("src/overnight/testing/")]


def test_secrets_are_compared_by_compare_digest_alone() -> None:
    assert list(compared(_shipped())) == []


def test_what_is_no_secret_is_still_there() -> None:
    texts = {source.path: source.text for source in _shipped()}
    assert [path for path, found in NO_SECRETS.items() if found not in texts[path]] == []


def test_no_template_of_a_page_turns_escaping_off() -> None:
    templates = sorted((ROOT / "src/overnight/server/console/templates").glob("*.html"))
    assert len(templates) > 15
    assert [path.name for path in templates if MARKUP.search(path.read_text())] == []
    assert [source.path for source in _shipped() if "Markup(" in source.text] == []


@pytest.mark.parametrize(
    "text",
    [
        "shown == token",
        "signature != made(x)",
        "a == self._secret",
        "a == sha256(b).hexdigest()",
        "headers['x-csrf'] == b",
        "key.api_key == shown",
    ],
)
def test_the_check_finds_what_it_looks_for(text: str) -> None:
    assert len(list(compared([Source("src/overnight/example.py", text, ast.parse(text))]))) == 1


@pytest.mark.parametrize("text", ["token == ''", "hmac.compare_digest(token, shown)", "input_tokens_of == b"])
def test_the_check_lets_pass_what_is_right(text: str) -> None:
    assert list(compared([Source("src/overnight/example.py", text, ast.parse(text))])) == []
