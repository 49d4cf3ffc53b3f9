"""What mkdocs is told about our pages, so that the same Markdown reads well here and at a code host.

Pages lie in `docs/` and beside it, and link to files of the repository. A file outside of `docs/` that a page links
to comes along: Markdown as a page, any other as it is. So no link needs the address of a repository.
https://www.mkdocs.org/dev-guide/plugins/#events
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

_INDEX = "README.md"
_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^ *```")
_CODE = re.compile(r"`[^`]*`")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of `docs/`, those that the navigation names beside it, and what they link to."""
    root = _root(config)
    config.nav = [_expanded(item, config) for item in config.nav or []]
    named = {name for name in _names(config.nav) if not (root / "docs" / name).exists()}
    waiting = [root / name for name in sorted(named)]
    waiting += [Path(file.abs_src_path or "") for file in files.documentation_pages()]
    seen = set[Path]()
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        name = _uri(page, root)
        if files.get_file_from_path(name) is None:
            place = InclusionLevel.INCLUDED if name in named else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, name, abs_src_path=str(page), inclusion=place))
        if page.suffix == ".md":
            linked = (page.parent / found["path"] for _, found in _links(page.read_text(encoding="utf-8")))
            waiting += [there.resolve() for there in linked if there.is_file()]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with its links as the site has them."""
    lines = markdown.splitlines(keepends=True)
    source = Path(page.file.abs_src_path or "")
    for number, line in _prose(markdown):
        lines[number] = _LINK.sub(lambda found: _rewritten(found, source, page.file, _root(config)), line)
        if line.startswith("|"):  # A code host wants \| for | in code of a table; here it would be shown.
            lines[number] = _CODE.sub(lambda found: found[0].replace("\\|", "|"), lines[number])
    return "".join(lines)


def _rewritten(found: re.Match[str], source: Path, page: File, root: Path) -> str:
    there = (source.parent / found["path"]).resolve()
    if there.is_dir():
        return found["text"]
    if not there.exists():
        return found[0]  # The strict build says where it is.
    path = os.path.relpath(_uri(there, root), os.path.dirname(page.src_uri))
    return f"[{found['text']}]({Path(path).as_posix()}{found['anchor'] or ''})"


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).resolve().parent


def _uri(file: Path, root: Path) -> str:
    """Where a file of the repository is in the site."""
    below = root / "docs" if file.is_relative_to(root / "docs") else root
    return file.relative_to(below).as_posix()


def _prose(markdown: str) -> Iterator[tuple[int, str]]:
    is_code = False
    for number, line in enumerate(markdown.splitlines(keepends=True)):
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code:
            yield number, line


def _links(markdown: str) -> Iterator[tuple[int, re.Match[str]]]:
    return ((number, found) for number, line in _prose(markdown) for found in _LINK.finditer(line))


def _expanded(item: Any, config: MkDocsConfig) -> Any:
    """An item of the navigation with pages in the place of folders."""
    if isinstance(item, dict):
        return {title: _expanded(inner, config) for title, inner in item.items()}
    if isinstance(item, list):
        return [_expanded(inner, config) for inner in item]
    return _pages(item, config) if item.endswith("/") else item


def _pages(folder: str, config: MkDocsConfig) -> list[str]:
    docs = _root(config) / "docs"
    named = [found["path"] for _, found in _links((docs / _INDEX).read_text(encoding="utf-8"))]
    found = sorted(file.relative_to(docs).as_posix() for file in (docs / folder).rglob("*.md"))
    return sorted(found, key=lambda name: named.index(name) if name in named else len(named))


def _names(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _names(item)
