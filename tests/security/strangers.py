"""Two teams on one server, A with everything a team can have, B who wants to know of it, and what B is told."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from desk import T0, Browser, Desk
from ended import ended, errored, succeeded

from overnight.core.hook import Event, Hook
from overnight.core.usage import Sums, Used
from overnight.core.workspace import Key, Rules, Workspace
from overnight.ids import WorkspaceId
from overnight.server.access import digest_of
from overnight.store.usage import Entry
from overnight.testing.wireclient import Answer, request

A, B = WorkspaceId("wrkspc_01aaaaaaaaaaaaaaaaaaaaaa"), WorkspaceId("wrkspc_01bbbbbbbbbbbbbbbbbbbbbb")
SECRET = "zebra"  # In everything that A has a word in.
OF_A, OF_B, ADMIN_OF_B = "key-of-a", "key-of-b", "key-of-b-admin"
_CHANGING = (
    (re.compile(rb"req_\w+"), b"req"),
    (re.compile(rb'value="[0-9a-f]{64}"'), b'value="token"'),
    (re.compile(rb'value="(retry|hook|apikey)_01\w{22}"'), rb'value="\1"'),
)


class Ids(NamedTuple):
    """One of each thing that has an id: of A, or of nobody. By the names that paths have for them."""

    batch_id: str
    running_id: str
    key_id: str
    workspace_id: str
    hook_id: str
    delivery_id: str
    custom_id: str = "a-1"
    model_id: str = f"model-{SECRET}"
    name: str = "console.css"

    def in_path(self, path: str) -> str:
        """The path with these ids."""
        return path.replace("{model_id:path}", "{model_id}").format(**self._asdict())

    @property
    def names(self) -> list[str]:
        """All that belong to a team."""
        return list(self[:6])


async def with_keys(desk: Desk) -> None:
    """B with its keys, and a batch that waits and one that ended. A is not there yet."""
    await desk.store.access.add_workspace(Workspace(id=B, name="team b"))
    await _key(desk, OF_B, B, "workspace")
    await _key(desk, ADMIN_OF_B, B, "admin")
    await ended(desk.store, [request("b-1"), request("b-2")], succeeded, workspace=B)
    await desk.batch(workspace=B)
    await desk.here.doors.refresh(desk.store.access)


async def with_a(desk: Desk) -> Ids:
    """Everything of A."""
    rules = Rules(requests_per_minute=7_777, usd_per_day=77.0)
    await desk.store.access.add_workspace(Workspace(id=A, name=f"team {SECRET}", rules=rules))
    key_id = await _key(desk, OF_A, A, "workspace")
    hook = Hook(
        id="hook_01" + "A" * 22,
        workspace=A,
        url=f"https://{SECRET}.example/",
        events=("batch.ended", "budget.reached"),
        created_at_ms=T0,
    )
    await desk.store.hooks.add(hook, b"s" * 32)
    asked = [request(f"a-{number}", SECRET, model=f"model-{SECRET}") for number in range(1, 4)]
    batch_id = await ended(desk.store, asked[:1], succeeded, workspace=A)
    await ended(desk.store, asked, lambda row: errored(row, said=SECRET), workspace=A)
    running_id = await desk.batch([SECRET] * 3, workspace=A, model=f"model-{SECRET}")
    await desk.store.hooks.announce(
        Event(type="budget.reached", workspace=A, what=SECRET, data={"workspace_id": A}), now_ms=T0
    )
    sums = Sums(requests=7, input_tokens=7_777, output_tokens=7_777, usd_nano=7_777_000_000)
    used = Used(model=f"model-{SECRET}", engine=SECRET, service_tier="standard", sums=sums)
    await desk.store.usage.note([Entry(workspace=A, api_key=key_id, used=used)], now_ms=T0)
    desk.here.journal.add(used)
    await desk.here.doors.refresh(desk.store.access)
    (delivery, *_) = await desk.store.hooks.deliveries(workspace=A, limit=10)
    return Ids(batch_id, running_id, key_id, A, hook.id, delivery.id)


def of_nobody(ids: Ids) -> Ids:
    """Ids that look the same and are nobody's."""
    missing = {name: f"{value[:-4]}zzzz" for name, value in zip(ids._fields, ids.names, strict=False)}
    return ids._replace(**missing, custom_id="a-9", model_id="model-zulus")


async def _key(desk: Desk, text: str, workspace: WorkspaceId, role: str) -> str:
    key_id = "apikey_01" + text.replace("-", "").ljust(22, "k")
    key = Key(
        id=key_id,
        sha256=digest_of(text),
        hint=f"sk-{SECRET}" if workspace == A else "sk-b",
        name=f"key {SECRET}" if workspace == A else "key of b",
        workspace=workspace,
        role=role,  # type: ignore[arg-type]
    )
    await desk.store.access.add_key(key)
    return key_id


async def asked(browser: Browser, key: str, method: str, path: str, *, token: str = "") -> Answer:
    """What the API answers to a key, or the console to a browser that is logged in, and to its form."""
    if path.startswith("/console"):
        fields = None if method == "GET" else {"token": token, "confirm": "yes", "types": "errored"}
        return await browser.send(method, path, fields)
    return await browser.send(method, path, headers=of_key(key))


def of_key(key: str) -> Mapping[str, str]:
    """The headers of a client with this key."""
    return {"x-api-key": key, "anthropic-version": "2023-06-01", "host": "far.example"}


def told(answer: Answer, ids: Ids | None = None) -> tuple[int, dict[str, str], bytes]:
    """What an answer tells, but for what is different each time, and the ids that were asked for."""
    body = answer.body
    for pattern, by in _CHANGING:
        body = pattern.sub(by, body)
    headers = {name: value for name, value in answer.headers.items() if name not in ("request-id", "content-length")}
    for number, name in enumerate(ids[:8] if ids else ()):
        body = body.replace(name.encode(), b"<%d>" % number)
        headers = {key: value.replace(name, f"<{number}>") for key, value in headers.items()}
    return answer.status, headers, body
