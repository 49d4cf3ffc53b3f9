"""Hooks in the console: of one workspace, with a secret that is shown once; deliveries, tests, resends."""

import asyncio
import logging
import re
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

import pytest
from desk import OURS, T0, THEIRS, URL, Browser, Desk, keys, on_desk
from visitor import Page

from overnight import limits
from overnight.core import hook as hooks
from overnight.core.hook import EVENTS, Delivery, Heard, Hook
from overnight.ids import WorkspaceId
from overnight.server.config import Settings
from overnight.testing.hookreceiver import Reply, running_receiver

HARM = "</td><script>alert(1)</script>'\"\u202e\x1b[0m"
TEAMS = Settings(keys=keys(ours=OURS, theirs=THEIRS), hooks_to_private_addresses=True)
STRICT = Settings(keys=keys(ours=OURS, theirs=THEIRS))
SECRET = bytes(range(limits.HOOK_SECRET_BYTES))
_ADDRESS = "http://127.0.0.1:9/hook"  # An address that is no name: nobody is asked what it means.


async def _hook(desk: Desk, workspace: WorkspaceId = OURS, *, url: str = _ADDRESS, number: int = 1) -> Hook:
    made = Hook(
        id=f"hook_01{workspace[-5:]}{number}",
        workspace=workspace,
        url=url,
        events=tuple(EVENTS),
        created_at_ms=T0,
    )
    await desk.store.hooks.add(made, SECRET)
    return made


async def _announce(desk: Desk, workspace: WorkspaceId = OURS, *, days: int = 0) -> None:
    now_ms = T0 - days * limits.DAY_MS
    event = hooks.budget_reached(workspace, "day", limit_usd=5.0, spent_usd=5.5, now_ms=now_ms)
    await desk.store.hooks.announce(event, now_ms=T0)


async def _deliveries(desk: Desk, workspace: WorkspaceId = OURS) -> list[Delivery]:
    return await desk.store.hooks.deliveries(workspace=workspace, limit=limits.DELIVERIES_LIST_MAX)


async def _submit(browser: Browser, form: str, fields: Mapping[str, str] | None = None, *, to: str = "") -> Page:
    """Send the form of a page, with its hidden fields."""
    page = await browser.get(form)
    hidden = {found["name"]: found["value"] for found in page.attributes("input", type="hidden")}
    return Page(await browser.send("POST", to or form, {**hidden, **(fields or {})}))


# --- A new hook -----------------------------------------------------------------------------------------------------


def test_a_new_hook_shows_its_secret_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("ours")
        page = await browser.get("/console/hooks/new")
        hidden = {found["name"]: found["value"] for found in page.attributes("input", type="hidden")}
        fields = {**hidden, "url": _ADDRESS, "events": "batch.ended"}
        answer = await browser.send("POST", "/console/hooks/new", fields)
        (text,) = Page(answer).texts("code", id="secret")
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        (made,) = await desk.store.hooks.hooks()
        assert (made.workspace, made.url, made.events, made.created_at_ms) == (OURS, _ADDRESS, ("batch.ended",), T0)
        assert b64decode(text.removeprefix("whsec_")) == (await desk.store.hooks.find(made.id))[1]
        again = await browser.send("POST", "/console/hooks/new", fields)
        assert again.status == 400
        assert b"Its secret is shown once" in again.body
        assert len(await desk.store.hooks.hooks()) == 1
        paths = ("hooks", "hooks/new", f"hooks/{made.id}/delete", f"hooks?hook={made.id}")
        pages = [(await browser.send("GET", f"/console/{path}")).body.decode() for path in paths]
        tested = await _submit(browser, "/console/hooks", to=f"/console/hooks/{made.id}/test")
        for source in (*pages, again.body.decode(), tested.source, caplog.text):
            assert text not in source
            assert text[6:30] not in source

    on_desk(body, tmp_path, TEAMS)


BAD_HOOKS = [
    pytest.param({"url": "ftp://127.0.0.1/"}, "url", id="scheme"),
    pytest.param({"url": "http://user:hidden@127.0.0.1/"}, "url", id="password"),
    pytest.param({"url": "http://127.1/"}, "url", id="odd address"),
    pytest.param({"url": ""}, "url", id="empty"),
    pytest.param({"url": "http://127.0.0.1/" + "x" * limits.HOOK_URL_CHARACTERS_MAX}, "url", id="long"),
    pytest.param({"url": HARM}, "url", id="hostile"),
    pytest.param({"events": ""}, "events", id="no event"),
    pytest.param({"events": "batch.everything"}, "events", id="unknown event"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_HOOKS)
def test_a_hook_that_cannot_be_is_said_at_its_field_with_what_was_typed(
    fields: dict[str, str], field: str, tmp_path: Path
) -> None:
    async def body(desk: Desk) -> None:
        given = {"url": _ADDRESS, "events": "batch.ended", **fields}
        page = await _submit(await desk.logged_in("ours"), "/console/hooks/new", given)
        assert page.status == 400
        assert len(page.texts("p", id=f"{field}-trouble")) == 1
        described = [*page.attributes("input", id="url"), *page.attributes("fieldset")]
        marked = [found for found in described if f"{field}-trouble" in found.get("aria-describedby", "")]
        assert len(marked) == 1
        assert page.attributes("input", id="url")[0]["value"] == given["url"]
        ticked = [found["value"] for found in page.attributes("input", type="checkbox") if "checked" in found]
        assert ticked == ([] if field == "events" else ["batch.ended"])
        assert "<script>alert" not in page.source
        assert await desk.store.hooks.hooks() == []

    on_desk(body, tmp_path, TEAMS)


def test_a_hook_may_not_lead_into_our_network_unless_the_operator_says_so(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        given = {"url": _ADDRESS, "events": "batch.ended"}
        page = await _submit(await desk.logged_in("ours"), "/console/hooks/new", given)
        assert "which is not a public address" in page.texts("p", id="url-trouble")[0]
        assert await desk.store.hooks.hooks() == []

    on_desk(body, tmp_path, STRICT)


@pytest.mark.parametrize("hook_id", ["", "x", "hook_01" + "0" * 22, "hook_01" + "a" * 23, "delivery_01" + "a" * 22])
def test_a_form_without_the_id_that_we_drew_makes_no_hook(hook_id: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        given = {"url": _ADDRESS, "events": "batch.ended", "id": hook_id}
        assert (await _submit(await desk.logged_in("ours"), "/console/hooks/new", given)).status == 400
        assert await desk.store.hooks.hooks() == []

    on_desk(body, tmp_path, TEAMS)


def test_a_full_workspace_is_told_so(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        for number in range(limits.HOOKS_MAX):
            await _hook(desk, number=number)
        browser = await desk.logged_in("ours")
        page = await browser.get("/console/hooks")
        assert not page.has_link("New hook")
        given = {"url": _ADDRESS, "events": "batch.ended"}
        assert (await _submit(browser, "/console/hooks/new", given)).status == 400
        assert len(await desk.store.hooks.hooks()) == limits.HOOKS_MAX

    on_desk(body, tmp_path, TEAMS)


# --- Whose they are -------------------------------------------------------------------------------------------------


def test_a_workspace_sees_its_hooks_and_deliveries_and_no_others(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, theirs = await _hook(desk), await _hook(desk, THEIRS, url="http://127.0.0.1:10/their")
        await _announce(desk)
        await _announce(desk, THEIRS)
        browser = await desk.logged_in("ours")
        (own,), (foreign,) = await _deliveries(desk), await _deliveries(desk, THEIRS)
        for query in ("", f"?hook={theirs.id}", "?status=pending"):
            page = await browser.get(f"/console/hooks{query}")
            found = page.texts("tbody")
            assert foreign.id not in page.source
            assert "/their" not in page.source
            assert (own.id in found[-1]) is (theirs.id not in query)
            assert ours.url in found[0]

    on_desk(body, tmp_path, TEAMS)


ACTIONS = [
    ("GET", "hooks/{hook}/delete"),
    ("POST", "hooks/{hook}/delete"),
    ("POST", "hooks/{hook}/test"),
    ("POST", "hooks/deliveries/{delivery}/resend"),
]


@pytest.mark.parametrize(("method", "path"), ACTIONS)
def test_what_is_of_another_workspace_does_not_exist(method: str, path: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        with running_receiver() as receiver:
            theirs = await _hook(desk, THEIRS, url=receiver.url)
            await _announce(desk, THEIRS)
            (due,) = await desk.store.hooks.due(now_ms=T0, limit=1)
            dead = hooks.after(due.delivery, Heard(status=410), dice=0.5, now_ms=T0)
            await desk.store.hooks.note(dead)
            browser = await desk.logged_in("ours")
            sent = {"token": await browser.token("/console/hooks"), "confirm": "yes"} if method == "POST" else None
            answers = []
            for hook, delivery in ((theirs.id, dead.id), ("hook_none", "delivery_none")):
                url = f"/console/{path.format(hook=hook, delivery=delivery)}"
                answer = await browser.send(method, url, sent)
                assert answer.status == 404
                answers.append(re.sub(r"req_\w+", "req", answer.body.decode()))
            assert answers[0] == answers[1]
            assert receiver.got == []
        assert await desk.store.hooks.hooks() == [theirs]
        assert await _deliveries(desk, THEIRS) == [dead]

    on_desk(body, tmp_path, TEAMS)


@pytest.mark.parametrize("path", ["hooks/new", *(path for method, path in ACTIONS if method == "POST")])
def test_a_form_without_its_token_does_nothing(path: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        with running_receiver() as receiver:
            ours = await _hook(desk, url=receiver.url)
            await _announce(desk)
            (due,) = await desk.store.hooks.due(now_ms=T0, limit=1)
            dead = hooks.after(due.delivery, Heard(status=410), dice=0.5, now_ms=T0)
            await desk.store.hooks.note(dead)
            browser = await desk.logged_in("ours")
            url = f"/console/{path.format(hook=ours.id, delivery=dead.id)}"
            fields = {"confirm": "yes", "url": _ADDRESS, "events": "batch.ended", "id": "hook_01" + "a" * 22}
            token = await browser.token("/console/hooks")
            assert (await browser.send("POST", url, fields)).status == 403
            foreign = {"origin": "https://evil.example"}
            assert (await browser.send("POST", url, {**fields, "token": token}, headers=foreign)).status == 403
            assert receiver.got == []
        assert await desk.store.hooks.hooks() == [ours]
        assert await _deliveries(desk) == [dead]

    on_desk(body, tmp_path, TEAMS)


# --- What they do ---------------------------------------------------------------------------------------------------


def test_deliveries_say_what_became_of_them_and_when_they_are_tried_again(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _hook(desk)
        for days in range(4):
            await _announce(desk, days=days)
        due = [item.delivery for item in await desk.store.hooks.due(now_ms=T0, limit=4)]
        for item, status in zip(due, (204, 503, 410), strict=False):
            await desk.store.hooks.note(hooks.after(item, Heard(status=status), dice=0.5, now_ms=T0 + 60_000))
        browser = await desk.logged_in("ours")
        page = await browser.get("/console/hooks")
        said = [next(" ".join(text.split()) for text in page.texts("tr") if item.id in text) for item in due]
        assert "● delivered" in said[0]
        assert "tried again" in said[1]
        assert "HTTP 503" in said[1]
        assert "2026-05-28 20:27 UTC" in said[1], "5 s after the attempt"
        assert "▲ given up" in said[2]
        assert "HTTP 410" in said[2]
        assert "◐ pending" in said[3]
        assert '"limit_usd": 5.0' in page.texts("details", id=f"body-{due[0].id}")[0]
        for status, item in (("delivered", due[0]), ("dead", due[2])):
            filtered = await browser.get(f"/console/hooks?status={status}")
            assert [found["id"] for found in filtered.attributes("details")] == [f"body-{item.id}"]
        assert [found["id"] for found in page.attributes("div") if "data-live" in found] == ["deliveries"]

    on_desk(body, tmp_path, TEAMS)


def test_the_list_of_deliveries_is_cut(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _hook(desk)
        for days in range(limits.CONSOLE_DELIVERIES + 1):
            await _announce(desk, days=days)
        page = await (await desk.logged_in("ours")).get("/console/hooks")
        assert len(page.attributes("details")) == limits.CONSOLE_DELIVERIES
        assert f"These are the newest {limits.CONSOLE_DELIVERIES}." in page.source

    on_desk(body, tmp_path, TEAMS)


def test_a_delivery_that_was_given_up_is_due_again(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _hook(desk)
        await _announce(desk)
        (due,) = await desk.store.hooks.due(now_ms=T0, limit=1)
        await desk.store.hooks.note(hooks.after(due.delivery, Heard(status=410), dice=0.5, now_ms=T0))
        assert await desk.store.hooks.due(now_ms=T0, limit=1) == []
        browser = await desk.logged_in("ours")
        path = f"/console/hooks/deliveries/{due.delivery.id}/resend"
        page = await _submit(browser, "/console/hooks", to=path)
        assert (page.status, page.answer.headers["location"]) == (303, "/console/hooks")
        (again,) = await desk.store.hooks.due(now_ms=T0, limit=1)
        assert again.delivery.id == due.delivery.id

    on_desk(body, tmp_path, TEAMS)


@pytest.mark.parametrize(
    ("reply", "heading", "said"),
    [
        pytest.param(Reply(204), "The test was taken", "● HTTP 204", id="taken"),
        pytest.param(Reply(500, {}, HARM.encode()), "The test was not taken", "▲ HTTP 500", id="refused"),
    ],
)
def test_a_test_is_posted_once_and_says_what_came_back(reply: Reply, heading: str, said: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        with running_receiver(lambda _: reply) as receiver:
            hook = await _hook(desk, url=receiver.url)
            browser = await desk.logged_in("ours")
            page = await _submit(browser, "/console/hooks", to=f"/console/hooks/{hook.id}/test")
            got = await asyncio.to_thread(receiver.next)
            assert len(receiver.got) == 1
        assert got.headers["webhook-signature"] == _signed(got.headers, got.body)
        assert b'"type":"hook.test"' in got.body
        assert page.texts("h1") == [heading]
        assert said in page.texts("span")
        assert "<script>alert" not in page.source
        assert "\x1b" not in page.source
        assert ("&lt;script&gt;alert(1)" in page.source) is bool(reply.body)
        assert await _deliveries(desk) == []

    on_desk(body, tmp_path, TEAMS)


def _signed(headers: Mapping[str, str], body: bytes) -> str:
    made = hooks.headers(headers["webhook-id"], body, SECRET, now_ms=int(headers["webhook-timestamp"]) * 1000)
    return made["webhook-signature"]


def test_a_test_into_our_network_is_not_sent(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        with running_receiver() as receiver:
            hook = await _hook(desk, url=receiver.url)
            browser = await desk.logged_in("ours")
            page = await _submit(browser, "/console/hooks", to=f"/console/hooks/{hook.id}/test")
            assert receiver.got == []
        assert "which is not a public address" in page.source

    on_desk(body, tmp_path, STRICT)


def test_deleting_wants_a_tick_and_takes_what_was_on_its_way(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        hook = await _hook(desk)
        await _announce(desk)
        browser = await desk.logged_in("ours")
        path = f"/console/hooks/{hook.id}/delete"
        assert (await _submit(browser, path)).status == 400
        assert await desk.store.hooks.hooks() == [hook]
        assert (await _submit(browser, path, {"confirm": "yes"})).status == 303
        assert await desk.store.hooks.hooks() == []
        assert await _deliveries(desk) == []

    on_desk(body, tmp_path, TEAMS)


def test_without_hooks_the_page_says_how_to_make_one(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        page = await desk.browser().get("/console/hooks")
        assert page.texts("p", class_="lead") == ["There are no hooks yet."]
        assert page.has_link("New hook")

    on_desk(body, tmp_path)


def test_hostile_urls_troubles_and_bodies_are_text(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        hook = await _hook(desk, url=f"{URL}/{HARM}")
        event = hooks.Event(type="batch.ended", workspace=OURS, what="x", data={HARM: HARM})
        await desk.store.hooks.announce(event, now_ms=T0)
        (due,) = await desk.store.hooks.due(now_ms=T0, limit=1)
        await desk.store.hooks.note(hooks.after(due.delivery, Heard(trouble=HARM), dice=0.5, now_ms=T0))
        browser = await desk.logged_in("ours")
        for path in ("hooks", f"hooks/{hook.id}/delete"):
            source = (await browser.get(f"/console/{path}")).source
            assert "&lt;script&gt;alert(1)" in source
            for sign in ("<script>alert", "\x1b", "\u202e"):
                assert sign not in source

    on_desk(body, tmp_path, TEAMS)
