"""Every page, in both schemes and two widths: nothing is wrong with it for those who see, listen or type."""

import pytest

from browser.conftest import Opening
from browser.scene import TEAM, Scene
from browser.window import HEIGHT, IS_LONG, NARROW, WIDE, Window

PAGES = {
    "batches": "/console/batches",
    "batches-none": "/console/batches?status=canceling&from=2020-01-01&to=2020-01-02",
    "batch": "/console/batches/{mixed}",
    "batch-fine": "/console/batches/{fine}",
    "batch-running": "/console/batches/{running}",
    "cancel": "/console/batches/{running}/cancel",
    "delete": "/console/batches/{fine}/delete",
    "results": "/console/batches/{mixed}/results",
    "results-none": "/console/batches/{mixed}/results?custom_id=nobody",
    "results-running": "/console/batches/{running}/results",
    "row": "/console/batches/{mixed}/results/ticket-0007",
    "row-errored": "/console/batches/{mixed}/results/ticket-0010",
    "retry": "/console/batches/{mixed}/retry",
    "engines": "/console/engines",
    "usage": "/console/usage",
    "usage-hours": "/console/usage?range=24h&show=requests&by=engine&per=hour",
    "usage-none": "/console/usage?from=2020-01-01&to=2020-01-02",
    "keys": "/console/keys",
    "key-new": "/console/keys/new",
    "key-revoke": "/console/keys/apikey_Sam/revoke",
    "key-rotate": "/console/keys/apikey_Sam/rotate",
    "workspace-new": "/console/keys/workspaces/new",
    "workspace-edit": "/console/keys/workspaces/wrkspc_01research/edit",
    "workspace-archive": "/console/keys/workspaces/wrkspc_01sales/archive",
    "hooks": "/console/hooks",
    "hook-new": "/console/hooks/new",
    "hook-delete": "/console/hooks/hook_01broken/delete",
}
FAILURES = {
    "failed-404": (404, "/console/batches/msgbatch_01nobody"),
    "failed-400": (400, "/console/batches?id=x"),
}
SCHEMES = ("light", "dark")


def _look(window: Window, path: str, name: str) -> None:
    """The page in both widths, kept as pictures. axe looks twice in one scheme: widths do not change colours."""
    page = window.go(path)
    for width in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        window.picture(f"{name}-{width}")
        if width == WIDE or name.endswith("light"):
            window.check(name)
        window.check_width(f"{name} at {width}")
    assert page.title().endswith(" · overnight")
    assert page.get_by_role("heading", level=1).count() == 1


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        (name, scheme)
        for number, name in enumerate(PAGES)
        for scheme in (SCHEMES if IS_LONG else SCHEMES[number % 2 :][:1])  # In turn, so that both are looked at.
    ],
)
def test_a_page_is_for_everybody(name: str, scheme: str, opening: Opening, scene: Scene) -> None:
    with opening(color_scheme=scheme) as window:
        _look(window, PAGES[name].format(**scene.made), f"{name}-{scheme}")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", FAILURES)
def test_a_page_that_says_what_went_wrong_is_for_everybody(name: str, scheme: str, opening: Opening) -> None:
    status, path = FAILURES[name]
    with opening(color_scheme=scheme) as window:
        window.expect(status)
        _look(window, path, f"{name}-{scheme}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_login_is_for_everybody(scheme: str, opening: Opening) -> None:
    with opening("", color_scheme=scheme) as window:
        _look(window, "/console/login", f"login-{scheme}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_an_ordinary_key_sees_of_keys_is_for_everybody(scheme: str, opening: Opening) -> None:
    with opening(TEAM, color_scheme=scheme) as window:
        _look(window, "/console/keys", f"keys-of-a-team-{scheme}")


@pytest.mark.parametrize("name", ["batches", "batch", "usage"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"forced_colors": "active"}, id="forced colours"),
        pytest.param({"reduced_motion": "reduce"}, id="reduced motion"),
        pytest.param({"contrast": "more"}, id="more contrast"),
    ],
)
def test_what_a_user_asks_of_the_browser_leaves_pages_whole(
    name: str, options: dict[str, str], opening: Opening, scene: Scene, request: pytest.FixtureRequest
) -> None:
    with opening(**options) as window:
        page = window.go(PAGES[name].format(**scene.made))
        window.picture(f"{name}-{request.node.callspec.id.rpartition('-')[0] or 'as asked'}".replace(" ", "-"))
        window.check_width(name)
        bars = page.locator("svg.bar rect:not(.rest)")
        if name != "usage":
            assert bars.first.evaluate("found => getComputedStyle(found).fill") not in ("none", "rgb(255, 255, 255)")
        if "reduced_motion" in options:
            assert page.evaluate("document.getAnimations().length") == 0


@pytest.mark.parametrize("name", ["batches", "batch", "results"])
def test_a_page_without_its_style_still_reads_in_order(name: str, opening: Opening, scene: Scene) -> None:
    with opening() as window:
        window.context.route("**/*.css", lambda route: route.fulfill(status=200, content_type="text/css", body=""))
        page = window.go(PAGES[name].format(**scene.made))
        said = page.locator("body").inner_text()
        assert said.index("Skip to content") < said.index("Batches") < said.index("Log out")
        assert page.get_by_role("heading", level=1).is_visible()
