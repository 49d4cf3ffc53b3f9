"""What changes on a page while somebody looks at it, and what does not."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from browser.conftest import Opening
from browser.scene import Scene, asked
from browser.window import Keyboard, Window
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import WireClient

_LOOK_MS = 3_100  # A page looks again within this time.
_TEXTS = ("one", "two", "three", "four", "five")


class Sleeping:
    """A server without keys whose engine is not there yet."""

    def __init__(self, server: ObservedServer, port: int) -> None:
        self.server, self.port = server, port

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    def batch(self) -> str:
        """The id of a batch that waits for the engine."""
        with closing(WireClient(self.url)) as client:
            return str(client.create([asked(f"r{n}", text) for n, text in enumerate(_TEXTS)])["id"])

    def work(self, batch_id: str) -> None:
        """Let the engine come, and go when the batch has ended."""
        with upstream_process("--port", str(self.port)), closing(WireClient(self.url)) as client:
            self.server.wait_ended(client, batch_id)


@pytest.fixture
def sleeping(tmp_path: Path) -> Iterator[Sleeping]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with observed_server(tmp_path / "data", "--engine", f"http://127.0.0.1:{port}") as server:
        yield Sleeping(server, port)


def _tile(page: Page, label: str) -> Locator:
    return page.locator(".tile", has=page.get_by_text(label, exact=True)).locator("dd")


def _mark(page: Page) -> None:
    page.evaluate("window.isSameDocument = true")


def _is_same(page: Page) -> bool:
    return bool(page.evaluate("window.isSameDocument === true"))


def _look(window: Window) -> None:
    window.page.clock.run_for(_LOOK_MS)


def test_a_batch_that_waits_says_why_and_ends_before_ones_eyes(opening: Opening, sleeping: Sleeping) -> None:
    batch_id = sleeping.batch()
    with opening("", url=sleeping.url) as window:
        window.page.clock.install()
        page = window.go(f"/console/batches/{batch_id}")
        expect(page.locator(".why")).to_contain_text("Why it waits:")
        expect(page.locator("#progress .headline")).to_contain_text("0 of 5 requests done, 0 %")
        window.picture("batch-waiting")
        _mark(page)
        Keyboard(window).reach(page.get_by_role("link", name="Results so far"))
        sleeping.work(batch_id)
        _look(window)
        expect(page.locator("#progress .headline")).to_contain_text("5 of 5 requests done, 100 %")
        expect(_tile(page, "Succeeded")).to_have_text("5")
        expect(page.locator(".why")).to_have_count(0)
        expect(page.locator("#timeline")).to_contain_text("Ended")
        expect(page.get_by_role("link", name="Results", exact=True)).to_be_focused()
        expect(page.locator("#announcer")).to_have_text("The batch has ended: 5 succeeded, 0 did not.")
        assert _is_same(page)


def test_focus_moves_to_the_content_when_what_had_it_is_gone(opening: Opening, sleeping: Sleeping) -> None:
    batch_id = sleeping.batch()
    with opening("", url=sleeping.url) as window:
        window.page.clock.install()
        page = window.go(f"/console/batches/{batch_id}")
        Keyboard(window).reach(page.get_by_role("link", name="Cancel"))
        sleeping.work(batch_id)
        _look(window)
        expect(page.get_by_role("link", name="Cancel")).to_have_count(0)
        expect(page.locator("#content")).to_be_focused()
        Keyboard(window).reach(page.get_by_role("link", name="Delete"))


def test_the_list_counts_before_ones_eyes_and_keeps_the_focus(opening: Opening, sleeping: Sleeping) -> None:
    batch_id = sleeping.batch()
    with opening("", url=sleeping.url) as window:
        window.page.clock.install()
        page = window.go("/console/batches")
        row = page.locator("tbody tr", has_text=batch_id)
        expect(row).to_contain_text("in progress")
        _mark(page)
        Keyboard(window).reach(page.get_by_role("link", name=batch_id))
        sleeping.work(batch_id)
        _look(window)
        expect(row.locator(".status")).to_contain_text("ended")
        expect(row.get_by_role("img")).to_have_attribute("aria-label", "5 of 5 done")
        expect(page.get_by_role("link", name=batch_id)).to_be_focused()
        assert _is_same(page)


def test_what_somebody_types_is_not_swept_away(opening: Opening, sleeping: Sleeping) -> None:
    batch_id = sleeping.batch()
    with opening("", url=sleeping.url) as window:
        window.page.clock.install()
        page = window.go("/console/batches")
        Keyboard(window).type(page.get_by_label("Id, or how it begins"), "msgbatch_01a")
        sleeping.work(batch_id)
        _look(window)
        expect(page.locator("tbody tr .status")).to_contain_text("ended")
        expect(page.get_by_label("Id, or how it begins")).to_have_value("msgbatch_01a")
        expect(page.get_by_label("Id, or how it begins")).to_be_focused()


def test_an_engine_that_comes_is_seen_to_come(opening: Opening, sleeping: Sleeping) -> None:
    batch_id = sleeping.batch()
    with opening("", url=sleeping.url) as window:
        window.page.clock.install()
        page = window.go("/console/engines")
        card = page.get_by_role("listitem").filter(has_text=str(sleeping.port))
        expect(page.locator("#waiting")).to_contain_text("claude-haiku-4-5")
        expect(card.locator(".status")).not_to_contain_text("has room")
        window.picture("engines-away")
        _mark(page)
        with upstream_process("--port", str(sleeping.port)), closing(WireClient(sleeping.url)) as client:
            sleeping.server.wait_ended(client, batch_id)
            _look(window)
            expect(card.locator(".status")).to_contain_text("has room")
        expect(page.locator("#waiting")).to_contain_text("Nothing")
        assert _is_same(page)


def test_a_server_that_is_gone_is_said_and_so_is_its_return(opening: Opening, scene: Scene) -> None:
    with opening() as window:
        window.page.clock.install()
        page = window.go(f"/console/batches/{scene.made['running']}")
        said = page.locator("#announcer")
        window.context.set_offline(True)
        _look(window)
        expect(said).to_have_text("The server cannot be reached. What you see may be old.")
        window.context.set_offline(False)
        page.clock.run_for(2 * _LOOK_MS)
        expect(said).to_have_text("The server is back.")
        assert [trouble for trouble in window.troubles if "ERR_INTERNET_DISCONNECTED" not in trouble] == []
        window.troubles.clear()


def test_a_page_whose_session_is_over_leads_to_the_login_by_itself(opening: Opening, scene: Scene) -> None:
    with opening() as window:
        window.page.clock.install()
        page = window.go(f"/console/batches/{scene.made['running']}")
        window.context.clear_cookies()
        _look(window)
        expect(page).to_have_title("Log in · overnight")
        assert page.url.endswith(f"next=%2Fconsole%2Fbatches%2F{scene.made['running']}")


def test_times_are_those_of_the_reader_and_utc_is_a_glance_away(opening: Opening, scene: Scene) -> None:
    path = f"/console/batches/{scene.made['mixed']}"
    with (
        opening(timezone_id="Asia/Tokyo") as far,
        opening(timezone_id="Asia/Tokyo", java_script_enabled=False) as plain,
    ):
        shown = far.go(path).locator("#timeline time").first
        at = shown.get_attribute("datetime")
        assert at is not None
        assert shown.get_attribute("title") == at
        expect(plain.go(path).locator("#timeline time").first).to_have_text(f"{at[:16].replace('T', ' ')} UTC")
        hour = (int(at[11:13]) + 9) % 24
        half = "AM" if hour < 12 else "PM"
        expect(shown).to_have_text(re.compile(rf"\b{hour % 12 or 12}:{at[14:16]}\s{half}$"))
