"""Every relative link of every page leads to a file, and its anchor to a heading."""

from pathlib import Path

import pytest
from docpages import ROOT, anchors, links, pages, prose


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for line, target in links(page):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(f"{line}: {target}")
    assert broken == []


def test_every_page_below_docs_is_linked_from_its_index() -> None:
    index = ROOT / "docs" / "README.md"
    indexes = (index, ROOT / "docs" / "adr" / "README.md", ROOT / "docs" / "examples" / "README.md")
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in indexes for _, target in links(page)}
    assert {page for page in (ROOT / "docs").rglob("*.md") if page != index} - linked == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_has_one_sentence_a_line(page: Path) -> None:
    """Diffs then show which sentence changed. Lists and tables may hold several."""
    plain = [(number, line) for number, line in prose(page) if line[:1].isalpha()]
    assert [number for number, line in plain if ". " in line.replace("e.g. ", "") and "](" not in line] == []
