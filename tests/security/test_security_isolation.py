"""A key learns nothing of other workspaces (I7), at every endpoint and on every page: the tables of the server say
which there are, and one without an entry here fails."""

from pathlib import Path
from typing import Literal

import pytest
from desk import Browser, Desk, on_desk
from strangers import ADMIN_OF_B, OF_A, OF_B, SECRET, A, B, Ids, asked, of_key, of_nobody, told, with_a, with_keys

from overnight.ids import WorkspaceId
from overnight.server.app import ROUTES
from overnight.server.config import Settings
from overnight.server.console.routes import CONSOLE_ROUTES, OPEN_ROUTES

Kind = Literal["own", "admin", "sums", "open"]
"""own: of the caller's workspace, alike whatever others have. admin: refused to ordinary keys, whatever they ask for.
sums: tells sums of all workspaces, names none. open: for everybody, tells of no workspace."""

KINDS: dict[tuple[str, str], Kind] = {
    ("POST", "/v1/messages/batches"): "own",
    ("GET", "/v1/messages/batches"): "own",
    ("GET", "/v1/messages/batches/{batch_id}"): "own",
    ("DELETE", "/v1/messages/batches/{batch_id}"): "own",
    ("POST", "/v1/messages/batches/{batch_id}/cancel"): "own",
    ("GET", "/v1/messages/batches/{batch_id}/results"): "own",
    ("POST", "/v1/messages"): "own",
    ("POST", "/v1/messages/count_tokens"): "own",
    ("GET", "/v1/models"): "own",
    ("GET", "/v1/models/{model_id:path}"): "own",
    ("GET", "/v1/organizations/rate_limits"): "own",
    ("GET", "/v1/organizations/usage_report/messages"): "own",
    ("GET", "/v1/organizations/cost_report"): "own",
    ("GET", "/v1/overnight/status"): "own",
    ("GET", "/v1/overnight/usage"): "own",
    ("GET", "/v1/overnight/batches/{batch_id}/usage"): "own",
    ("POST", "/v1/overnight/batches/{batch_id}/retry"): "own",
    ("GET", "/v1/overnight/batches/{batch_id}/export"): "own",
    ("GET", "/health"): "sums",
    ("GET", "/ready"): "open",
    ("GET", "/metrics"): "sums",
    ("GET", "/openapi.json"): "open",
    ("GET", "/console/batches"): "own",
    ("GET", "/console/batches/{batch_id}"): "own",
    ("GET", "/console/batches/{batch_id}/cancel"): "own",
    ("POST", "/console/batches/{batch_id}/cancel"): "own",
    ("GET", "/console/batches/{batch_id}/delete"): "own",
    ("POST", "/console/batches/{batch_id}/delete"): "own",
    ("GET", "/console/batches/{batch_id}/results"): "own",
    ("GET", "/console/batches/{batch_id}/results/{custom_id}"): "own",
    ("GET", "/console/batches/{batch_id}/results/{custom_id}/whole"): "own",
    ("GET", "/console/batches/{batch_id}/download"): "own",
    ("GET", "/console/batches/{batch_id}/retry"): "own",
    ("POST", "/console/batches/{batch_id}/retry"): "own",
    ("GET", "/console/engines"): "own",
    ("GET", "/console/usage"): "own",
    ("GET", "/console/usage.csv"): "own",
    ("GET", "/console/keys"): "own",
    ("GET", "/console/keys/new"): "admin",
    ("POST", "/console/keys/new"): "admin",
    ("GET", "/console/keys/{key_id}/revoke"): "admin",
    ("POST", "/console/keys/{key_id}/revoke"): "admin",
    ("GET", "/console/keys/{key_id}/rotate"): "admin",
    ("POST", "/console/keys/{key_id}/rotate"): "admin",
    ("GET", "/console/keys/workspaces/new"): "admin",
    ("POST", "/console/keys/workspaces/new"): "admin",
    ("GET", "/console/keys/workspaces/{workspace_id}/edit"): "admin",
    ("POST", "/console/keys/workspaces/{workspace_id}/edit"): "admin",
    ("GET", "/console/keys/workspaces/{workspace_id}/archive"): "admin",
    ("POST", "/console/keys/workspaces/{workspace_id}/archive"): "admin",
    ("GET", "/console/hooks"): "own",
    ("GET", "/console/hooks/new"): "own",
    ("POST", "/console/hooks/new"): "own",
    ("GET", "/console/hooks/{hook_id}/delete"): "own",
    ("POST", "/console/hooks/{hook_id}/delete"): "own",
    ("POST", "/console/hooks/{hook_id}/test"): "own",
    ("POST", "/console/hooks/deliveries/{delivery_id}/resend"): "own",
    ("POST", "/console/logout"): "own",
    ("GET", "/console/static/{name}"): "open",
    ("GET", "/console/login"): "open",
    ("POST", "/console/login"): "open",
}
THERE_ARE = [(method, path) for method, path, _ in (*ROUTES, *CONSOLE_ROUTES, *OPEN_ROUTES)]
WITH_IDS = [way for way in THERE_ARE if "{" in way[1] and KINDS.get(way) in ("own", "admin")]
# What a key may narrow its lists by: {…} is an id of A, or of nobody.
QUERIES = [
    "/v1/messages/batches?after_id={batch_id}",
    "/v1/messages/batches?before_id={batch_id}",
    "/v1/messages/batches?before_id={running_id}",
    "/v1/models?after_id={model_id}",
    "/v1/organizations/usage_report/messages?starting_at=2026-05-28T00:00:00Z&workspace_ids[]={workspace_id}",
    "/v1/organizations/usage_report/messages?starting_at=2026-05-28T00:00:00Z&api_key_ids[]={key_id}",
    "/v1/organizations/usage_report/messages?starting_at=2026-05-28T00:00:00Z&models[]={model_id}",
    "/v1/organizations/usage_report/messages?starting_at=2026-05-28T00:00:00Z&group_by[]=workspace_id",
    "/v1/organizations/cost_report?starting_at=2026-05-28T00:00:00Z&group_by[]=workspace_id",
    "/v1/overnight/usage?by=workspace",
    "/v1/overnight/usage?by=key",
    "/v1/overnight/usage?by=batch",
    "/console/batches?after={batch_id}",
    "/console/batches?before={running_id}",
    "/console/batches?id={batch_id}",
    "/console/usage?workspace={workspace_id}",
    "/console/usage?by=key",
    "/console/usage.csv?workspace={workspace_id}&by=key",
    "/console/hooks?hook={hook_id}",
    "/console/keys/new?workspace={workspace_id}",
]


def test_every_endpoint_and_every_page_has_an_entry() -> None:
    assert sorted(KINDS) == sorted(THERE_ARE)


def _on(body: object, tmp_path: Path) -> None:
    on_desk(body, tmp_path, Settings())  # type: ignore[arg-type]


async def _of_b(desk: Desk, key: str = OF_B) -> tuple[Browser, str]:
    """A browser that B is logged in with, and the token of its forms."""
    browser = await desk.logged_in(key)
    return browser, await browser.token("/console/batches")


@pytest.mark.parametrize("way", WITH_IDS, ids=" ".join)
def test_what_another_workspace_has_is_answered_like_what_nobody_has(way: tuple[str, str], tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        nobodys = of_nobody(theirs)
        browser, token = await _of_b(desk)
        status = 403 if KINDS[way] == "admin" else 404
        if "{model_id" in way[1]:
            status = 200  # The engine takes any name.
        for batch_id in ("batch_id", "running_id"):
            method, path = way[0], way[1].replace("batch_id", batch_id)
            answers = [
                await asked(browser, OF_B, method, ids.in_path(path), token=token) for ids in (theirs, nobodys)
            ]
            assert [answer.status for answer in answers] == [status, status]
            assert told(answers[0], theirs) == told(answers[1], nobodys)
            assert SECRET.encode() not in answers[0].body.replace(theirs.model_id.encode(), b"")

    _on(body, tmp_path)


@pytest.mark.parametrize("path", QUERIES)
def test_no_list_can_be_narrowed_to_what_another_workspace_has(path: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        nobodys = of_nobody(theirs)
        browser, _ = await _of_b(desk)
        answers = [await asked(browser, OF_B, "GET", path.format(**ids._asdict())) for ids in (theirs, nobodys)]
        assert told(answers[0], theirs) == told(answers[1], nobodys)
        assert SECRET.encode() not in answers[0].body.replace(theirs.model_id.encode(), b"")

    _on(body, tmp_path)


ALIKE = [way for way in THERE_ARE if way[0] == "GET" and KINDS.get(way) == "own" and "{" not in way[1]]


@pytest.mark.parametrize("path", [path for _, path in ALIKE])
def test_an_answer_is_the_same_whatever_other_workspaces_have(path: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        browser, _ = await _of_b(desk)
        query = "?starting_at=2026-05-28T00:00:00Z" if "report" in path else ""
        before = await asked(browser, OF_B, "GET", path + query)
        assert before.status == 200
        await with_a(desk)
        assert told(await asked(browser, OF_B, "GET", path + query)) == told(before)

    _on(body, tmp_path)


def test_own_batches_are_told_of_in_the_same_way_whatever_others_have(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        listed = await asked(desk.browser(), OF_B, "GET", "/v1/messages/batches")
        paths = [f"/v1/messages/batches/{batch['id']}" for batch in listed.json["data"]]
        before = [told(await asked(desk.browser(), OF_B, "GET", path)) for path in paths]
        assert {status for status, _, _ in before} == {200}
        assert any("overnight-waiting" in headers for _, headers, _ in before)
        await with_a(desk)
        assert [told(await asked(desk.browser(), OF_B, "GET", path)) for path in paths] == before

    _on(body, tmp_path)


@pytest.mark.parametrize("key", [OF_B, ADMIN_OF_B])
def test_sums_over_all_name_nobody(key: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        paths = [path for (_, path), kind in KINDS.items() if kind in ("sums", "open") and "{" not in path]
        for path in [*paths, "/console/login"]:
            found = await asked(desk.browser(), key, "GET", path)
            assert found.status == 200
            words = [] if key == ADMIN_OF_B else [SECRET]  # Metrics tell admins what models cost.
            for name in (*words, *theirs.names):
                assert name.encode() not in found.body, (path, name)

    _on(body, tmp_path)


def test_an_admin_has_no_batches_of_other_workspaces(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        browser, token = await _of_b(desk, ADMIN_OF_B)
        for method, path in WITH_IDS:
            if "{batch_id}" in path:
                answer = await asked(browser, ADMIN_OF_B, method, theirs.in_path(path), token=token)
                assert answer.status == 404, path

    _on(body, tmp_path)


def test_nothing_that_a_stranger_tried_has_changed_anything(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        before = await _everything(desk, theirs)
        for key in (OF_B, ADMIN_OF_B):
            browser, token = await _of_b(desk, key)
            for method, path in THERE_ARE:
                if method != "GET" and "{batch_id}" in path:
                    for name in ("batch_id", "running_id"):
                        to = theirs.in_path(path.replace("batch_id", name))
                        await asked(browser, key, method, to, token=token)
        assert await _everything(desk, theirs) == before

    _on(body, tmp_path)


async def _everything(desk: Desk, ids: Ids) -> list[object]:
    found = [await desk.store.control.batch(A, name) for name in (ids.batch_id, ids.running_id)]  # type: ignore[arg-type]
    assert None not in found
    page = await desk.store.control.page(A, limit=100)
    assert page is not None
    return [*found, len(page.batches), await desk.store.hooks.hooks(A), await desk.store.access.access()]


# --- Keys that open nothing -----------------------------------------------------------------------------------------

NEED_KEYS = [way for way in THERE_ARE if not way[1].startswith("/console") and KINDS.get(way) in ("own", "admin")]
NEED_KEYS.append(("GET", "/metrics"))  # From afar.


@pytest.mark.parametrize("why", ["revoked", "over", "archived", "unknown", "digest", "id"])
def test_a_key_that_opens_nothing_is_told_one_thing_everywhere(why: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        shown = await _shut(desk, theirs, why)
        for method, path in NEED_KEYS:
            answer = await desk.browser().send(method, theirs.in_path(path), headers=of_key(shown))
            assert answer.error == (401, "authentication_error", "API key is invalid."), path
            assert "anthropic-workspace-id" not in answer.headers
        browser = desk.browser()
        assert (await browser.post("/console/login", {"key": shown})).status == 401

    _on(body, tmp_path)


async def _shut(desk: Desk, theirs: Ids, why: str) -> str:
    """What is shown as a key."""
    if why == "revoked":
        await desk.store.access.revoke_key(theirs.key_id, now_ms=desk.clock.now_ms())
    elif why == "over":
        old = next(key for key in desk.here.doors.keys if key.id == theirs.key_id)
        new = type(old)(id="apikey_01new", sha256="0" * 64, hint="", name="", workspace=A)
        await desk.store.access.replace_key(old.id, new, until_ms=desk.clock.now_ms() + 1)
        desk.clock.at_ms += 1
    elif why == "archived":
        await desk.store.access.archive_workspace(WorkspaceId(A), now_ms=desk.clock.now_ms())
    await desk.here.doors.refresh(desk.store.access)
    digest = next(key.sha256 for key in desk.here.doors.keys if key.id == theirs.key_id)
    return {"unknown": "no-key", "digest": digest, "id": theirs.key_id}.get(why, OF_A)


def test_without_a_key_nothing_is_told_of_any_workspace(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        for method, path in NEED_KEYS:
            headers = {"anthropic-version": "2023-06-01", "host": "far.example"}
            answer = await desk.browser().send(method, theirs.in_path(path), headers=headers)
            assert answer.error == (401, "authentication_error", "x-api-key: header is required"), path

    _on(body, tmp_path)


def test_a_workspace_that_is_named_beside_the_key_is_no_way_around_it(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        await with_a(desk)
        for method, path in NEED_KEYS:
            answers = []
            for named in (A, WorkspaceId("wrkspc_01zzzzzzzzzzzzzzzzzzzzzz")):
                headers = {**of_key(OF_B), "anthropic-workspace-id": named}
                answers.append(
                    await desk.browser().send(method, path.replace("{", "").replace("}", ""), headers=headers)
                )
            assert {answer.status for answer in answers} == {403}, path
            assert told(answers[0]) == told(answers[1])

    _on(body, tmp_path)


def test_only_an_admin_may_use_the_pages_of_admins(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        browser, token = await _of_b(desk)
        admin, of_admin = await _of_b(desk, ADMIN_OF_B)
        for (method, path), kind in KINDS.items():
            if kind == "admin":
                fields = None if method == "GET" else {"token": token, "name": f"team {SECRET}"}
                assert (await browser.send(method, theirs.in_path(path), fields)).status == 403, path
                fields = fields and {"token": of_admin}
                assert (await admin.send(method, theirs.in_path(path), fields)).status in (200, 303, 400), path

    _on(body, tmp_path)


def test_a_hook_cannot_take_the_place_of_another(tmp_path: Path) -> None:
    """The form brings the id along, so somebody may send any."""

    async def body(desk: Desk) -> None:
        await with_keys(desk)
        theirs = await with_a(desk)
        browser, token = await _of_b(desk)
        fields = {"token": token, "id": theirs.hook_id, "url": "https://8.8.8.8/", "events": "batch.ended"}
        assert (await browser.send("POST", "/console/hooks/new", fields)).status == 400
        (hook,) = await desk.store.hooks.hooks(A)
        assert hook.url == f"https://{SECRET}.example/"
        assert await desk.store.hooks.hooks(B) == []

    _on(body, tmp_path)
