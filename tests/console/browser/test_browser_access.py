"""Keys, workspaces, hooks and usage, by mouse and by keyboard, with our script and without."""

import csv
import re
from pathlib import Path

import pytest
from playwright.sync_api import Error, Locator, Page, expect

from browser.conftest import Opening, Used
from browser.scene import TEAM, Scene
from browser.window import HANDS, Hand, Window
from overnight.testing.observed import observed_server


def _link(page: Page, name: str) -> Locator:
    return page.get_by_role("link", name=name, exact=True)


def _button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def _row(page: Page, name: str) -> Locator:
    return page.locator("tr", has=page.get_by_text(name, exact=True))


def _made(window: Window, kind: str) -> str:
    """The secret that is shown, with what is around it looked at."""
    page = window.page
    secret = page.locator("#secret").inner_text()
    copy = page.locator("button[data-copy]")
    if window.has_script:
        window.check_both(f"{kind}-made")
        window.context.grant_permissions(["clipboard-read", "clipboard-write"])
        copy.click()
        expect(copy).to_have_text("Copied")
        expect(page.locator("#announcer")).to_have_text("Copied.")
        assert page.evaluate("navigator.clipboard.readText()") == secret
    else:
        expect(copy).to_be_hidden()  # It would do nothing.
    return secret


def _new_key(window: Window, using: Hand, name: str) -> str:
    page = window.go("/console/keys")
    using.follow(_link(page, "New key"))
    using.type(page.get_by_label("Name"), name)
    using.choose(page.get_by_label("Workspace"), "Sales")
    using.follow(_button(page, "Make the key"))
    return _made(window, "key")


# --- Keys -----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_shown_once_used_and_revoked(hand: Used, opening: Opening, scene: Scene) -> None:
    window, using = hand
    page, name = window.page, scene.name("pipeline")
    key = _new_key(window, using, name)
    assert re.fullmatch(r"sk-ant-\S{80,}", key) or key.startswith("sk-"), "it looks as keys do"
    using.follow(_link(page, "I have it: back to the keys"))
    assert key not in page.content()
    expect(_row(page, name)).to_contain_text("open")
    with opening("") as other:
        other.page.clock.install()
        other.log_in(key)
        expect(other.page.get_by_text(f"Workspace Sales with key {name}")).to_be_visible()
        using.follow(_row(page, name).get_by_role("link", name=f"Revoke {name}"))
        using.follow(_button(page, "Revoke the key"))
        expect(_row(page, name)).to_contain_text("revoked")
        other.page.clock.run_for(3_100)  # The page looks again by itself.
        expect(other.page).to_have_title("Log in · overnight")
        other.expect(401)
        other.page.get_by_label("API key").fill(key)
        other.page.get_by_role("button", name="Log in").click()
        expect(other.page.get_by_role("alert")).to_have_text("This key opens nothing here.")


def test_a_key_that_is_shown_once_is_not_shown_by_going_back(opening: Opening, scene: Scene) -> None:
    with opening() as window:
        _new_key(window, window.hand("mouse"), scene.name("once"))
        page = window.page
        page.get_by_role("link", name="I have it: back to the keys").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Keys and limits")
        with pytest.raises(Error, match="ERR_CACHE_MISS"):  # The browser has not kept the page.
            page.go_back()


def test_a_mistake_in_the_form_of_a_key_is_said_beside_its_field(hand: Used) -> None:
    window, using = hand
    window.expect(400)
    page = window.go("/console/keys/new")
    using.type(page.get_by_label("Name"), "nightly")
    using.date(page.get_by_label("Last day (UTC)"), "2020-02-03")
    using.follow(_button(page, "Make the key"))
    field = page.get_by_label("Last day (UTC)")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("that is over"))
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    expect(page.get_by_label("Name")).to_have_value("nightly")
    if window.has_script:
        window.check_both("key-wrong")


def test_a_key_is_rotated_and_both_open_for_a_while(hand: Used, opening: Opening, scene: Scene) -> None:
    window, using = hand
    page, name = window.page, scene.name("rotated")
    old = _new_key(window, using, name)
    using.follow(_link(page, "I have it: back to the keys"))
    using.follow(_row(page, name).get_by_role("link", name=f"Rotate {name}"))
    using.choose(page.get_by_label("The old key still opens"), "one hour")
    using.follow(_button(page, "Make the new key"))
    new = _made(window, "rotated")
    assert new != old
    for key in (old, new):
        with opening("") as other:
            other.log_in(key)


@pytest.mark.parametrize("kind", HANDS)
def test_the_first_key_closes_the_door_behind_who_made_it(kind: str, opening: Opening, tmp_path: Path) -> None:
    with (
        observed_server(tmp_path / "data", "--engine", "http://127.0.0.1:9") as server,
        opening("", url=server.url, java_script_enabled="script" not in kind) as window,
    ):
        using = window.hand(kind)
        page = window.go("/console/keys")
        expect(page.get_by_text("There are no keys yet.")).to_be_visible()
        if window.has_script:
            window.check_both("keys-none")
        using.follow(_link(page, "New key"))
        expect(page.get_by_role("status").first).to_contain_text("This is the first key")
        using.type(page.get_by_label("Name"), "first")
        using.follow(_button(page, "Make the key"))
        key = page.locator("#secret").inner_text()
        using.follow(_link(page, "I have it: back to the keys"))
        expect(page).to_have_title("Log in · overnight")
        using.type(page.get_by_label("API key"), key)
        using.follow(_button(page, "Log in"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Keys and limits")
        expect(_row(page, "first")).to_contain_text("yours")


# --- Workspaces -----------------------------------------------------------------------------------------------------


def test_a_workspace_is_made_its_rules_changed_and_it_is_archived(hand: Used, scene: Scene) -> None:
    window, using = hand
    name = scene.name("Night shift")
    page = window.go("/console/keys")
    using.follow(_link(page, "New workspace"))
    using.type(page.get_by_label("Name"), name)
    using.type(page.get_by_label("USD a day"), "12.50")
    using.type(page.get_by_label("Models"), "claude-*")
    using.follow(_button(page, "Make the workspace"))
    row = page.locator("#workspaces tr", has=page.get_by_text(name, exact=True))
    expect(row).to_contain_text("USD a day: 12.5")
    using.follow(_link(page, f"Edit rules of {name}"))
    expect(page.get_by_label("Models")).to_have_value("claude-*")
    using.type(page.get_by_label("Requests a minute"), "many")
    window.expect(400)
    using.follow(_button(page, "Save the rules"))
    expect(page.get_by_label("Requests a minute")).to_have_accessible_description(re.compile("A whole number"))
    expect(page.get_by_label("Requests a minute")).to_have_value("many")
    using.type(page.get_by_label("Requests a minute"), "600")
    using.follow(_button(page, "Save the rules"))
    expect(row).to_contain_text("Requests a minute: 600")
    using.follow(_link(page, f"Archive {name}"))
    using.tick(page.get_by_role("checkbox"))
    using.follow(_button(page, "Archive the workspace"))
    expect(row).to_contain_text("archived")


def test_an_ordinary_key_sees_its_own_limits_and_changes_nothing(opening: Opening) -> None:
    with opening(TEAM) as window:
        page = window.go("/console/keys")
        expect(page.get_by_role("heading", level=2).first).to_have_text("Your workspace, Sales")
        expect(page.locator("main")).to_contain_text("USD a day")
        expect(page.locator("main")).not_to_contain_text("Research")
        assert page.locator("main form, main .button").count() == 0
        window.expect(403)
        for path in ("keys/new", "keys/apikey_Ada/revoke", "keys/workspaces/wrkspc_01research/edit"):
            page = window.go(f"/console/{path}")
            expect(page.get_by_role("heading", level=1)).to_have_text("Not allowed")
            expect(page.locator("main")).not_to_contain_text("Ada")


# --- Hooks ----------------------------------------------------------------------------------------------------------


def test_a_hook_is_made_tried_and_deleted(hand: Used, scene: Scene) -> None:
    window, using = hand
    url = f"{scene.receiver}/{scene.name('a').replace(' ', '-')}"
    page = window.go("/console/hooks")
    using.follow(_link(page, "New hook"))
    using.type(page.get_by_label("URL"), url)
    using.tick(page.get_by_role("checkbox", name=re.compile("budget")))
    using.follow(_button(page, "Make the hook"))
    secret = _made(window, "hook")
    assert secret.startswith("whsec_")
    using.follow(_button(page, "Send a test"))
    expect(page.get_by_role("heading", level=1)).to_have_text("The test was taken")
    expect(page.locator("main")).to_contain_text("HTTP 204")
    if window.has_script:
        window.check_both("hook-tested")
    using.follow(_link(page, "Back to the hooks"))
    assert secret not in page.content()
    row = page.locator("#hooks tr", has=page.get_by_text(url, exact=True))
    expect(row).to_contain_text("batch.ended")
    expect(row).not_to_contain_text("budget.reached")
    using.follow(_link(page, f"Delete the hook to {url}"))
    using.tick(page.get_by_role("checkbox"))
    using.follow(_button(page, "Delete the hook"))
    expect(row).to_have_count(0)


def test_a_hook_that_leads_nowhere_says_so_when_it_is_tried(hand: Used, scene: Scene) -> None:
    window, using = hand
    page = window.go("/console/hooks")
    using.follow(_button(page, f"Send a test to {scene.receiver}/broken"))
    expect(page.get_by_role("heading", level=1)).to_have_text("The test was not taken")
    expect(page.locator("main")).to_contain_text("HTTP 503")


def test_a_delivery_shows_its_body_and_is_sent_again(hand: Used, scene: Scene) -> None:
    window, using = hand
    page = window.go("/console/hooks")
    using.follow(_link(page, f"Deliveries to {scene.receiver}/broken"))
    row = page.locator("#deliveries tbody tr").first
    expect(row).to_contain_text("batch.ended")
    expect(row).to_contain_text("503")
    expect(row.locator("pre")).to_be_hidden()
    using.press(row.locator("summary"))
    expect(row.locator("pre")).to_contain_text('"type": "batch.ended"')
    delivery = row.locator("th div").inner_text()
    using.follow(_button(page, f"Send again {delivery}"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Hooks")


def test_a_hook_that_cannot_be_is_said_beside_its_field(hand: Used) -> None:
    window, using = hand
    window.expect(400)
    page = window.go("/console/hooks/new")
    using.type(page.get_by_label("URL"), "ftp://example.com/batches")
    using.follow(_button(page, "Make the hook"))
    expect(page.get_by_label("URL")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("URL")).to_have_value("ftp://example.com/batches")


# --- Usage ----------------------------------------------------------------------------------------------------------


def test_usage_is_shown_as_asked_and_the_file_says_the_same(hand: Used) -> None:
    window, using = hand
    page = window.go("/console/usage")
    expect(page.get_by_role("img", name=re.compile("by model and day"))).to_be_visible()
    using.choose(page.get_by_label("Show", exact=True), "Requests")
    using.choose(page.get_by_label("By", exact=True), "workspace")
    using.follow(_button(page, "Show"))
    expect(page.locator("#groups tbody th")).to_contain_text(["Research", "Sales"])
    shown = dict(
        zip(
            page.locator("#groups tbody th").all_inner_texts(),
            page.locator("#groups tbody td:nth-of-type(1)").all_inner_texts(),
            strict=True,
        )
    )
    with page.expect_download() as waiting:
        using.press(_link(page, "Download CSV"))
    with waiting.value.path().open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, int] = {}
    for row in rows:
        found[row["workspace"]] = found.get(row["workspace"], 0) + int(row["requests"])
    assert {name: int(text.replace(",", "")) for name, text in shown.items()} == found
    assert found["Sales"] == 6


def test_a_range_of_usage_is_one_press_away(hand: Used) -> None:
    window, using = hand
    page = window.go("/console/usage")
    ranges = page.get_by_role("navigation", name="How far back")
    for name in ranges.get_by_role("link").all_inner_texts():
        using.follow(ranges.get_by_role("link", name=name, exact=True))
        expect(ranges.locator("[aria-current]")).to_have_text(name)


def test_the_usage_of_others_is_not_shown(opening: Opening) -> None:
    with opening(TEAM) as window:
        page = window.go("/console/usage?show=requests")
        expect(page.locator(".tile", has_text="Requests").locator("dd").first).to_have_text("6")
        window.expect(400)
        for query in ("by=workspace", "workspace=wrkspc_01research"):
            page = window.go(f"/console/usage?{query}")
            expect(page.locator("main")).not_to_contain_text("Research")
            expect(page.locator(".tile", has_text="Requests").locator("dd").first).to_have_text("6")
