"""One Chromium for all tests of this folder. Without one they are skipped, but not in CI."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Browser, sync_playwright

from browser.scene import ADMIN, Scene, served
from browser.window import AXE, HANDS, Hand, Window

CHROMIUM = Path("/usr/bin/chromium")
Opening: TypeAlias = Callable[..., Window]
Used: TypeAlias = tuple[Window, Hand]


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server of a team, with batches. Tests may add to it, and change what they added."""
    with served(tmp_path_factory.mktemp("scene")) as found:
        yield found


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The browser. Windows come from `opening`."""
    if not CHROMIUM.exists() and not os.environ.get("CI"):
        pytest.skip("there is no Chromium; `make system` installs it")
    assert AXE.exists(), "run `make console-tools`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def opening(chromium: Browser, scene: Scene) -> Opening:
    """`with opening(key) as window:` a window of somebody who has logged in with a key, or with "" has not."""
    sessions: dict[tuple[str, str], Any] = {}

    def open_one(key: str = ADMIN, *, url: str = scene.url, **options: Any) -> Window:
        if not key:
            return Window(chromium, url, **options)
        if (key, url) not in sessions:
            with Window(chromium, url) as window:
                window.log_in(key)
                sessions[key, url] = window.context.storage_state()
        return Window(chromium, url, storage_state=sessions[key, url], **options)

    return open_one


@pytest.fixture(params=HANDS)
def hand(request: pytest.FixtureRequest, opening: Opening) -> Iterator[Used]:
    """A window of the admin, and what is used on it."""
    with opening(java_script_enabled="script" not in request.param) as window:
        yield window, window.hand(request.param)
