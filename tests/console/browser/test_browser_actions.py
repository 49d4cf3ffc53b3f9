"""Everything that can be done with batches, by mouse and by keyboard, with our script and without."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from playwright.sync_api import Locator, Page, expect

from browser.conftest import Opening, Used
from browser.scene import ADMIN, MIXED, TEAM, Scene
from browser.window import HANDS, Hand, Keyboard
from overnight.testing.wireclient import BATCHES


def _link(page: Page, name: str) -> Locator:
    return page.get_by_role("link", name=name, exact=True)


def _button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def _shown(page: Page) -> list[str]:
    """What the rows of the first table are about."""
    return page.locator("tbody th[scope=row]").all_inner_texts()


def _tile(page: Page, label: str) -> str:
    return page.locator(".tile", has=page.get_by_text(label, exact=True)).locator("dd").inner_text()


# --- Coming and going -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HANDS)
def test_somebody_logs_in_after_a_mistake_and_out_again(kind: str, opening: Opening) -> None:
    with opening("", java_script_enabled="script" not in kind) as window:
        hand = window.hand(kind)
        page = window.go("/console/engines")
        expect(page).to_have_title("Log in · overnight")
        window.expect(401)
        hand.type(page.get_by_label("API key"), "sk-a-wrong-one")
        hand.follow(_button(page, "Log in"))
        expect(page.get_by_role("alert")).to_have_text("This key opens nothing here.")
        expect(page.get_by_label("API key")).to_have_attribute("aria-describedby", "said")
        expect(page.get_by_label("API key")).to_have_value("")
        hand.type(page.get_by_label("API key"), ADMIN)
        hand.follow(_button(page, "Log in"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Engines")  # Where they wanted to go.
        expect(page.get_by_text("Workspace Research with key Ada")).to_be_visible()
        hand.follow(_button(page, "Log out"))
        expect(page).to_have_title("Log in · overnight")
        window.go("/console/batches")
        expect(page).to_have_title("Log in · overnight")


def test_the_first_stop_of_a_page_skips_to_its_content(hand: Used, scene: Scene) -> None:
    window, using = hand
    if isinstance(using, Keyboard):
        page = window.go(f"/console/batches/{scene.made['mixed']}")
        page.keyboard.press("Tab")
        skip = _link(page, "Skip to content")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport(ratio=0.99)
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_label("Where you are").get_by_role("link", name="Batches")).to_be_focused()
    else:
        page = window.go("/console/batches")
        expect(_link(page, "Skip to content")).not_to_be_in_viewport()


def test_every_page_of_the_menu_is_one_press_away_and_says_that_it_is_shown(hand: Used) -> None:
    window, using = hand
    page = window.go("/console/batches")
    for name in ("Engines", "Batches"):
        menu = page.get_by_role("navigation", name="Main").get_by_role("link", name=name, exact=True)
        using.follow(menu)
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.get_by_role("navigation", name="Main").locator("[aria-current=page]")).to_have_text(name)


# --- Looking --------------------------------------------------------------------------------------------------------


def test_batches_are_filtered_by_status_and_id(hand: Used, scene: Scene) -> None:
    window, using = hand
    page = window.go("/console/batches")
    using.choose(page.get_by_label("Status"), "ended")
    using.follow(_button(page, "Show"))
    assert scene.made["mixed"] in _shown(page)
    assert scene.made["running"] not in _shown(page)
    expect(page.get_by_label("Status")).to_have_value("ended")
    using.type(page.get_by_label("Id, or how it begins"), scene.made["fine"])
    using.enter()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert _shown(page) == [scene.made["fine"]]
    using.follow(_link(page, "Show all"))
    assert {*scene.made.values()} <= {*_shown(page)}


def test_batches_are_filtered_by_day(hand: Used, scene: Scene) -> None:
    window, using = hand
    page = window.go("/console/batches")
    using.date(page.get_by_label("Created from (UTC)"), "2020-02-03")
    using.date(page.get_by_label("to", exact=True), "2020-02-04")
    using.follow(_button(page, "Show"))
    expect(page.get_by_text("No batch is like that.")).to_be_visible()
    expect(page.get_by_label("Created from (UTC)")).to_have_value("2020-02-03")
    using.follow(_link(page, "Show all batches"))
    assert scene.made["mixed"] in _shown(page)


def test_results_are_filtered_searched_and_walked_through(hand: Used, scene: Scene) -> None:
    window, using = hand
    page = window.go(f"/console/batches/{scene.made['mixed']}")
    using.follow(_link(page, "Results"))
    using.choose(page.get_by_role("combobox", name="Result", exact=True), "errored")
    using.follow(_button(page, "Show"))
    expect(page.locator("tbody tr")).to_have_count(MIXED // 10)
    using.follow(_link(page, "Show all"))
    using.type(page.get_by_label("Text in the answer"), "TICKET 77 is")
    using.follow(_button(page, "Show"))
    expect(page.locator("tbody tr")).to_have_count(1)
    using.follow(_link(page, "ticket-0077"))
    expect(page.get_by_role("heading", level=1)).to_have_text("ticket-0077")
    expect(page.get_by_text("What is ticket 77 about?", exact=True)).to_be_visible()
    expect(page.locator("pre.text", has_text="Ticket 77 is about billing.")).to_be_visible()
    using.follow(_link(page, "Next row"))
    expect(page.get_by_role("heading", level=1)).not_to_have_text("ticket-0077")
    using.follow(_link(page, "Previous row"))
    expect(page.get_by_role("heading", level=1)).to_have_text("ticket-0077")
    using.follow(_link(page, "Results"))
    expect(page.get_by_label("Text in the answer")).to_have_value("TICKET 77 is")


def test_pages_of_results_hold_every_row_once(hand: Used, scene: Scene) -> None:
    window, using = hand
    page = window.go(f"/console/batches/{scene.made['mixed']}/results")
    seen = _shown(page)
    while _link(page, "Next page").count():
        first = _shown(page)[0]
        using.follow(_link(page, "Next page"))
        expect(page.locator("tbody th").first).not_to_have_text(first)
        seen += _shown(page)
    assert sorted(seen) == [f"ticket-{number:04}" for number in range(MIXED)]


def test_a_cause_leads_to_a_request_that_failed_by_it(hand: Used, scene: Scene) -> None:
    window, using = hand
    page = window.go(f"/console/batches/{scene.made['mixed']}")
    row = page.locator("#causes tr", has_text="The engine gave up")
    using.follow(row.get_by_role("link"))
    expect(page.locator("pre", has_text="The engine gave up")).to_be_visible()


# --- Doing ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_canceled_after_a_question(hand: Used, scene: Scene) -> None:
    window, using = hand
    batch_id = scene.batch("[[hang]]", "[[hang]]", waits=False)
    page = window.go(f"/console/batches/{batch_id}")
    using.follow(_link(page, "Cancel"))
    using.follow(_link(page, "Leave it running"))
    expect(page.locator("#progress .status")).to_contain_text("in progress")
    using.follow(_link(page, "Cancel"))
    using.follow(_button(page, "Cancel the batch"))
    expect(page.locator("#timeline")).to_contain_text("Cancel asked")
    with scene.client() as client:
        assert client.retrieve(batch_id)["cancel_initiated_at"] is not None


def test_a_batch_is_deleted_only_by_who_means_it(hand: Used, scene: Scene) -> None:
    window, using = hand
    batch_id = scene.batch("short")
    page = window.go(f"/console/batches/{batch_id}")
    using.follow(_link(page, "Delete"))
    box = page.get_by_role("checkbox", name="I want this batch and its results to be gone")
    using.press(_button(page, "Delete the batch"))  # The browser asks for the box, and sends nothing.
    expect(box).to_be_focused()
    assert box.evaluate("found => found.validity.valueMissing")
    if isinstance(using, Keyboard):
        page.keyboard.press("Space")
    else:
        using.tick(box)
    using.follow(_button(page, "Delete the batch"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Batches")
    assert batch_id not in _shown(page)
    with scene.client() as client:
        assert client.call("GET", f"{BATCHES}/{batch_id}").status == 404


def test_what_failed_is_asked_again_as_a_new_batch(hand: Used, scene: Scene) -> None:
    window, using = hand
    page = window.go(f"/console/batches/{scene.made['mixed']}")
    using.follow(_link(page, "Ask again what failed"))
    expect(page.get_by_role("checkbox", name="are errored (12)")).to_be_checked()
    using.tick(page.get_by_role("checkbox", name=re.compile(r"are expired \(3\)")))
    using.follow(_button(page, "Make the batch"))
    page.wait_for_url(re.compile(r"/console/batches/msgbatch_\w+$"))
    made = page.url.rpartition("/")[2]
    assert made not in scene.made.values()
    with scene.client() as client:
        scene.server.wait_ended(client, made)
        numbers = {int(name.rpartition("-")[2]) for name in client.results(made)}
    assert numbers == {number for number in range(MIXED) if number % 10 == 0}


# --- Downloads ------------------------------------------------------------------------------------------------------


def _saved(page: Page, using: Hand, target: Locator, folder: Path) -> tuple[str, Path]:
    with page.expect_download() as waiting:
        using.press(target)
    path = folder / "found"
    waiting.value.save_as(path)
    return waiting.value.suggested_filename, path


def _lines(scene: Scene) -> dict[str, Any]:
    with scene.client() as client:
        return client.results(scene.made["mixed"])


def test_what_is_downloaded_is_what_the_api_answers(hand: Used, scene: Scene, tmp_path: Path) -> None:
    window, using = hand
    batch_id, expected = scene.made["mixed"], _lines(scene)
    page = window.go(f"/console/batches/{batch_id}")
    name, path = _saved(page, using, _link(page, "Download JSONL"), tmp_path)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert name == f"{batch_id}.jsonl"
    assert {line["custom_id"]: line["result"] for line in lines} == expected
    using.follow(_link(page, "Results"))
    using.press(page.locator("summary", has_text="Download"))
    name, path = _saved(page, using, _link(page, "CSV"), tmp_path)
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    assert name == f"{batch_id}.csv"
    assert {row["custom_id"]: row["text"] for row in rows} == {key: _text(line) for key, line in expected.items()}
    name, path = _saved(page, using, _link(page, "Parquet"), tmp_path)
    with duckdb.connect() as connection:
        found = connection.read_parquet(str(path)).select("custom_id, text").fetchall()
    assert name == f"{batch_id}.parquet"
    assert {key: text or "" for key, text in found} == {key: _text(line) for key, line in expected.items()}


def _text(line: Any) -> str:
    return line["message"]["content"][0]["text"] if line["type"] == "succeeded" else ""


def test_a_key_of_another_workspace_sees_none_of_it(opening: Opening, scene: Scene) -> None:
    with opening(TEAM) as window:
        page = window.go("/console/batches")
        assert len(_shown(page)) == 1
        assert not {*_shown(page)} & {*scene.made.values()}
        window.expect(404)
        page = window.go(f"/console/batches/{scene.made['mixed']}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
        expect(page.get_by_role("alert")).not_to_contain_text("Research")
