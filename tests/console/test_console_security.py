"""What the console refuses: foreign forms, foreign names, foreign batches, and texts that would be markup."""

import asyncio
import re
from pathlib import Path

import pytest
from desk import OURS, THEIRS, URL, Browser, Desk, keys, on_desk
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from overnight import limits
from overnight.core.retry import Refused
from overnight.errors import StoreError
from overnight.server.config import Settings
from overnight.server.console import assets
from overnight.server.console.guard import guarded
from overnight.testing.engines import Fate, ScriptedEngine, answered

TWO_KEYS = Settings(keys=keys(ours=OURS, theirs=THEIRS))
NO_KEYS = Settings()
HARM = "</td><script>alert(1)</script><img src=x onerror=alert(2)>'\"{{ 7*7 }}\u202e\x1b[0m"
_INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:", re.IGNORECASE)
_ATTRIBUTES = re.compile(r"<[a-z][^>]*>", re.IGNORECASE)


async def _status(desk: Desk, batch_id: str, workspace: str) -> str:
    found = await desk.store.control.batch(workspace, batch_id)  # type: ignore[arg-type]
    assert found is not None
    return found.status


# --- Forms ----------------------------------------------------------------------------------------------------------

FORGED = [
    pytest.param({}, {}, 403, id="no token"),
    pytest.param({"token": ""}, {}, 403, id="empty token"),
    pytest.param({"token": "0" * 64}, {}, 403, id="wrong token"),
    pytest.param({"token": "é\ud83d\ude00"}, {}, 403, id="odd token"),
    pytest.param({"token": "of another"}, {}, 403, id="token of another session"),
    pytest.param({"token": "own"}, {"sec-fetch-site": "cross-site"}, 403, id="cross-site"),
    pytest.param({"token": "own"}, {"sec-fetch-site": "same-site"}, 403, id="same-site"),
    pytest.param({"token": "own"}, {"sec-fetch-site": "none"}, 403, id="none"),
    pytest.param({"token": "own"}, {"origin": "https://evil.example"}, 403, id="foreign origin"),
    pytest.param({"token": "own"}, {"origin": "null"}, 403, id="no origin"),
    pytest.param({"token": "own"}, {"origin": "http://127.0.0.1:9999"}, 403, id="another port"),
    pytest.param({"token": "own"}, {"content-type": "application/json"}, 400, id="JSON"),
    pytest.param({"token": "own"}, {"content-type": "text/plain"}, 400, id="text"),
]
GENUINE = [
    pytest.param({}, id="an old browser"),
    pytest.param({"origin": URL, "sec-fetch-site": "same-origin"}, id="a new browser"),
]


@pytest.mark.parametrize("settings", [TWO_KEYS, NO_KEYS], ids=["with keys", "without"])
@pytest.mark.parametrize(("fields", "headers", "status"), FORGED)
def test_a_form_that_is_not_ours_changes_nothing(
    fields: dict[str, str], headers: dict[str, str], status: int, settings: Settings, tmp_path: Path
) -> None:
    async def body(desk: Desk) -> None:
        browser, other, batch_id = await _two_browsers(desk, settings)
        path = f"/console/batches/{batch_id}/cancel"
        tokens = {"own": await browser.token(path), "of another": await _any_token(other, settings)}
        sent = {name: tokens.get(value, value).encode("utf-8", "surrogatepass") for name, value in fields.items()}
        answer = await browser.send("POST", path, sent, headers=headers)  # type: ignore[arg-type]
        assert (answer.status, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert await _status(desk, batch_id, OURS if settings.keys else "wrkspc_01default") == "in_progress"

    on_desk(body, tmp_path, settings)


@pytest.mark.parametrize("settings", [TWO_KEYS, NO_KEYS], ids=["with keys", "without"])
@pytest.mark.parametrize("headers", GENUINE)
def test_a_form_of_ours_does_what_it_says(headers: dict[str, str], settings: Settings, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser, _, batch_id = await _two_browsers(desk, settings)
        path = f"/console/batches/{batch_id}/cancel"
        answer = await browser.send("POST", path, {"token": await browser.token(path)}, headers=headers)
        assert answer.status == 303
        assert await _status(desk, batch_id, OURS if settings.keys else "wrkspc_01default") == "canceling"

    on_desk(body, tmp_path, settings)


async def _two_browsers(desk: Desk, settings: Settings) -> tuple[Browser, Browser, str]:
    if not settings.keys:
        return desk.browser(), desk.browser(), await desk.batch()
    return await desk.logged_in("ours"), await desk.logged_in("theirs"), await desk.batch(workspace=OURS)


async def _any_token(browser: Browser, settings: Settings) -> str:
    if settings.keys:
        return await browser.token("/console/batches")
    page = await browser.get("/console/batches")
    batch_id = page.texts("code")[0]
    return await browser.token(f"/console/batches/{batch_id}/cancel")


def test_a_get_never_changes_anything(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch()
        for path in ("cancel", "delete"):
            await desk.browser().get(f"/console/batches/{batch_id}/{path}?confirm=yes")
        assert await _status(desk, batch_id, "wrkspc_01default") == "in_progress"

    on_desk(body, tmp_path)


def test_a_form_beyond_its_bounds_is_refused(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = desk.browser()
        large = await browser.send("POST", "/console/login", {"key": "x" * limits.CONSOLE_FORM_BYTES_MAX})
        assert large.status == 413
        assert b"<h1>Too large</h1>" in large.body
        many = await browser.send(
            "POST", "/console/login", [(f"a{number}", "") for number in range(limits.CONSOLE_FORM_FIELDS_MAX + 1)]
        )
        assert many.status == 400
        fits = [(f"a{number}", "") for number in range(limits.CONSOLE_FORM_FIELDS_MAX)]
        assert (await browser.send("POST", "/console/login", fits)).status == 403  # Read, and without a token.

    on_desk(body, tmp_path)


# --- Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "settings", "status"),
    [
        pytest.param({"host": "127.0.0.1:8642"}, {}, 200, id="127.0.0.1"),
        pytest.param({"host": "localhost"}, {}, 200, id="localhost"),
        pytest.param({"host": "LOCALHOST:1"}, {}, 200, id="capitals"),
        pytest.param({"host": "[::1]:8642"}, {}, 200, id="IPv6"),
        pytest.param({"host": "evil.example"}, {}, 403, id="rebound"),
        pytest.param({"host": "evil.example:8642"}, {}, 403, id="rebound with port"),
        pytest.param({"host": "localhost.evil.example"}, {}, 403, id="alike"),
        pytest.param({"host": "127.0.0.1.evil.example"}, {}, 403, id="alike address"),
        pytest.param({"host": "evil.example@127.0.0.1"}, {}, 200, id="user"),
        pytest.param({"host": "[127.0.0.1"}, {}, 403, id="broken"),
        pytest.param({"host": ""}, {}, 403, id="empty"),
        pytest.param({"host": "192.0.2.1"}, {}, 403, id="another address"),
        pytest.param({"host": "127.0.0.1", "x-forwarded-host": "evil.example"}, {}, 403, id="rebound behind a proxy"),
        pytest.param({"host": "night.example"}, {"public_url": "https://night.example"}, 200, id="public_url"),
        pytest.param({"host": "evil.example"}, {"public_url": "https://night.example"}, 403, id="not public_url"),
        pytest.param({"host": "evil.example"}, {"keys": keys(ours=OURS)}, 303, id="keys"),
        pytest.param({"host": "[127.0.0.1"}, {"keys": keys(ours=OURS)}, 303, id="keys and a broken name"),
    ],
)
def test_without_keys_only_names_of_this_machine_are_answered(
    headers: dict[str, str], settings: dict[str, object], status: int, tmp_path: Path
) -> None:
    async def body(desk: Desk) -> None:
        answer = await desk.browser().send("GET", "/console/batches", headers=headers)
        assert answer.status == status
        if status == 403:
            assert b"public_url" in answer.body
            assert "set-cookie" not in answer.headers

    on_desk(body, tmp_path, Settings(**settings))  # type: ignore[arg-type]


def test_a_link_on_another_site_keeps_the_session(tmp_path: Path) -> None:
    """Browsers send no SameSite=Strict cookie along such a link: a new one in the answer would log somebody out."""

    async def body(desk: Desk) -> None:
        path = "/console/batches?id=%22%3E%3Cscript%3E"
        answer = await desk.browser().send("GET", path, headers={"sec-fetch-site": "cross-site"})
        assert answer.status == 200
        assert "set-cookie" not in answer.headers
        assert b'content="0; url=/console/batches?id=%22%3E%3Cscript%3E"' in answer.body

    on_desk(body, tmp_path, TWO_KEYS)


def test_behind_a_prefix_every_link_has_it(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch()
        for path in ("batches", f"batches/{batch_id}", f"batches/{batch_id}/cancel", "engines"):
            page = (await desk.browser().send("GET", f"/console/{path}")).body.decode()
            links = re.findall(r'(?:href|src|action)="([^"]*)"', page)
            assert len(links) > 8
            assert [link for link in links if not link.startswith(("/night/console/", "#"))] == []

    on_desk(body, tmp_path, Settings(public_url="http://127.0.0.1:8642/night"))


# --- What others have -----------------------------------------------------------------------------------------------


def test_a_batch_of_another_workspace_does_not_exist(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        theirs, none = await desk.batch(workspace=THEIRS), "msgbatch_01" + "a" * 22
        browser = await desk.logged_in("ours")
        token = await browser.token("/console/batches")
        for way in ("", "/cancel", "/delete", "/results", "/retry", "/download"):
            pages = [await browser.send("GET", f"/console/batches/{name}{way}") for name in (theirs, none)]
            assert [answer.status for answer in pages] == [404, 404], way
            assert _anonymous(pages[0].body, theirs) == _anonymous(pages[1].body, none)
        for way in ("cancel", "delete"):
            fields = {"token": token, "confirm": "yes"}
            assert (await browser.send("POST", f"/console/batches/{theirs}/{way}", fields)).status == 404
        assert await _status(desk, theirs, THEIRS) == "in_progress"

    on_desk(body, tmp_path, TWO_KEYS)


def _anonymous(body: bytes, batch_id: str) -> str:
    return re.sub(r"req_\w+", "req", body.decode().replace(batch_id, "ID"))


def test_the_list_of_a_workspace_is_its_own(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, theirs = await desk.batch(workspace=OURS), await desk.batch(workspace=THEIRS)
        browser = await desk.logged_in("ours")
        for query in (
            "",
            "?status=in_progress",
            f"?id={theirs}",
            f"?id={ours[:15]}",
            f"?after={theirs}",
            f"?before={theirs}",
            "?from=2026-05-28",
        ):
            page = await browser.get(f"/console/batches{query}")
            assert theirs not in page.texts("code"), query
            assert page.has_link(ours) is (query != f"?id={theirs}"), query

    on_desk(body, tmp_path, TWO_KEYS)


# --- Texts ----------------------------------------------------------------------------------------------------------


def test_hostile_texts_are_texts(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        failed = await desk.batch(["refused", "fine"], model=HARM)
        await desk.work_until_idle()
        desk.here.fleet.pools[0].last_trouble = HARM
        waits = await desk.batch(["later"], model=HARM)
        desk.here.worker.troubles[f"segment of {waits}"] = HARM
        browser, found = desk.browser(), 0
        for path in (
            "batches",
            f"batches/{failed}",
            f"batches/{waits}",
            "engines",
            "batches?id=%3Cscript%3Ealert(1)%3C/script%3E",
            "%3Cscript%3E",
        ):
            source = (await browser.send("GET", f"/console/{path}")).body.decode()
            assert "<script>alert" not in source, path
            assert "<img src=x" not in source, path
            assert "\x1b" not in source, path
            assert "\u202e" not in source, path
            assert ">49" not in source, path
            assert [tag for tag in _ATTRIBUTES.findall(source) if _INLINE.search(tag)] == [], path
            found += source.count("&lt;script&gt;alert(1)")
        assert found >= 6

    def script(text: str, call: int) -> Fate:
        refused = Refused(status=400, type="invalid_request_error", message=HARM)
        return Fate(refused if text == "refused" else answered(text))

    on_desk(body, tmp_path, None, ScriptedEngine(script, name=f"http://{HARM}"))


def test_every_answer_binds_the_browser(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch()
        browser = desk.browser()
        paths = ("batches", f"batches/{batch_id}", f"batches/{batch_id}/cancel", "engines", "login", "nothing", "")
        answers = [await browser.send("GET", f"/console/{path}") for path in paths]
        answers.append(await browser.send("POST", "/console/login", {"token": "wrong"}))
        answers.append(await browser.send("GET", "/console/batches", headers={"host": "evil.example"}))
        for answer in answers:
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; ")
            assert "unsafe" not in policy
            assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} <= set(policy.split("; "))
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert _INLINE.search(answer.body.decode()) is None

    on_desk(body, tmp_path)


def test_files_are_kept_for_good_under_names_of_their_content(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = desk.browser()
        for name, url_name in assets.URL_NAMES.items():
            answer = await browser.send("GET", f"/console/static/{url_name}")
            assert answer.body == (Path(assets.__file__).with_name("static") / name).read_bytes()
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["x-content-type-options"] == "nosniff"
        for name in (
            "console.css",
            "..%2fguard.py",
            "../guard.py",
            "%2e%2e/guard.py",
            "console.000000000000.css",
            "",
        ):
            assert (await browser.send("GET", f"/console/static/{name}")).status == 404, name

    on_desk(body, tmp_path)


# --- Errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "title"),
    [
        ("GET", "/console/nothing", 404, "Not found"),
        ("GET", "/console/batches/msgbatch_01nothing123", 404, "Not found"),
        ("GET", "/console/batches/%00", 404, "Not found"),
        ("PUT", "/console/batches", 405, "Not possible here"),
        ("DELETE", "/console/engines", 405, "Not possible here"),
        ("GET", "/console/logout", 405, "Not possible here"),
    ],
)
def test_errors_are_pages(method: str, path: str, status: int, title: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = desk.browser()
        token = await browser.token(f"/console/batches/{await desk.batch()}/cancel")
        answer = await browser.send(method, path, None if method == "GET" else {"token": token})
        assert (answer.status, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert f"<h1>{title}</h1>".encode() in answer.body
        assert answer.headers["request-id"].encode() in answer.body

    on_desk(body, tmp_path)


@pytest.mark.parametrize(
    "error", [StoreError("disk I/O error at /secret/place"), RuntimeError("ours, with a sk-ant-key")]
)
def test_what_breaks_is_in_the_log_and_not_on_the_page(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(http_request: HttpRequest) -> Response:
        raise error

    async def body(desk: Desk) -> None:
        served = desk.served
        assert isinstance(served, Starlette)
        served.router.routes.insert(0, Route("/console/broken", guarded(broken)))
        answer = await desk.browser().send("GET", "/console/broken")
        assert answer.status == 500
        assert b"<h1>Something broke</h1>" in answer.body
        assert str(error).encode() not in answer.body
        assert str(error) in caplog.text

    on_desk(body, tmp_path)


def test_a_page_that_is_given_up_is_no_mistake_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(desk: Desk) -> None:
        async def endless(http_request: HttpRequest) -> Response:
            await asyncio.Event().wait()
            raise AssertionError

        desk.served.router.routes.insert(0, Route("/console/endless", guarded(endless)))
        asking = asyncio.ensure_future(desk.browser().send("GET", "/console/endless"))
        for _ in range(20):
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert caplog.text == ""

    on_desk(body, tmp_path)
