"""The documentation as a site: `make docs`, built strictly, and what a browser would find in it."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from docpages import ROOT, blocks, pages

_LOADED = {
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
    ("link", "href"),
}
_BUNDLED = re.compile(r"assets/(javascripts|stylesheets)/")  # The theme's own; its scripts fetch only on request.


class Parsed(HTMLParser):
    """One page: what it links to and loads, the ids it has, its text outside and inside of code."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = {""}
        self.classes: set[str] = set()
        self.text, self.code = "", ""
        self._open: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        self.classes |= set(found.get("class", "").split())
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        self.loaded += [value for name, value in found.items() if (tag, name) in _LOADED]
        if tag in ("code", "script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open:
            self.text += data
        elif self._open[-1] == "code":
            self.code += data


def _build(project: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(
        command,
        cwd=project,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site."""
    there = tmp_path_factory.mktemp("site")
    built = _build(ROOT, there)
    assert built.returncode == 0, built.stdout + built.stderr
    return there


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Parsed]:
    """Every page of it by its file."""
    return {file: Parsed(file) for file in sorted(site.rglob("*.html"))}


def _target(page: Path, link: str) -> tuple[Path, str]:
    parts = urlsplit(link)
    there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return (there / "index.html" if there.is_dir() else there), unquote(parts.fragment)


def test_every_link_of_the_site_leads_to_a_file_and_an_anchor(site: Path, parsed: dict[Path, Parsed]) -> None:
    broken, followed = [], 0
    for page, found in parsed.items():
        for link in [*found.links, *found.loaded]:
            if re.match(r"(https?:)?//|mailto:", link):
                continue
            there, anchor = _target(page, link)
            followed += 1
            # 404.html is served for every path, so its links begin at the root of the site.
            if page.name == "404.html":
                there = site / unquote(urlsplit(link).path).lstrip("/")
                there = there / "index.html" if there.is_dir() else there
            is_there = there.is_file() and (there not in parsed or anchor in parsed[there].ids)
            if not is_there:
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []
    assert followed > 1_000


def test_no_page_loads_anything_from_elsewhere(site: Path, parsed: dict[Path, Parsed]) -> None:
    remote = [
        f"{page.relative_to(site)}: {url}"
        for page, found in parsed.items()
        for url in found.loaded
        if re.match(r"(https?:)?//", url)
    ]
    for file in [*site.rglob("*.css"), *site.rglob("*.html")]:
        text = file.read_text(encoding="utf-8")
        styles = text if file.suffix == ".css" else "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
        remote += [
            f"{file.relative_to(site)}: {url}"
            for url in re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]*)", styles)
        ]
    assert remote == []
    # What makes the scripts of the theme fetch: diagrams, figures of a repository, a list of versions.
    asks = {"mermaid", "md-source", "md-version"}
    assert {page.name: found.classes & asks for page, found in parsed.items() if found.classes & asks} == {}


def test_how_a_block_is_checked_is_in_no_page(parsed: dict[Path, Parsed]) -> None:
    shown = [str(page) for page, found in parsed.items() if re.search(r"<!--|checked? ?(by|:)\s*test_", found.text)]
    assert shown == []


def test_blocks_and_tables_are_rendered_as_such(parsed: dict[Path, Parsed]) -> None:
    assert [str(page) for page, found in parsed.items() if "```" in found.text or "|---" in found.text] == []
    assert [str(page) for page, found in parsed.items() if re.search(r"^[-*] ", found.text, re.MULTILINE)] == []
    table = next(found for page, found in parsed.items() if page.name == "job-file.html")
    assert "\\|" not in table.code


def test_every_page_of_docs_is_in_the_navigation(site: Path, parsed: dict[Path, Parsed]) -> None:
    index = site / "index.html"
    linked = {_target(index, link)[0] for link in parsed[index].links if "//" not in link}
    docs = [page.relative_to(ROOT / "docs") for page in pages() if page.is_relative_to(ROOT / "docs")]
    names = [page.with_name("index.html") if page.name == "README.md" else page.with_suffix(".html") for page in docs]
    beside = ["ARCHITECTURE.html", "CHANGELOG.html", "CONTRIBUTING.html", "SECURITY.html"]
    assert {site / name for name in [*names, *beside]} - linked == set()


def test_every_block_of_a_page_is_in_the_site(site: Path, parsed: dict[Path, Parsed]) -> None:
    """A fence that the site's Markdown reads in another way would swallow what follows."""
    missing = [
        block.place
        for page in pages()
        if page.is_relative_to(ROOT / "docs")
        for block in blocks(page)
        for name in [page.relative_to(ROOT / "docs").with_suffix(".html")]
        for found in [parsed[site / (name.with_name("index.html") if page.name == "README.md" else name)]]
        if block.text.strip() not in found.code
    ]
    assert missing == []


def test_the_search_has_every_page_and_needs_no_server(site: Path, parsed: dict[Path, Parsed]) -> None:
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    found = {item["location"].partition("#")[0] for item in json.loads(index.removeprefix("var __index = "))["docs"]}
    names = {page.relative_to(site).as_posix() for page in parsed} - {"404.html"}
    assert {name.replace("index.html", "") for name in names} - {
        name.replace("index.html", "") for name in found
    } == (set())
    assert (site / "assets" / "iframe-worker.js").is_file()


_SMALL = {
    "docs/README.md": "# All\n\n[Page](how-to/page.md)\n",
    "docs/how-to/page.md": "# Page\n\n## Two words\n\n![Shown](../images/console/batches.png)\n",
    "docs/images/console/batches.png": "\x89PNG",
    "ARCHITECTURE.md": "# Architecture\n",
    "CHANGELOG.md": "# Changes\n",
    "CONTRIBUTING.md": "# Contributing\n",
    "SECURITY.md": "# Security\n",
    "src/code.py": "code = 1\n",
    "model/README.md": "# Model\n\n[Page](../docs/how-to/page.md#two-words) and [code](../src/code.py)\n",
}


_LINKS = {
    "a page beside docs": ("[A](../../ARCHITECTURE.md)", '<a href="../ARCHITECTURE.html">A</a>'),
    "a file": ("[code](../../src/code.py)", '<a href="../src/code.py">code</a>'),
    "a page of a folder": ("[model](../../model/README.md)", '<a href="../model/index.html">model</a>'),
    "a folder": ("Look into [src](../../src).", "<p>Look into src.</p>"),
    "code": ("`[a](b.md)`", "<code>[a](b.md)</code>"),
    "a bar in a table": ("| a |\n|---|\n| `x\\|y` |", "<code>x|y</code>"),
    "a block with a comment": ("<!-- check: server -->\n```text\nhello\n```", "hello"),
}
_BROKEN = ["gone.md", "../../src/gone.py", "page.md#gone", "../../ARCHITECTURE.md#gone"]


def _small(project: Path, more: str) -> "subprocess.CompletedProcess[str]":
    """A project of a few pages with the settings of ours, and `more` on one of its pages."""
    for name, text in _SMALL.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text + (more if name == "docs/how-to/page.md" else ""))
    shutil.copy(ROOT / "mkdocs.yml", project)
    shutil.copytree(ROOT / "packaging" / "site", project / "packaging" / "site")
    return _build(project, project / "site")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the small project, with all of `_LINKS` on one page."""
    project = tmp_path_factory.mktemp("small")
    built = _small(project, "".join(f"\n{written}\n" for written, _ in _LINKS.values()))
    assert built.returncode == 0, built.stderr
    return project / "site"


@pytest.mark.parametrize("kind", _LINKS)
def test_what_a_code_host_renders_works_in_the_site(small: Path, kind: str) -> None:
    assert _LINKS[kind][1] in (small / "how-to" / "page.html").read_text()


def test_what_a_page_shows_or_links_to_comes_along(small: Path) -> None:
    assert (small / "images" / "console" / "batches.png").is_file()
    assert (small / "src" / "code.py").read_text() == "code = 1\n"
    assert '<a href="../how-to/page.html#two-words">Page</a>' in (small / "model" / "index.html").read_text()


def test_links_to_nowhere_stop_the_build(tmp_path: Path) -> None:
    built = _small(tmp_path, "".join(f"\n[a]({target})\n" for target in _BROKEN))
    assert built.returncode == 1
    assert [target for target in _BROKEN if target.rpartition("/")[2] not in built.stderr] == []
