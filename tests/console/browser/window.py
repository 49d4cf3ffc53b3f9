"""A window of Chromium that forgives nothing, and two hands to use it with: a mouse, and a keyboard without one.

A window remembers whatever a user should never see: errors in the console of the browser (violations of the content
security policy are among them), mistakes of our script, dialogs, a status of 400 or more that the test did not ask
for, and requests to anything but the server it looks at.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page, Request, Response

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "build" / "console"
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
AXE_TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
WIDE, NARROW = 1440, 360  # CSS pixels.
HEIGHT = 900
IS_LONG = bool(os.environ.get("OVERNIGHT_LONG"))  # Every page in both schemes, every action by every hand.
HANDS = ("keyboard", "mouse", "mouse without script") if IS_LONG else ("keyboard",)
_PATIENCE_MS = 20_000
_TABS_MAX = 150  # No page has more stops.

# What has the focus: where it is, whether that can be seen, and whether it is inside what is shown.
_FOCUS = """() => {
  const found = document.activeElement, style = getComputedStyle(found), box = found.getBoundingClientRect();
  const seen = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")];
  return {
    name: `${found.tagName} ${found.id || found.textContent.trim().slice(0, 40)}`,
    is_body: found === document.body,
    is_marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    is_inside: box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth && box.width > 0,
    number: seen.indexOf(found),
  };
}"""


class Window:
    """One visitor with cookies of its own. As a context it closes at the end, and fails if anything was wrong."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(
            base_url=url,
            **{"viewport": {"width": WIDE, "height": HEIGHT}, "locale": "en-US", "timezone_id": "UTC", **options},
        )
        self.context.set_default_timeout(_PATIENCE_MS)
        self.has_script = bool(options.get("java_script_enabled", True))
        self.troubles: list[str] = []
        self.expected: set[int] = set()
        self.requests = 0
        self.context.on("request", self._on_request)
        self.page = self._watched(self.context.new_page())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.context.close()
        if error is None:
            assert self.troubles == []
            assert self.requests, "something was looked at"

    def expect(self, *statuses: int) -> None:
        """Let pages of these statuses be no trouble from now on."""
        self.expected |= set(statuses)

    def hand(self, kind: str) -> "Hand":
        """What is used on it: a mouse or a keyboard."""
        return Keyboard(self) if "keyboard" in kind else Mouse(self)

    def go(self, path: str) -> Page:
        """The page at a path of the server."""
        self.page.goto(path)
        return self.page

    def log_in(self, key: str) -> None:
        """Begin a session."""
        self.go("/console/login")
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url("**/console/batches")

    def check(self, where: str) -> None:
        """The page keeps WCAG 2.2 AA, as far as a program can tell, and its body does not scroll sideways."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        only = {"runOnly": {"type": "tag", "values": AXE_TAGS}, "resultTypes": ["violations"]}
        found = self.page.evaluate("only => axe.run(document, only)", only)
        said = [
            (item["id"], node["target"], node["failureSummary"])
            for item in found["violations"]
            for node in item["nodes"][:3]
        ]
        assert said == [], f"{where}: {json.dumps(said, indent=1)}"
        assert found["testEngine"]["name"] == "axe-core"
        self.check_width(where)

    def check_both(self, name: str) -> None:
        """What is shown, in both schemes and widths; kept as pictures."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            for width in (NARROW, WIDE):
                self.page.set_viewport_size({"width": width, "height": HEIGHT})
                self.picture(f"{name}-{scheme}-{width}")
                self.check_width(f"{name} at {width}")
            self.check(f"{name} in {scheme}")

    def check_width(self, where: str) -> None:
        """The body does not scroll sideways (WCAG 1.4.10, Reflow)."""
        inside, shown = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert inside <= shown, f"{where}: {inside} pixels in a window of {shown}"

    def picture(self, name: str) -> None:
        """Keep what is shown in build/console."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")

    def _watched(self, page: Page) -> Page:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.troubles.append(f"script: {error}"))
        page.on("dialog", self._on_dialog)
        page.on("response", self._on_response)
        page.on("popup", lambda popup: self.troubles.append(f"popup: {popup.url}"))
        return page

    def _on_request(self, request: Request) -> None:
        self.requests += 1
        if not request.url.startswith(f"{self.url}/console"):
            self.troubles.append(f"request: {request.url[:200]}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.troubles.append(f"status {response.status}: {response.url[:200]}")

    def _on_console(self, message: ConsoleMessage) -> None:
        is_status = message.text.startswith("Failed to load resource: the server responded with a status of")
        if message.type in ("error", "warning", "assert") and not is_status:  # Of a status see `_on_response`.
            self.troubles.append(f"console: {message.text[:300]}")

    def _on_dialog(self, dialog: Dialog) -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()


class Hand:
    """What both can do."""

    def __init__(self, window: Window) -> None:
        self.page = window.page

    def press(self, target: Locator) -> None:
        """A link or a button."""
        raise NotImplementedError

    def follow(self, target: Locator) -> None:
        """A link or a button that leads to another page, and that page is there."""
        with self.page.expect_navigation():
            self.press(target)

    def enter(self) -> None:
        """The form of the field that has the focus is sent, and its answer is there."""
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")


class Mouse(Hand):
    """A hand on a mouse."""

    def press(self, target: Locator) -> None:
        target.click()

    def type(self, target: Locator, text: str) -> None:
        """A text in the place of what is in a field."""
        target.click()
        target.press("Control+A")
        self.page.keyboard.type(text)

    def choose(self, target: Locator, label: str) -> None:
        """One of a list."""
        target.select_option(label=label)

    def tick(self, target: Locator) -> None:
        """A box."""
        target.click()

    def date(self, target: Locator, day: str) -> None:
        """A day such as 2026-11-25."""
        target.fill(day)


class Keyboard(Hand):
    """Hands on a keyboard, and no mouse: whatever is used is reached with Tab, and is seen to have the focus."""

    def reach(self, target: Locator) -> None:
        """Go on with Tab until this has the focus."""
        seen: list[str] = []
        for _ in range(_TABS_MAX):
            self.page.keyboard.press("Tab")
            focus = self.page.evaluate(_FOCUS)
            if focus["is_body"]:
                continue  # The bar of the browser had its turn.
            assert focus["is_marked"], f"nobody sees that {focus['name']} has the focus"
            assert focus["is_inside"], f"{focus['name']} has the focus and is not shown"
            seen.append(focus["name"])
            if target.evaluate("found => found === document.activeElement"):
                return
        raise AssertionError(f"{target} is not among the stops of Tab: {seen}")

    def press(self, target: Locator) -> None:
        self.reach(target)
        self.page.keyboard.press("Enter")

    def type(self, target: Locator, text: str) -> None:
        """A text in the place of what is in a field."""
        self.reach(target)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def choose(self, target: Locator, label: str) -> None:
        """One of a list, by its first letters."""
        self.reach(target)
        self.page.keyboard.type(label)

    def tick(self, target: Locator) -> None:
        """A box."""
        self.reach(target)
        self.page.keyboard.press("Space")

    def date(self, target: Locator, day: str) -> None:
        """A day such as 2026-11-25, as an American types it."""
        self.reach(target)
        year, month, rest = day.split("-")
        self.page.keyboard.type(f"{month}{rest}{year}")
