"""What pages of other sites can make a browser do: nothing. Forms of the console: tests/console."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from desk import OURS, URL, Browser, Desk, keys, on_desk
from ended import ended, errored
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from strangers import with_a

from overnight.server.app import ROUTES
from overnight.server.config import Settings
from overnight.server.console.routes import CONSOLE_ROUTES, OPEN_ROUTES
from overnight.testing.engines import ScriptedEngine
from overnight.testing.wireclient import Answer, params, request

VERSION = {"anthropic-version": "2023-06-01"}
NO_KEYS, RELAXED = Settings(), Settings(strict_version=False)
PUBLIC = Settings(public_url="https://night.example")
CHANGING = [(method, path) for method, path, _ in ROUTES if method != "GET"]
OPEN = ("/health", "/ready", "/metrics", "/openapi.json")  # Of the operator: they change nothing.
READING = [(method, path) for method, path, _ in ROUTES if method == "GET" and path not in OPEN]

FOREIGN = [
    pytest.param({"content-type": "text/plain;charset=UTF-8"}, NO_KEYS, 400, id="no-cors"),
    pytest.param({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, RELAXED, 403, id="no-cors, relaxed"),
    pytest.param({**VERSION, "sec-fetch-site": "cross-site"}, NO_KEYS, 403, id="cross-site"),
    pytest.param({**VERSION, "sec-fetch-site": "same-site"}, NO_KEYS, 403, id="same-site: another port"),
    pytest.param({**VERSION, "origin": "https://evil.example"}, NO_KEYS, 403, id="an old browser"),
    pytest.param({"origin": "https://evil.example"}, RELAXED, 403, id="an old browser, relaxed"),
    pytest.param({**VERSION, "origin": "null"}, NO_KEYS, 403, id="a sandboxed frame"),
    pytest.param({**VERSION, "origin": "http://127.0.0.1:9999"}, NO_KEYS, 403, id="another port"),
    pytest.param({**VERSION, "host": "evil.example:8642"}, NO_KEYS, 403, id="rebound"),
    pytest.param(
        {**VERSION, "host": "evil.example:8642", "origin": "http://evil.example:8642"},
        NO_KEYS,
        403,
        id="rebound POST",
    ),
    pytest.param(
        {**VERSION, "host": "evil.example", "x-forwarded-host": "127.0.0.1"}, NO_KEYS, 403, id="rebound, forwarded"
    ),
    pytest.param({**VERSION, "x-forwarded-host": "evil.example"}, NO_KEYS, 403, id="rebound behind a proxy"),
    pytest.param({**VERSION, "host": "localhost.evil.example"}, NO_KEYS, 403, id="alike"),
    pytest.param({**VERSION, "host": "evil.example"}, PUBLIC, 403, id="rebound with public_url"),
    pytest.param({**VERSION, "host": "[::1"}, NO_KEYS, 403, id="half a name"),
    pytest.param({**VERSION, "host": ""}, NO_KEYS, 403, id="no name"),
]
OWN = [
    pytest.param(VERSION, NO_KEYS, id="a program"),
    pytest.param({}, RELAXED, id="a program, relaxed"),
    pytest.param({**VERSION, "host": "localhost:8642"}, NO_KEYS, id="localhost"),
    pytest.param({**VERSION, "host": "[::1]:8642"}, NO_KEYS, id="IPv6"),
    pytest.param({**VERSION, "host": "night.example"}, PUBLIC, id="public_url"),
    pytest.param({**VERSION, "sec-fetch-site": "none"}, NO_KEYS, id="typed"),
    pytest.param({**VERSION, "sec-fetch-site": "same-origin", "origin": URL}, NO_KEYS, id="a page of ours"),
    pytest.param({**VERSION, "host": "any.example", "x-api-key": "ours"}, Settings(keys=keys(ours=OURS)), id="a key"),
]


class Scene:
    """A server without keys, with a batch that waits and one that ended."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.running = self.ended = ""

    async def set_up(self) -> None:
        workspace = OURS if self.desk.here.settings.keys else "wrkspc_01default"
        self.running = await self.desk.batch(workspace=workspace)  # type: ignore[arg-type]
        self.ended = await ended(self.desk.store, [request("a")], errored, workspace=workspace)  # type: ignore[arg-type]

    async def all(self, ways: list[tuple[str, str]], headers: Mapping[str, str]) -> list[Answer]:
        """The answers to what a stranger tries: each way with either batch."""
        answers, browser = [], self.desk.browser()
        for method, path in ways:
            for batch_id in (self.running, self.ended):
                to = path.replace("{batch_id}", batch_id).replace("{model_id:path}", "scripted")
                body: Any = None
                if method == "POST" and path.startswith("/v1/messages"):
                    body = params() if path != "/v1/messages/batches" else {"requests": [request("evil")]}
                answers.append(await _sent(browser, method, to, body, headers))
        return answers

    async def state(self) -> list[object]:
        found = await self.desk.store.control.counts()
        ids = (self.running, self.ended)
        return [dict(found), [await self.desk.store.control.batch("wrkspc_01default", name) for name in ids]]  # type: ignore[arg-type]


async def _sent(browser: Browser, method: str, path: str, body: object, headers: Mapping[str, str]) -> Answer:
    answer = await browser.client.request(method, path, json=body, headers=dict(headers))
    return Answer(answer.status_code, dict(answer.headers), answer.content)


@pytest.mark.parametrize(("headers", "settings", "status"), FOREIGN)
def test_what_another_site_sends_does_nothing_and_is_told_nothing(
    headers: Mapping[str, str], settings: Settings, status: int, tmp_path: Path
) -> None:
    async def body(desk: Desk) -> None:
        scene = Scene(desk)
        await scene.set_up()
        before = await scene.state()
        answers = await scene.all(CHANGING, headers)
        if status == 403:  # A page cannot read the answer to a "no-cors" request.
            answers += await scene.all(READING, headers)
            assert {answer.error[1] for answer in answers} == {"permission_error"}
        assert {answer.status for answer in answers} == {status}
        assert await scene.state() == before
        engine = desk.here.fleet.pools[0].engine
        assert isinstance(engine, ScriptedEngine)
        assert not engine.calls

    on_desk(body, tmp_path, settings)


@pytest.mark.parametrize(("headers", "settings"), OWN)
def test_what_is_ours_is_done(headers: Mapping[str, str], settings: Settings, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        scene = Scene(desk)
        await scene.set_up()
        answers = await scene.all([("GET", "/v1/messages/batches/{batch_id}"), ("POST", CANCEL)], headers)
        assert {answer.status for answer in answers} == {200}

    on_desk(body, tmp_path, settings)


CANCEL = "/v1/messages/batches/{batch_id}/cancel"


@pytest.mark.parametrize("settings", [NO_KEYS, Settings(keys=keys(ours=OURS))], ids=["without keys", "with"])
def test_no_other_site_is_ever_given_leave(settings: Settings, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        asks = {
            "origin": "https://evil.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "anthropic-version,x-api-key",
            "access-control-request-private-network": "true",
        }
        for _, path, _ in ROUTES:
            for method in ("OPTIONS", "GET"):
                answer = await _sent(desk.browser(), method, path.replace(":path", ""), None, asks)
                assert not any(name.startswith("access-control-") for name in answer.headers), path
                assert method == "GET" or answer.status == 405, path

    on_desk(body, tmp_path, settings)


def test_the_cookie_of_the_console_opens_nothing_but_the_console(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("ours")
        cookie = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
        assert cookie
        for method, path in (*CHANGING, *READING):
            to = path.replace("{", "").replace("}", "").replace(":path", "")
            answer = await _sent(desk.browser(), method, to, None, {**VERSION, "cookie": cookie})
            assert answer.status == 401, path

    on_desk(body, tmp_path, Settings(keys=keys(ours=OURS)))


# --- What a browser makes of an answer ------------------------------------------------------------------------------


def test_every_page_binds_the_browser_and_no_answer_is_taken_for_something_else(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        theirs = await with_a(desk)
        browser, pages = desk.browser(), 0
        for method, path, _ in (*ROUTES, *CONSOLE_ROUTES, *OPEN_ROUTES):
            ids = theirs._replace(name="console.css")
            for headers in ({}, {**VERSION, "x-api-key": "key-of-a"}, {"host": "evil.example"}):
                answer = await _sent(browser, method, ids.in_path(path), None, headers)
                assert answer.headers["x-content-type-options"] == "nosniff", path
                kind = answer.headers.get("content-type", "")
                if kind.startswith("text/html"):
                    pages += 1
                    policy = set(answer.headers["content-security-policy"].split("; "))
                    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= policy, path
                else:
                    assert kind.partition(";")[0] in ("application/json", "text/plain", "text/css", ""), path
        assert pages > 50

    on_desk(body, tmp_path)


def test_a_mistake_of_ours_is_an_answer_like_any_other(tmp_path: Path) -> None:
    async def broken(http_request: HttpRequest) -> Response:
        raise RuntimeError("ours, with a secret")

    async def body(desk: Desk) -> None:
        desk.served.router.routes.insert(0, Route("/broken", broken))
        transport = httpx2.ASGITransport(desk.served, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
            answer = await client.get("/broken")
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")
        assert answer.json()["request_id"] == answer.headers["request-id"]
        assert "secret" not in answer.text

    on_desk(body, tmp_path)
