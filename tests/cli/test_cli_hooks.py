"""`overnight hooks`: on a data directory, beside a server or without one."""

import asyncio
import json
import ssl
from base64 import b64decode
from pathlib import Path
from subprocess import run

import pytest
from cli_calls import Printed, inside, overnight
from msgspec.structs import replace
from standardwebhooks import Webhook

from overnight.core import hook as hooks
from overnight.core.hook import Heard
from overnight.core.workspace import Workspace
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.limits import HOOKS_MAX
from overnight.ports.world import World
from overnight.store.store import open_beside, open_directory
from overnight.testing.hookreceiver import Reply, running_receiver

_THEIRS = WorkspaceId("wrkspc_01theirs")
_PUBLIC = "https://8.8.8.8/hook"  # No name has to be looked up for it, and nothing is sent.


@pytest.fixture(autouse=True)
def directory(tmp_path: Path) -> None:
    """A data directory that is there: making one would be said."""

    async def main() -> None:
        async with open_beside(tmp_path, World()):
            pass

    asyncio.run(main())


def called(data: Path, *arguments: str, private: bool = True, **environment: str) -> Printed:
    given = {"OVERNIGHT_DATA": str(data), **environment}
    if private:
        given["OVERNIGHT_HOOKS_TO_PRIVATE_ADDRESSES"] = "true"
    return inside("hooks", *arguments, environment=given)


def made(data: Path, *arguments: str) -> dict[str, str]:
    printed = called(data, "create", *arguments, "--json")
    assert (printed.code, printed.err) == (0, "")
    found = json.loads(printed.out)
    assert isinstance(found, dict)
    return found


def add_workspace(data: Path, *, archived_at_ms: int | None = None) -> None:
    async def main() -> None:
        async with open_beside(data, World()) as store:
            await store.access.add_workspace(Workspace(id=_THEIRS, name="theirs"))
            if archived_at_ms is not None:
                await store.access.archive_workspace(_THEIRS, now_ms=archived_at_ms)

    asyncio.run(main())


def announce(data: Path, *whats: str, dead: bool = False) -> None:
    """Write deliveries, each of them given up if that is wanted."""

    async def main() -> None:
        async with open_beside(data, World()) as store:
            for what in whats:
                event = hooks.Event(type="budget.reached", workspace=DEFAULT_WORKSPACE, what=what, data={"n": what})
                await store.hooks.announce(event, now_ms=1)
            for due in await store.hooks.due(now_ms=1, limit=10):
                over = hooks.after(due.delivery, Heard(status=410), dice=0.5, now_ms=2)
                await store.hooks.note(replace(over, trouble="HTTP 410\x1b[2J") if dead else due.delivery)

    asyncio.run(main())


def test_create_shows_the_secret_once(tmp_path: Path) -> None:
    printed = called(tmp_path, "create", _PUBLIC, "--event", "batch.ended")
    hook, secret = printed.out.splitlines()
    assert printed.code == 0
    assert hook.endswith(f"  batch.ended  of {DEFAULT_WORKSPACE}")
    shown = secret.removeprefix("secret: ")
    assert len(b64decode(shown.removeprefix("whsec_"), validate=True)) == 32
    hook_id = hook.split()[0]
    others = [
        called(tmp_path, *verb) for verb in (("list",), ("list", "--json"), ("deliveries",), ("delete", hook_id))
    ]
    assert [other.code for other in others] == [0, 0, 0, 0]
    assert all(shown not in other.out + other.err for other in others)


def test_no_two_hooks_have_the_same_secret(tmp_path: Path) -> None:
    assert made(tmp_path, _PUBLIC)["secret"] != made(tmp_path, _PUBLIC)["secret"]


def test_a_hook_wants_all_events_unless_some_are_named(tmp_path: Path) -> None:
    assert made(tmp_path, _PUBLIC)["events"] == list(hooks.EVENTS)
    twice = ("--event", "budget.reached", "--event", "budget.reached")
    assert made(tmp_path, _PUBLIC, *twice)["events"] == ["budget.reached"]
    assert called(tmp_path, "create", _PUBLIC, "--event", "batch.begun").code == 2


def test_a_private_address_is_refused_with_what_to_do(tmp_path: Path) -> None:
    printed = called(tmp_path, "create", "http://127.0.0.1:9/", private=False)
    assert (printed.code, printed.out) == (2, "")
    assert printed.err == (
        "overnight: 127.0.0.1 leads to 127.0.0.1, which is not a public address; "
        "if that is wanted, set hooks_to_private_addresses\n"
    )
    assert called(tmp_path, "list").out == ""


def test_a_password_in_a_url_is_not_repeated(tmp_path: Path) -> None:
    printed = called(tmp_path, "create", "https://user:hunter2@8.8.8.8/")
    assert printed.code == 2
    assert "hunter2" not in printed.out + printed.err


def test_a_workspace_is_found_by_its_name_its_id_and_its_key(tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "overnight.toml"
    add_workspace(data)
    config.write_text(f'[[keys]]\nsha256 = "{"0" * 64}"\nworkspace = "wrkspc_01ofakey"\n')
    for asked in ("theirs", _THEIRS):
        assert made(data, _PUBLIC, "--workspace", asked)["workspace_id"] == _THEIRS
    of_key = ("--workspace", "wrkspc_01ofakey", "--config", str(config))
    assert made(data, _PUBLIC, *of_key)["workspace_id"] == "wrkspc_01ofakey"
    made(data, _PUBLIC, "--workspace", "default")
    assert len(called(data, "list").out.splitlines()) == 4
    assert len(called(data, "list", "--workspace", "theirs").out.splitlines()) == 2
    printed = called(data, "list", "--workspace", "nobody")
    assert (printed.code, printed.err.startswith("overnight: there is no workspace 'nobody'")) == (2, True)


def test_an_archived_workspace_gets_no_hook(tmp_path: Path) -> None:
    add_workspace(tmp_path, archived_at_ms=1)
    printed = called(tmp_path, "create", _PUBLIC, "--workspace", "theirs")
    assert (printed.code, "is archived" in printed.err) == (2, True)
    assert called(tmp_path, "list", "--workspace", "theirs").code == 0


def test_one_hook_too_many_is_refused(tmp_path: Path) -> None:
    for _ in range(HOOKS_MAX):
        made(tmp_path, _PUBLIC)
    printed = called(tmp_path, "create", _PUBLIC)
    assert (printed.code, "as many as it may" in printed.err) == (2, True)


def test_delete_removes_it_and_what_was_on_its_way(tmp_path: Path) -> None:
    hook_id = made(tmp_path, _PUBLIC)["id"]
    announce(tmp_path, "a")
    assert len(called(tmp_path, "deliveries").out.splitlines()) == 1
    assert called(tmp_path, "delete", hook_id).out == f"{hook_id} is removed.\n"
    assert (called(tmp_path, "list").out, called(tmp_path, "deliveries").out) == ("", "")
    printed = called(tmp_path, "delete", hook_id)
    assert (printed.code, printed.err) == (
        2,
        f"overnight: there is no hook {hook_id!r}; `overnight hooks list` lists them\n",
    )


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        pytest.param(Reply(200, {}, b"thank you"), 0, "HTTP 200\nthank you\n", id="taken"),
        pytest.param(Reply(204), 0, "HTTP 204\n", id="taken without a word"),
        pytest.param(Reply(500, {}, b"\x1b[2Jno"), 1, "HTTP 500\n?[2Jno\n", id="failed, with signs for a terminal"),
        pytest.param(Reply(302, {"location": "/"}), 1, "HTTP 302\n", id="a redirect"),
    ],
)
def test_test_sends_at_once_and_prints_what_came_back(tmp_path: Path, reply: Reply, code: int, said: str) -> None:
    with running_receiver(lambda _: reply) as receiver:
        hook = made(tmp_path, receiver.url)
        printed = called(tmp_path, "test", hook["id"])
        (got,) = receiver.got
    assert (printed.code, printed.out) == (code, said)
    told = Webhook(hook["secret"]).verify(got.body, got.headers)
    assert told["type"] == "hook.test"
    assert told["data"] == {"hook_id": hook["id"], "workspace_id": DEFAULT_WORKSPACE}
    assert called(tmp_path, "deliveries").out == "", "a test is no delivery"


def test_test_checks_the_address_again(tmp_path: Path) -> None:
    with running_receiver() as receiver:
        hook_id = made(tmp_path, receiver.url)["id"]
        printed = called(tmp_path, "test", hook_id, private=False)
        assert (printed.code, "not a public address" in printed.out, receiver.got) == (1, True, [])


def test_deliveries_are_lines_or_json(tmp_path: Path) -> None:
    hook_id = made(tmp_path, _PUBLIC)["id"]
    announce(tmp_path, "a", "b", dead=True)
    announce(tmp_path, "c")
    line = called(tmp_path, "deliveries", "--status", "dead", "--limit", "1").out
    assert line.endswith(f"  budget.reached  {hook_id}  dead  1 attempts  HTTP 410?[2J\n")
    pending = json.loads(called(tmp_path, "deliveries", "--status", "pending", "--json").out)
    assert pending["id"].startswith("delivery_01")
    assert (pending["due_at"], pending["ended_at"]) == ("1970-01-01T00:00:00.001000Z", None)
    assert pending["body"]["data"] == {"n": "c"}
    assert len(called(tmp_path, "deliveries", "--hook", hook_id).out.splitlines()) == 3
    assert called(tmp_path, "deliveries", "--hook", "hook_01other").out == ""


@pytest.mark.parametrize("limit", ["0", "1001"])
def test_a_list_has_bounds(tmp_path: Path, limit: str) -> None:
    assert called(tmp_path, "deliveries", "--limit", limit).code == 2


def test_resend_makes_due_what_is_named_up_to_one_that_is_not_there(tmp_path: Path) -> None:
    made(tmp_path, _PUBLIC)
    announce(tmp_path, "a", "b", "c", dead=True)
    listed = called(tmp_path, "deliveries", "--json").out.splitlines()
    first, second, third = (json.loads(line)["id"] for line in listed)
    assert called(tmp_path, "resend", first).out == f"{first} is due now.\n"
    printed = called(tmp_path, "resend", second, "delivery_01x", third)
    assert (printed.code, printed.out) == (2, f"{second} is due now.\n")
    assert "there is no delivery 'delivery_01x'" in printed.err
    (dead,) = called(tmp_path, "deliveries", "--status", "dead", "--json").out.splitlines()
    assert json.loads(dead)["id"] == third


def test_it_works_while_somebody_else_holds_the_directory(tmp_path: Path) -> None:
    async def main() -> Printed:
        async with open_directory(tmp_path, World()) as store:
            printed = await asyncio.to_thread(called, tmp_path, "create", _PUBLIC)
            assert [hook.url for hook in await store.hooks.hooks()] == [_PUBLIC]
            return printed

    assert asyncio.run(main()).code == 0


def test_tls_is_verified_for_the_name_in_the_url(tmp_path: Path) -> None:
    """A process of its own: what it trusts is read from the environment when it starts."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *kind, *names, "-out", str(certificate), "-keyout", str(key)]
    run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    environment = {
        "OVERNIGHT_DATA": str(tmp_path),
        "OVERNIGHT_HOOKS_TO_PRIVATE_ADDRESSES": "true",
        "SSL_CERT_FILE": str(certificate),
    }
    with running_receiver(context=context) as receiver:
        printed = [
            overnight("hooks", "test", made(tmp_path, url)["id"], environment=environment)
            for url in (f"https://localhost:{receiver.port}/", f"https://127.0.0.1:{receiver.port}/")
        ]
        assert len(receiver.got) == 1
    assert [(item.code, item.out) for item in printed] == [
        (0, "HTTP 204\n"),
        (1, "its TLS certificate is not valid\n"),
    ]


@pytest.mark.parametrize(
    ("verb", "said"), [("list", "overnight hooks create URL"), ("deliveries", "hooks test HOOK")]
)
def test_an_empty_list_says_what_to_do_and_prints_no_line(verb: str, said: str, tmp_path: Path) -> None:
    add_workspace(tmp_path / "data")
    printed = called(tmp_path / "data", verb)
    assert (printed.code, printed.out) == (0, "")
    assert said in printed.err


def test_a_directory_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    printed = called(tmp_path / "data", "list")
    assert (printed.code, printed.out) == (2, "")
    assert "there is no data directory" in printed.err
    assert not (tmp_path / "data").exists()
