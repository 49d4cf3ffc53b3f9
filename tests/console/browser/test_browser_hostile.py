"""Texts that mean harm, and more of everything than anybody wants: nothing of it runs, and no page breaks."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ended import ended, errored, message, succeeded
from playwright.sync_api import Page, expect

from browser.conftest import Opening
from browser.scene import run
from browser.window import HEIGHT, NARROW, Window
from overnight import ids, limits
from overnight.ids import BatchId
from overnight.ports.world import World
from overnight.store.sqlite import connect
from overnight.store.store import open_directory
from overnight.testing.observed import ObservedServer, observed_server
from overnight.testing.wireclient import params, request
from overnight.wire.create import Request

ROWS = BATCHES = 100_000
BATCH_EVERY_MS = 20_000  # All of them within 24 days, so that upkeep archives none.
_RUN = "window.canary=1;alert(document.domain)"
HARM = {
    "script": f"<script>{_RUN}</script>",
    "close": f"</textarea></pre></title></style><script>{_RUN}</script>",
    "image": f"<img src=x onerror='{_RUN}'><body onload={_RUN}>",
    "event": f'" autofocus onfocus="{_RUN}" x=\'{_RUN}\'',
    "link": f"<a href='javascript:{_RUN}' id=x>click</a> javascript:{_RUN}",
    "svg": f"<svg onload='{_RUN}'><animate onbegin='{_RUN}' attributeName=x dur=1s><use href='data:,x#y'/></svg>",
    "frame": f"<iframe srcdoc='<script>parent.{_RUN}</script>'></iframe><object data='data:text/html,x'></object>",
    "base": "<base href='https://evil.example/'><meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "style": "<style>*{display:none}</style><link rel=stylesheet href='https://evil.example/x.css'>",
    "template": "{{7*7}} {% for x in ().__class__.__mro__ %}{{x}}{% endfor %} ${7*7} #{7*7} <%= 7*7 %>",
    "entity": "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    "bidi": "begin \u202egnp.exe\u202c \u2066\u2067end\u2069 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 "
    * 40,
    "zero": "a\u200bb\u200cc\u200dd\ufeffe\u2060f\u00adg" * 300,
    "control": "nul\x00 bell\x07 escape\x1b[31m vertical\x0b delete\x7f next\x85 line\u2028 paragraph\u2029",
    "marks": "Z" + "\u0301" * 3_000,
    "long": "W" * (1024 * 1024),
    "long-lines": "\n".join("x" * 5_000 for _ in range(50)),
    "x" * 64: "an id as long as it may be",
}
PLAIN = ("script", "close", "image", "event", "link", "svg", "frame", "base", "style", "template", "entity")


def _answer(item: Request) -> bytes:
    harm = HARM[item.custom_id]
    if item.custom_id in ("script", "bidi", "close"):
        return errored(item, "api_error", harm)
    blocks: list[dict[str, Any]] = [
        {"type": "text", "text": harm},
        {"type": "thinking", "thinking": harm[:2_000], "signature": ""},
        {"type": "tool_use", "id": harm[:100], "name": harm[:100], "input": {harm[:100]: harm[:2_000]}},
        {"type": harm[:100]},
    ]
    return succeeded(item, harm, **{**message(), "content": blocks, "model": harm[:200], "stop_reason": harm[:200]})


def _ask(name: str, harm: str) -> dict[str, object]:
    tool = {"name": "harm", "description": harm[:1_000], "input_schema": {"type": "object"}}
    return {"custom_id": name, "params": params(harm, system=harm[:2_000], tools=[tool], model=harm[:200])}


class Hostile:
    """A server with the batches below, and no keys."""

    def __init__(self, server: ObservedServer, harm: BatchId, rows: BatchId) -> None:
        self.url, self.harm, self.rows = server.url, harm, rows
        self.newest = _id(BATCHES - 1)


_NOW_MS = int(time.time() * 1000)


def _at_ms(number: int) -> int:
    return _NOW_MS - (BATCHES - number) * BATCH_EVERY_MS


def _id(number: int) -> BatchId:
    return ids.batch_id(_at_ms(number), number.to_bytes(ids.BATCH_ID_ENTROPY_BYTES, "big"))


def _insert(data: Path) -> None:
    rows = (
        (_id(n), ids.DEFAULT_WORKSPACE, _at_ms(n), _at_ms(n) + limits.DAY_MS, _at_ms(n) + 5_000)
        for n in range(BATCHES)
    )
    with closing(connect(data / "control.sqlite3")) as sql:
        sql.execute("BEGIN")
        sql.executemany(
            "INSERT INTO batches (id, workspace, api_version, betas, status, requests, segments_open, succeeded, "
            "created_at_ms, expires_at_ms, ended_at_ms) VALUES (?, ?, '', '', 'ended', 1, 0, 1, ?, ?, ?)",
            rows,
        )
        sql.execute("COMMIT")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    data = tmp_path_factory.mktemp("hostile") / "data"

    async def make() -> tuple[BatchId, BatchId]:
        async with open_directory(data, World()) as store:
            harm = await ended(store, [_ask(*item) for item in HARM.items()], _answer)
            many = [request(f"r{number}", f"question {number}") for number in range(ROWS)]
            return harm, await ended(store, many, lambda item: succeeded(item, f"answer to {item.custom_id}"))

    harm, rows = run(make)
    _insert(data)
    with observed_server(data, "--engine", "http://127.0.0.1:9") as server:
        yield Hostile(server, harm, rows)


@pytest.fixture
def window(opening: Opening, hostile: Hostile) -> Iterator[Window]:
    with opening("", url=hostile.url) as found:
        found.context.add_init_script(
            "window.addEventListener('securitypolicyviolation', e => console.error(e.blockedURI))"
        )
        yield found


def _unharmed(window: Window, where: str) -> Page:
    """Nothing ran, and the page can be read and left in both widths."""
    page = window.page
    for width in (NARROW, 1440):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        window.check_width(where)
    assert page.evaluate("typeof canary") == "undefined"
    assert page.locator("base, iframe, object, embed, main script, main style, main link, svg animate").count() == 0
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !/^on/.test(a.name)))"
    )
    assert page.evaluate("[...document.links].every(link => link.protocol === location.protocol)")
    expect(page.get_by_role("navigation", name="Main").get_by_role("link", name="Batches")).to_be_visible()
    return page


def test_rows_that_mean_harm_are_text(window: Window, hostile: Hostile) -> None:
    for name, harm in HARM.items():
        window.go(f"/console/batches/{hostile.harm}/results/{name}")
        page = _unharmed(window, name)
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        if name in PLAIN:
            assert page.locator("pre.text", has_text=harm).count() >= 1, name
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Batches").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Batches")


@pytest.mark.parametrize("path", ["", "/results", "/results?type=errored", "/retry", "/delete"])
def test_a_batch_that_means_harm_is_text(path: str, window: Window, hostile: Hostile) -> None:
    window.go(f"/console/batches/{hostile.harm}{path}")
    page = _unharmed(window, path)
    if path == "":
        expect(page.locator("#causes")).to_contain_text(HARM["script"])
    if path.startswith("/results"):
        assert page.locator("tbody tr").count() >= 3
    window.picture(f"hostile{path.partition('?')[0].replace('/', '-')}")


def test_what_turns_the_direction_of_texts_is_named_and_turns_nothing(window: Window, hostile: Hostile) -> None:
    page = window.go(f"/console/batches/{hostile.harm}/results/bidi")
    said = page.locator("main").inner_text()
    assert "[U+202E]" in said
    assert not {*said} & {*"\u202a\u202b\u202d\u202e\u2066\u2067\u2068"}
    page = window.go(f"/console/batches/{hostile.harm}")
    assert not {*page.locator("main").inner_text()} & {*"\u202a\u202b\u202d\u202e\u2066\u2067\u2068"}


@pytest.mark.parametrize(
    "field", ["/console/batches?id=", "/console/batches?status=", "/console/batches/", "/console/login?next="]
)
def test_links_that_mean_harm_lead_to_text(field: str, window: Window) -> None:
    window.expect(400, 404)
    for name in PLAIN:
        window.go(field + quote(HARM[name], safe=""))
        _unharmed(window, f"{field} {name}")
        assert window.page.url.startswith(f"{window.url}/console/")


def test_searches_that_mean_harm_stay_what_was_typed(window: Window, hostile: Hostile) -> None:
    page = window.go(f"/console/batches/{hostile.harm}/results")
    for name in (*PLAIN, "bidi"):
        sought = f"{HARM[name][: limits.SEARCH_TEXT_CHARACTERS_MAX - 1].strip()}!"
        for label in ("Text in the answer", "Error type"):
            page.get_by_label(label).fill(sought)
        _show(page)
        expect(page.get_by_text("No row is like that.")).to_be_visible()
        _unharmed(window, name)
        for label in ("Text in the answer", "Error type"):
            expect(page.get_by_label(label)).to_have_value(sought)


# --- Very many ------------------------------------------------------------------------------------------------------


def _rows(page: Page) -> list[str]:
    return page.locator("tbody th[scope=row]").all_inner_texts()


def _follow(page: Page, name: str) -> None:
    with page.expect_navigation():
        page.get_by_role("link", name=name, exact=True).click()


def _show(page: Page) -> None:
    with page.expect_navigation():
        page.get_by_role("button", name="Show", exact=True).click()


def test_100_000_rows_are_pages_that_can_be_walked_and_searched(window: Window, hostile: Hostile) -> None:
    page = window.go(f"/console/batches/{hostile.rows}/results")
    first = _rows(page)
    assert len(first) == limits.ROWS_PAGE
    _follow(page, "Next page")
    assert len({*first, *_rows(page)}) == 2 * limits.ROWS_PAGE
    page.get_by_label("Text in the answer").fill(f"answer to r{ROWS - 1}")
    _show(page)
    while not _rows(page):
        _follow(page, "Search on")
    assert _rows(page) == [f"r{ROWS - 1}"]
    page.get_by_role("link", name=f"r{ROWS - 1}").click()
    expect(page.locator("pre.text", has_text=f"answer to r{ROWS - 1}")).to_be_visible()
    _unharmed(window, "many rows")


def test_100_000_batches_are_pages_that_can_be_walked_and_filtered(window: Window, hostile: Hostile) -> None:
    page = window.go("/console/batches")
    newest = _rows(page)
    assert newest[:2] == [hostile.rows, hostile.harm] or newest[:2] == [hostile.newest, _id(BATCHES - 2)]
    assert len(newest) == limits.CONSOLE_BATCHES
    _follow(page, "Older")
    older = _rows(page)
    assert len({*newest, *older}) == 2 * limits.CONSOLE_BATCHES
    _follow(page, "Newer")
    assert _rows(page) == newest
    page.get_by_label("Id, or how it begins").fill(_id(50_000))
    _show(page)
    expect(page.locator("tbody tr")).to_have_count(1)
    assert _rows(page) == [_id(50_000)]
    page.get_by_label("Status").select_option("in_progress")
    _show(page)
    expect(page.get_by_text("No batch is like that.")).to_be_visible()
    _unharmed(window, "many batches")
