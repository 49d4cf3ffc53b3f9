"""How a key becomes a session at the console, and when that ends."""

import re
from pathlib import Path

import pytest
from desk import OURS, T0, THEIRS, Browser, Desk, keys, on_desk

from overnight import limits
from overnight.server.config import Settings
from overnight.server.console.routes import CONSOLE_ROUTES

COOKIE = "overnight-console"
TWO_KEYS = Settings(keys=keys(ours=OURS, theirs=THEIRS))


def _paths(wanted: str) -> list[str]:
    """Each page of a method, with something in the place of what varies."""
    paths = [path for method, path, _ in CONSOLE_ROUTES if method == wanted]
    return [re.sub(r"{\w+}", "msgbatch_01abcdefghij", path) for path in paths]


GETS, POSTS = _paths("GET"), _paths("POST")


async def _is_in(browser: Browser) -> bool:
    answer = await browser.send("GET", "/console/batches")
    assert answer.status in (200, 303), answer
    return answer.status == 200


@pytest.mark.parametrize("path", ["/console", "/console/nothing", *GETS])
def test_a_page_without_a_session_leads_to_the_login_and_knows_the_way_back(path: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        answer = await desk.browser().send("GET", f"{path}?a=b")
        assert answer.status == 303
        assert answer.headers["location"] == f"/console/login?next={path.replace('/', '%2F')}%3Fa%3Db"

    on_desk(body, tmp_path, TWO_KEYS)


@pytest.mark.parametrize("path", POSTS)
def test_a_form_without_a_session_is_a_401_for_people(path: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        answer = await desk.browser().send("POST", path, {"token": "x"})
        assert answer.status == 401
        assert answer.headers["content-type"] == "text/html; charset=utf-8"

    on_desk(body, tmp_path, TWO_KEYS)


def test_a_key_opens_its_workspace(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        page = await (await desk.logged_in("ours")).get("/console/batches")
        assert page.status == 200
        assert page.texts("bdi")[0] == OURS

    on_desk(body, tmp_path, TWO_KEYS)


@pytest.mark.parametrize("key", ["", "wrong", "OURS", "ours\x00", "é" * 300])
def test_another_key_opens_nothing_and_is_not_shown_again(key: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = desk.browser()
        answer = await browser.post("/console/login", {"key": key})
        assert answer.status == 401
        assert b"This key opens nothing here." in answer.body
        assert not key or f'value="{key}"'.encode() not in answer.body
        assert not await _is_in(browser)

    on_desk(body, tmp_path, TWO_KEYS)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("/console/engines", "/console/engines"),
        ("/console/batches?status=ended&id=x", "/console/batches?status=ended&id=x"),
        *(
            (path, "/console/batches")
            for path in (
                "",
                "/",
                "/v1/messages/batches",
                "//evil.example/console/",
                "https://evil.example/console/",
                "/console",
                "/\\evil.example",
                "/console/\\..\\..",
                "/console/../v1/models",
                "/console/%2e%2E/v1/models",
                "javascript:alert(1)",
                "/console/\r\nset-cookie: a=b",
                "/console/\tx",
                "/consoleevil/",
                "///console/",
            )
        ),
    ],
)
def test_a_login_leads_only_to_pages_of_the_console(wanted: str, got: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        answer = await desk.browser().post("/console/login", {"key": "ours", "next": wanted})
        assert (answer.status, answer.headers["location"]) == (303, got)

    on_desk(body, tmp_path, TWO_KEYS)


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        key = await desk.add_key("mine", OURS)
        browser, other = await desk.logged_in("mine"), await desk.logged_in("theirs")
        assert await _is_in(browser)
        await desk.store.access.revoke_key(key.id, now_ms=T0)
        await desk.here.doors.refresh(desk.store.access)
        assert not await _is_in(browser)
        assert await _is_in(other)

    on_desk(body, tmp_path, TWO_KEYS)


def test_a_session_ends_when_its_workspace_is_archived(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await desk.add_key("mine", OURS)
        browser = await desk.logged_in("mine")
        await desk.store.access.archive_workspace(OURS, now_ms=T0)
        await desk.here.doors.refresh(desk.store.access)
        assert not await _is_in(browser)

    on_desk(body, tmp_path, TWO_KEYS)


def test_a_session_ends_after_twelve_hours(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("ours")
        desk.clock.at_ms = T0 + limits.CONSOLE_SESSION_MS - 1
        assert await _is_in(browser)
        desk.clock.at_ms = T0 + limits.CONSOLE_SESSION_MS
        assert not await _is_in(browser)

    on_desk(body, tmp_path, TWO_KEYS)


@pytest.mark.parametrize(
    ("after", "is_in"), [(TWO_KEYS, True), (Settings(keys=keys(new=OURS)), False)], ids=["same", "replaced"]
)
def test_a_session_outlives_a_restart_but_not_its_key_in_the_settings(
    after: Settings, is_in: bool, tmp_path: Path
) -> None:
    cookies: list[str] = []

    async def before(desk: Desk) -> None:
        browser = await desk.logged_in("ours")
        cookies.append(browser.client.cookies[COOKIE])

    async def later(desk: Desk) -> None:
        answer = await desk.browser().send("GET", "/console/batches", headers={"cookie": f"{COOKIE}={cookies[0]}"})
        assert (answer.status == 200) is is_in

    on_desk(before, tmp_path, TWO_KEYS)
    on_desk(later, tmp_path, after)


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda parts: [*parts[:3], "0" * 64], id="signature"),
        pytest.param(lambda parts: ["settings-2", *parts[1:]], id="key"),
        pytest.param(lambda parts: [parts[0], str(int(parts[1]) + 1), *parts[2:]], id="later"),
        pytest.param(lambda parts: [*parts[:2], "nonce", parts[3]], id="nonce"),
        pytest.param(lambda parts: parts[:3], id="short"),
        pytest.param(lambda parts: [*parts, "x"], id="long"),
        pytest.param(lambda parts: [parts[0], "-1", *parts[2:]], id="number"),
        pytest.param(lambda parts: [parts[0], "²", *parts[2:]], id="digit"),
        pytest.param(lambda parts: ["x" * 9000, *parts[1:]], id="huge"),
    ],
)
def test_a_cookie_that_we_did_not_write_is_no_session(forge: object, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        parts = (await desk.logged_in("ours")).client.cookies[COOKIE].split(".")
        for cookie, status in ((parts, 200), (forge(parts), 303)):  # type: ignore[operator]
            headers = {"cookie": f"{COOKIE}={'.'.join(cookie)}".encode("latin-1")}
            assert (await desk.browser().send("GET", "/console/batches", headers=headers)).status == status

    on_desk(body, tmp_path, TWO_KEYS)


@pytest.mark.parametrize(
    ("headers", "settings", "flags"),
    [
        pytest.param({}, {}, {"Path=/console", "HttpOnly", "SameSite=strict"}, id="http"),
        pytest.param(
            {"x-forwarded-proto": "https"}, {}, {"Path=/console", "HttpOnly", "SameSite=strict", "Secure"}, id="proxy"
        ),
        pytest.param(
            {"x-forwarded-proto": "https"},
            {"trusted_proxies": []},
            {"Path=/console", "HttpOnly", "SameSite=strict"},
            id="no proxy of ours",
        ),
        pytest.param(
            {},
            {"public_url": "https://x.example/night"},
            {"Path=/night/console", "HttpOnly", "SameSite=strict", "Secure"},
            id="public_url",
        ),
    ],
)
def test_a_session_is_for_the_console_of_this_site_only(
    headers: dict[str, str], settings: dict[str, object], flags: set[str], tmp_path: Path
) -> None:
    async def body(desk: Desk) -> None:
        answer = await desk.browser().send("GET", "/console/login", headers=headers)
        found = {part.strip() for part in answer.headers["set-cookie"].split(";")[1:]}
        assert {part for part in found if not part.lower().startswith("max-age")} == flags
        assert f"Max-Age={limits.CONSOLE_SESSION_MS // 1000}" in found

    on_desk(body, tmp_path, Settings(keys=keys(ours=OURS), **settings))  # type: ignore[arg-type]


def test_nobody_can_prepare_the_session_of_somebody_else(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = desk.browser()
        prepared = await browser.token()
        before = browser.client.cookies[COOKIE]
        await browser.log_in("ours")
        assert browser.client.cookies[COOKIE].split(".")[2] != before.split(".")[2]
        assert (await browser.send("POST", "/console/logout", {"token": prepared})).status == 403
        assert await _is_in(browser)

    on_desk(body, tmp_path, TWO_KEYS)


def test_who_logs_out_is_out(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("ours")
        assert (await browser.post("/console/logout")).headers["location"] == "/console/login"
        assert not await _is_in(browser)

    on_desk(body, tmp_path, TWO_KEYS)


def test_who_is_in_is_not_asked_again(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        answer = await (await desk.logged_in("ours")).send("GET", "/console/login?next=/console/engines")
        assert (answer.status, answer.headers["location"]) == (303, "/console/engines")

    on_desk(body, tmp_path, TWO_KEYS)


async def _attempts(browser: Browser, number: int, **headers: str) -> list[int]:
    token = await browser.token()
    fields = {"token": token, "key": "wrong"}
    return [(await browser.send("POST", "/console/login", fields, headers=headers)).status for _ in range(number)]


def test_attempts_from_one_address_are_limited(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        most = limits.CONSOLE_LOGINS_PER_MINUTE
        guesser = desk.browser(address="192.0.2.1")
        assert await _attempts(guesser, most + 1) == [401] * most + [429]
        refused = await guesser.post("/console/login", {"key": "ours"})
        assert (refused.status, refused.headers["retry-after"]) == (429, "6")
        assert b"<h1>Too many attempts</h1>" in refused.body
        assert await _attempts(desk.browser(address="192.0.2.2"), 1) == [401]
        desk.clock.at_ms += 6_000
        await guesser.log_in("ours")

    on_desk(body, tmp_path, TWO_KEYS)


def test_behind_our_proxy_the_address_that_it_saw_is_counted(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        most = limits.CONSOLE_LOGINS_PER_MINUTE
        browser = desk.browser()
        told = {"x-forwarded-for": "198.51.100.7, 192.0.2.1"}
        assert await _attempts(browser, most + 1, **told) == [401] * most + [429]
        assert await _attempts(browser, 1, **{"x-forwarded-for": "203.0.113.9, 192.0.2.1"}) == [429]
        assert await _attempts(browser, 1, **{"x-forwarded-for": "192.0.2.1, 192.0.2.2"}) == [401]
        outside = desk.browser(address="192.0.2.3")
        assert await _attempts(outside, most, **told) == [401] * most

    on_desk(body, tmp_path, TWO_KEYS)


def test_the_root_leads_people_to_the_console_and_programs_to_a_hint(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        person = await desk.browser().send("GET", "/", headers={"accept": "text/html,*/*"})
        assert (person.status, person.headers["location"]) == (303, "console")
        program = await desk.browser().send("GET", "/", headers={"accept": "application/json"})
        assert program.status == 404
        assert b"The API begins at /v1, the console at /console." in program.body

    on_desk(body, tmp_path, TWO_KEYS)
