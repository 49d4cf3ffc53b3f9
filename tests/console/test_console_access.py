"""Keys, workspaces and their rules: who sees which, who may change them, and a new key that is shown once."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from desk import OURS, T0, THEIRS, Browser, Desk, keys, on_desk
from visitor import Page

from overnight import limits
from overnight.core.usage import NANO, Sums, Used
from overnight.core.workspace import Access, Key, Rules
from overnight.ids import DEFAULT_WORKSPACE
from overnight.limits import DAY_MS
from overnight.server.config import KeySettings, Settings
from overnight.server.console import rules
from overnight.store.usage import Entry

HARM = "<script>alert(1)</script>'\"&"
ADMIN = [
    KeySettings(sha256=key.sha256, workspace=key.workspace, role="admin") for key in keys(admin=DEFAULT_WORKSPACE)
]
TEAMS = Settings(keys=ADMIN)
NEW_KEY = {"name": "airflow", "workspace": OURS, "role": "workspace", "ends": ""}
_INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle\s*=|\son[a-z]+\s*=", re.IGNORECASE)


async def _teams(desk: Desk) -> tuple[Key, Key]:
    """Two workspaces with a key each: `ours` and `theirs`."""
    return await desk.add_key("ours", OURS), await desk.add_key("theirs", THEIRS)


async def _form(browser: Browser, path: str) -> dict[str, str]:
    """The hidden fields of the form at a path."""
    page = await browser.get(path)
    assert page.status == 200
    return {found["name"]: found["value"] for found in page.attributes("input", type="hidden")}


async def _submit(browser: Browser, path: str, fields: Mapping[str, str]) -> Page:
    return Page(await browser.send("POST", path, {**await _form(browser, path), **fields}))


async def _access(desk: Desk) -> Access:
    found = await desk.store.access.access()
    assert found is not None
    return found


def _opens(desk: Desk, text: str) -> bool:
    return desk.here.doors.caller_of(text, now_ms=desk.clock.now_ms()) is not None


def _errors(page: Page) -> dict[str, str]:
    """What is wrong with each field, as somebody hears it who comes to the field."""
    found = {}
    for kind in ("input", "select", "textarea"):
        for field in page.attributes(kind, **{"aria-invalid": "true"}):
            (said,) = page.texts("p", id=field["aria-describedby"].split()[-1])
            found[field["id"]] = said.removeprefix("▲ ")
    return found


# --- Who may --------------------------------------------------------------------------------------------------------

ADMINS_ONLY = [
    ("GET", "keys/new", {}),
    ("POST", "keys/new", NEW_KEY),
    ("GET", "keys/{key}/revoke", {}),
    ("POST", "keys/{key}/revoke", {}),
    ("GET", "keys/{key}/rotate", {}),
    ("POST", "keys/{key}/rotate", {"overlap": "0", "id": "apikey_01" + "a" * 22}),
    ("GET", "keys/workspaces/new", {}),
    ("POST", "keys/workspaces/new", {"name": "mine"}),
    ("GET", "keys/workspaces/{workspace}/edit", {}),
    ("POST", "keys/workspaces/{workspace}/edit", {"usd_per_day": "1000"}),
    ("GET", "keys/workspaces/{workspace}/archive", {}),
    ("POST", "keys/workspaces/{workspace}/archive", {"confirm": "yes"}),
]


@pytest.mark.parametrize(("method", "path", "fields"), ADMINS_ONLY)
def test_a_key_that_is_no_admins_changes_nothing_and_learns_nothing(
    method: str, path: str, fields: dict[str, str], tmp_path: Path
) -> None:
    async def body(desk: Desk) -> None:
        ours, theirs = await _teams(desk)
        before = await _access(desk)
        browser = await desk.logged_in("ours")
        sent = {**fields, "token": await browser.token("/console/keys")} if method == "POST" else None
        answers = []
        for key, workspace in ((ours.id, OURS), (theirs.id, THEIRS), ("none", "wrkspc_none"), ("settings-1", OURS)):
            url = f"/console/{path.format(key=key, workspace=workspace)}"
            answer = await browser.send(method, url, sent)
            assert answer.status == 403
            answers.append(re.sub(r"req_\w+", "req", answer.body.decode()))
        assert len(set(answers)) == 1, "nobody can tell which keys and workspaces there are"
        assert await _access(desk) == before

    on_desk(body, tmp_path, TEAMS)


@pytest.mark.parametrize(
    ("path", "fields"), [(path, fields) for method, path, fields in ADMINS_ONLY if method == "POST"]
)
def test_an_admins_form_without_its_token_changes_nothing(path: str, fields: dict[str, str], tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, _ = await _teams(desk)
        before = await _access(desk)
        browser = await desk.logged_in("admin")
        url = f"/console/{path.format(key=ours.id, workspace=OURS)}"
        token = await browser.token("/console/keys")
        assert (await browser.send("POST", url, fields)).status == 403
        assert (await browser.send("POST", url, {**fields, "token": "0" * 64})).status == 403
        foreign = {"sec-fetch-site": "cross-site"}
        assert (await browser.send("POST", url, {**fields, "token": token}, headers=foreign)).status == 403
        assert await _access(desk) == before

    on_desk(body, tmp_path, TEAMS)


def test_a_get_changes_nothing(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, _ = await _teams(desk)
        before = await _access(desk)
        browser = await desk.logged_in("admin")
        for method, path, _ in ADMINS_ONLY:
            if method == "GET":
                page = await browser.get(f"/console/{path.format(key=ours.id, workspace=OURS)}?confirm=yes&overlap=0")
                assert page.status == 200, path
        assert await _access(desk) == before

    on_desk(body, tmp_path, TEAMS)


def test_a_key_sees_the_keys_and_rules_of_its_workspace_and_not_that_there_are_others(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, theirs = await _teams(desk)
        await desk.store.access.set_rules(OURS, Rules(usd_per_day=7.0))
        await desk.store.access.set_rules(THEIRS, Rules(usd_per_day=98765.0))
        await desk.here.doors.refresh(desk.store.access)
        page = await (await desk.logged_in("ours")).get("/console/keys")
        assert "the key ours" in page.source
        assert "USD a day7" in page.texts("div")
        assert not re.search(f"theirs|{theirs.id}|{ours.id}/|98,?765|settings|team eirs", page.source)
        assert not page.has_link("New key")
        assert not page.attributes("table", id="workspaces")

    on_desk(body, tmp_path, TEAMS)


def test_an_admin_sees_all_keys_and_what_it_may_do_to_each(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, theirs = await _teams(desk)
        await desk.store.access.revoke_key(theirs.id, now_ms=T0)
        await desk.here.doors.refresh(desk.store.access)
        page = await (await desk.logged_in("admin")).get("/console/keys")
        links = [found["href"] for found in page.attributes("a") if "/keys/" in found["href"]]
        assert f"/console/keys/{ours.id}/revoke" in links
        assert f"/console/keys/{ours.id}/rotate" in links
        assert [link for link in links if theirs.id in link or "settings" in link] == []
        assert page.texts("span", class_="status idle") == ["■ revoked"]
        assert page.texts("small") == ["of the settings"]
        assert "OVERNIGHT_API_KEY" in page.texts("code")

    on_desk(body, tmp_path, TEAMS)


@pytest.mark.parametrize("action", ["revoke", "rotate"])
def test_a_key_of_the_settings_is_changed_there(action: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("admin")
        sent = {"token": await browser.token("/console/keys"), "overlap": "0", "id": "apikey_01" + "a" * 22}
        answer = await browser.send("POST", f"/console/keys/settings-1/{action}", sent)
        assert answer.status == 400
        assert b"This key is of the settings of the server" in answer.body
        assert _opens(desk, "admin")

    on_desk(body, tmp_path, TEAMS)


# --- A new key ------------------------------------------------------------------------------------------------------


def test_a_new_key_opens_at_once_and_is_shown_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def body(desk: Desk) -> None:
        await _teams(desk)
        browser = await desk.logged_in("admin")
        fields = {**await _form(browser, "/console/keys/new"), **NEW_KEY}
        answer = await browser.send("POST", "/console/keys/new", fields)
        (text,) = Page(answer).texts("code", id="secret")
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        caller = desk.here.doors.caller_of(text, now_ms=T0)
        assert caller is not None
        assert (caller.workspace, caller.is_admin) == (OURS, False)
        made = next(key for key in (await _access(desk)).keys if key.id == caller.key_id)
        assert (made.name, made.expires_at_ms, made.created_at_ms) == ("airflow", None, T0)
        again = await browser.send("POST", "/console/keys/new", fields)
        assert again.status == 400
        assert b"A key is shown once" in again.body
        assert len((await _access(desk)).keys) == 3
        paths = ("keys", "keys/new", f"keys/{made.id}/rotate", f"keys/{made.id}/revoke", "usage?by=key")
        pages = [(await browser.send("GET", f"/console/{path}")).body.decode() for path in paths]
        for source in (*pages, again.body.decode(), caplog.text):
            assert text not in source
            assert text[-30:] not in source
        for file in (tmp_path / "data").rglob("*"):
            assert not file.is_file() or text.encode() not in file.read_bytes(), file

    on_desk(body, tmp_path, TEAMS)


BAD_KEYS = [
    pytest.param({"name": " " * 3 + "x" * (limits.NAME_CHARACTERS_MAX + 1)}, "name", id="long name"),
    pytest.param({"name": "a\x1b[0m"}, "name", id="odd name"),
    pytest.param({"workspace": "wrkspc_none"}, "workspace", id="no workspace"),
    pytest.param({"workspace": THEIRS}, "workspace", id="archived workspace"),
    pytest.param({"role": "root"}, "role", id="no role"),
    pytest.param({"ends": "tomorrow"}, "ends", id="no day"),
    pytest.param({"ends": "2026-05-27"}, "ends", id="over"),
    pytest.param({"ends": "2036-05-27"}, "ends", id="beyond ten years"),
    pytest.param({"ends": "9999-12-31"}, "ends", id="never"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_KEYS)
def test_a_key_that_cannot_be_is_said_at_its_field_with_what_was_typed(
    fields: dict[str, str], field: str, tmp_path: Path
) -> None:
    async def body(desk: Desk) -> None:
        await _teams(desk)
        await desk.store.access.archive_workspace(THEIRS, now_ms=T0)
        await desk.here.doors.refresh(desk.store.access)
        before = await _access(desk)
        page = await _submit(
            await desk.logged_in("admin"), "/console/keys/new", {**NEW_KEY, "name": "kept", **fields}
        )
        assert page.status == 400
        assert list(_errors(page)) == [field]
        if field != "name":
            assert page.attributes("input", id="name")[0]["value"] == "kept"
        if field == "ends":
            assert page.attributes("input", id="ends")[0]["value"] == fields["ends"]
        assert await _access(desk) == before

    on_desk(body, tmp_path, TEAMS)


@pytest.mark.parametrize("key_id", ["", "x", "settings-1", "apikey_01" + "0" * 22, "apikey_01" + "a" * 23, "'; --"])
def test_a_form_without_the_id_that_we_drew_makes_no_key(key_id: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _teams(desk)
        before = await _access(desk)
        page = await _submit(await desk.logged_in("admin"), "/console/keys/new", {**NEW_KEY, "id": key_id})
        assert page.status == 400
        assert await _access(desk) == before

    on_desk(body, tmp_path, TEAMS)


def test_a_key_opens_to_the_end_of_its_last_day(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _teams(desk)
        browser = await desk.logged_in("admin")
        page = await _submit(browser, "/console/keys/new", {**NEW_KEY, "ends": "2026-05-28"})
        (text,) = page.texts("code", id="secret")
        desk.clock.at_ms = T0 - T0 % DAY_MS + DAY_MS - 1
        assert _opens(desk, text)
        desk.clock.at_ms += 1
        assert not _opens(desk, text)

    on_desk(body, tmp_path, TEAMS)


def test_the_first_key_is_an_admins_unless_somebody_means_otherwise(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = desk.browser()
        page = await browser.get("/console/keys/new")
        assert "This is the first key" in page.texts("p", class_="problem")[0]
        chosen = [found["value"] for found in page.attributes("option") if "selected" in found]
        assert chosen == [DEFAULT_WORKSPACE, "admin"]
        fields = {"name": "mine", "workspace": DEFAULT_WORKSPACE, "role": "admin", "ends": ""}
        made = await _submit(browser, "/console/keys/new", fields)
        (text,) = made.texts("code", id="secret")
        assert "From now on everybody has to show a key. Log in with this one." in made.texts("p", class_="problem")
        assert (await browser.send("GET", "/console/keys")).headers["location"].startswith("/console/login")
        await browser.log_in(text)
        assert (await browser.get("/console/keys")).has_link("New key")

    on_desk(body, tmp_path)


def test_a_revoked_key_ends_at_once_and_its_session_with_it(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, _ = await _teams(desk)
        team, admin = await desk.logged_in("ours"), await desk.logged_in("admin")
        page = await _submit(admin, f"/console/keys/{ours.id}/revoke", {})
        assert (page.status, page.answer.headers["location"]) == (303, "/console/keys")
        assert not _opens(desk, "ours")
        assert (await team.send("GET", "/console/keys")).status == 303

    on_desk(body, tmp_path, TEAMS)


def test_who_revokes_the_last_admins_key_is_told(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        first = await desk.add_key("first", OURS, role="admin")
        browser = await desk.logged_in("first")
        warned = (await browser.get(f"/console/keys/{first.id}/revoke")).texts("p", class_="problem")
        assert [text[:20] for text in warned] == ["You are logged in wi", "No other admin's key"]
        await desk.add_key("second", THEIRS, role="admin")
        warned = (await browser.get(f"/console/keys/{first.id}/revoke")).texts("p", class_="problem")
        assert [text[:20] for text in warned] == ["You are logged in wi"]

    on_desk(body, tmp_path)


@pytest.mark.parametrize(("overlap", "ms"), [("0", 0), ("1h", 3_600_000), ("24h", DAY_MS), ("7d", 7 * DAY_MS)])
def test_a_rotated_key_opens_beside_the_new_one_for_as_long_as_chosen(overlap: str, ms: int, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, _ = await _teams(desk)
        browser = await desk.logged_in("admin")
        fields = {**await _form(browser, f"/console/keys/{ours.id}/rotate"), "overlap": overlap}
        answer = await browser.send("POST", f"/console/keys/{ours.id}/rotate", fields)
        (text,) = Page(answer).texts("code", id="secret")
        again = await browser.send("POST", f"/console/keys/{ours.id}/rotate", fields)
        assert again.status == 400
        assert text not in again.body.decode()
        made = (await _access(desk)).keys[0]
        assert (made.name, made.workspace, made.role) == (ours.name, ours.workspace, ours.role)
        if ms:
            desk.clock.at_ms = T0 + ms - 1
            assert _opens(desk, "ours")
        desk.clock.at_ms = T0 + ms
        assert (_opens(desk, "ours"), _opens(desk, text)) == (False, True)

    on_desk(body, tmp_path, TEAMS)


@pytest.mark.parametrize("overlap", ["", "100y", "-1"])
def test_another_overlap_is_refused(overlap: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, _ = await _teams(desk)
        before = await _access(desk)
        page = await _submit(await desk.logged_in("admin"), f"/console/keys/{ours.id}/rotate", {"overlap": overlap})
        assert page.status == 400
        assert await _access(desk) == before

    on_desk(body, tmp_path, TEAMS)


def test_what_opens_nothing_cannot_be_rotated(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        ours, _ = await _teams(desk)
        browser = await desk.logged_in("admin")
        fields = {**await _form(browser, f"/console/keys/{ours.id}/rotate"), "overlap": "24h"}
        await _submit(browser, f"/console/keys/{ours.id}/revoke", {})
        assert (await browser.send("POST", f"/console/keys/{ours.id}/rotate", fields)).status == 400
        assert len((await _access(desk)).keys) == 2

    on_desk(body, tmp_path, TEAMS)


# --- Workspaces and rules -------------------------------------------------------------------------------------------

ALL_RULES = {
    "requests_per_minute": "600",
    "queue_requests_max": "50000",
    "batch_requests_max": "1000",
    "usd_per_day": "12.5",
    "usd_per_month": "300",
    "weight": "0.25",
    "models": "claude-haiku-*\nqwen*",
    "engines": "http://gpu-*",
    "results_days": "7",
    "requests_days": "0",
}


def test_every_rule_is_a_field_of_the_form() -> None:
    assert [field.name for field in rules.FIELDS] == list(Rules.__struct_fields__)
    assert set(ALL_RULES) == set(Rules.__struct_fields__)


def test_a_workspace_is_made_with_its_rules_and_they_come_back_as_they_were_typed(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("admin")
        page = await _submit(browser, "/console/keys/workspaces/new", {"name": "research", **ALL_RULES})
        assert page.status == 303
        made = (await _access(desk)).workspaces[1]
        assert (made.name, made.created_at_ms) == ("research", T0)
        assert desk.here.doors.rules_of(made.id) == Rules(
            requests_per_minute=600,
            queue_requests_max=50_000,
            batch_requests_max=1_000,
            usd_per_day=12.5,
            usd_per_month=300.0,
            weight=0.25,
            models=["claude-haiku-*", "qwen*"],
            engines=["http://gpu-*"],
            results_days=7,
            requests_days=0,
        )
        path = f"/console/keys/workspaces/{made.id}/edit"
        shown = await browser.get(path)
        typed = {found["name"]: found["value"] for found in shown.attributes("input") if found["name"] in ALL_RULES}
        areas = zip(("models", "engines"), shown.texts("textarea"), strict=True)
        assert {**typed, **{name: text.removeprefix("\n") for name, text in areas}} == ALL_RULES
        await _submit(browser, path, {"usd_per_day": "3"})
        assert desk.here.doors.rules_of(made.id) == Rules(usd_per_day=3.0), "an empty field is no rule"

    on_desk(body, tmp_path, TEAMS)


BAD_RULES = [
    *((name, text) for name in ("requests_per_minute", "queue_requests_max") for text in ("0", "-1", "1e3", "1.5")),
    *(("requests_per_minute", text) for text in ("١٢", "1,000", "1_000", "x", "9" * 19)),
    ("batch_requests_max", str(limits.BATCH_REQUESTS_MAX + 1)),
    *((name, text) for name in ("usd_per_day", "usd_per_month") for text in ("0", "-5", "nan", "inf", "1e9", "2,5")),
    ("usd_per_day", str(int(limits.BUDGET_USD_MAX) + 1)),
    ("weight", "0"),
    ("weight", "1001"),
    ("results_days", "30"),
    ("requests_days", "30"),
]


@pytest.mark.parametrize(("name", "text"), BAD_RULES)
def test_a_rule_that_cannot_be_is_said_at_its_field_with_what_was_typed(name: str, text: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _teams(desk)
        before = await _access(desk)
        browser = await desk.logged_in("admin")
        for path in ("/console/keys/workspaces/new", f"/console/keys/workspaces/{OURS}/edit"):
            page = await _submit(browser, path, {"name": "research", "models": "kept-*", name: text})
            assert page.status == 400
            assert list(_errors(page)) == [name]
            assert page.attributes("input", id=name)[0]["value"] == text
            assert page.texts("textarea", id="models") == ["\nkept-*"]
        assert await _access(desk) == before

    on_desk(body, tmp_path, TEAMS)


@pytest.mark.parametrize("name", ["", "default", "team ours", "wrkspc_x", "a\u202eb", "x" * 101])
def test_a_name_that_cannot_be_or_is_taken_is_said_at_its_field(name: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _teams(desk)
        before = await _access(desk)
        page = await _submit(await desk.logged_in("admin"), "/console/keys/workspaces/new", {"name": name})
        assert page.status == 400
        assert list(_errors(page)) == ["name"]
        assert await _access(desk) == before

    on_desk(body, tmp_path, TEAMS)


def test_the_default_workspace_has_rules_and_no_end(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("admin")
        await _submit(browser, f"/console/keys/workspaces/{DEFAULT_WORKSPACE}/edit", {"queue_requests_max": "9"})
        assert desk.here.doors.rules_of(DEFAULT_WORKSPACE).queue_requests_max == 9
        sent = {"token": await browser.token("/console/keys"), "confirm": "yes"}
        path = f"/console/keys/workspaces/{DEFAULT_WORKSPACE}/archive"
        assert (await browser.send("POST", path, sent)).status == 400
        assert _opens(desk, "admin")

    on_desk(body, tmp_path, TEAMS)


def test_a_workspace_of_the_settings_gets_a_name_with_its_rules(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("admin")
        path = f"/console/keys/workspaces/{OURS}"
        nameless = await _submit(browser, f"{path}/edit", {"name": "", "usd_per_day": "5"})
        assert (nameless.status, list(_errors(nameless))) == (400, ["name"])
        sent = {"token": await browser.token("/console/keys"), "confirm": "yes"}
        assert (await browser.send("POST", f"{path}/archive", sent)).status == 400
        assert (await _submit(browser, f"{path}/edit", {"name": "research", "usd_per_day": "5"})).status == 303
        assert desk.here.doors.name_of(OURS) == "research"
        assert desk.here.doors.rules_of(OURS).usd_per_day == 5.0
        assert (await _submit(browser, f"{path}/archive", {"confirm": "yes"})).status == 303
        assert not _opens(desk, "ours")

    on_desk(body, tmp_path, Settings(keys=[*ADMIN, *keys(ours=OURS)]))


def test_archiving_wants_a_tick_and_ends_all_keys_at_once(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _teams(desk)
        team, admin = await desk.logged_in("ours"), await desk.logged_in("admin")
        path = f"/console/keys/workspaces/{OURS}/archive"
        assert (await _submit(admin, path, {})).status == 400
        assert _opens(desk, "ours")
        assert (await _submit(admin, path, {"confirm": "yes"})).status == 303
        assert not _opens(desk, "ours")
        assert (await team.send("GET", "/console/keys")).status == 303
        assert _opens(desk, "theirs")

    on_desk(body, tmp_path, TEAMS)


@pytest.mark.parametrize("path", ["keys/none/revoke", "keys/none/rotate", "keys/workspaces/none/edit"])
def test_what_an_admin_names_wrongly_is_not_found(path: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        assert (await (await desk.logged_in("admin")).get(f"/console/{path}")).status == 404

    on_desk(body, tmp_path, TEAMS)


def test_limits_are_shown_as_they_are_now(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _teams(desk)
        some = Rules(requests_per_minute=60, queue_requests_max=10, usd_per_day=4.0)
        await desk.store.access.set_rules(OURS, some)
        await desk.here.doors.refresh(desk.store.access)
        await desk.batch(["a", "b", "c"], workspace=OURS)
        await desk.batch(["a"], workspace=THEIRS)
        browser = await desk.logged_in("ours")
        asked = {"x-api-key": "ours", "anthropic-version": "2023-06-01"}
        for _ in range(2):
            await browser.send("GET", "/v1/messages/batches", headers=asked)
        used = Used(model="m", engine="e", service_tier="batch", sums=Sums(requests=1, usd_nano=NANO))
        await desk.store.usage.note([Entry(workspace=OURS, api_key="", used=used)], now_ms=T0)
        page = await browser.get("/console/keys")
        labels = [found["aria-label"] for found in page.attributes("svg", class_="bar")]
        assert labels == ["$1.00 of $4.00 spent", "2 of 60 taken", "3 of 10 taken"]
        desk.clock.at_ms = T0 + 1_000
        page = await browser.get("/console/keys")
        assert "Requests of this minute: 1 of 60, 59 left" in page.texts("p")

    on_desk(body, tmp_path, TEAMS)


def test_hostile_names_and_rules_are_text(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        browser = await desk.logged_in("admin")
        path = "/console/keys/workspaces/new"
        await _submit(browser, path, {"name": HARM, "models": f"{HARM}\n\x1b[0m\u202e"})
        owner = (await _access(desk)).workspaces[1].id
        made = await _submit(browser, "/console/keys/new", {**NEW_KEY, "name": HARM, "workspace": owner})
        key_id = (await _access(desk)).keys[0].id
        sources = [made.source]
        for path in ("keys", "keys/new", f"keys/{key_id}/revoke", f"keys/{key_id}/rotate", "usage?by=workspace"):
            sources.append((await browser.get(f"/console/{path}")).source)
        for path in (f"{owner}/edit", f"{owner}/archive"):
            sources.append((await browser.get(f"/console/keys/workspaces/{path}")).source)
        for source in sources:
            assert "&lt;script&gt;alert(1)" in source
            assert "<script>alert" not in source
            assert [tag for tag in re.findall(r"<[a-z][^>]*>", source) if _INLINE.search(tag)] == []
        assert "\x1b" not in sources[1]

    on_desk(body, tmp_path, TEAMS)
