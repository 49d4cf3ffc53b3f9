"""Workspaces and keys at a real server: what commands change beside it is noticed, and no key sees another's."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from teams import Teams, overnight, teams

from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerFailed, ServerProcess
from overnight.testing.wireclient import BATCHES, params, request

_INVALID = (401, "authentication_error", "API key is invalid.")


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[Teams]:
    data = tmp_path_factory.mktemp("workspaces") / "data"
    overnight("keys", "create", data=data)
    with teams(data, "--engine", upstream) as found:
        yield found


def test_a_key_that_was_made_beside_a_running_server_opens_and_one_that_is_revoked_opens_nothing(
    here: Teams,
) -> None:
    key = here.new_key()
    here.run("keys", "revoke", key["id"])
    assert here.until(key, lambda answer: answer.status != 200).error == _INVALID
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/messages"), ("POST", BATCHES)):
        with here.client(key) as asking:
            assert asking.call(method, path).error == _INVALID


def test_a_key_that_is_over_opens_nothing(here: Teams) -> None:
    key = here.created("keys", "--expires", "3s")
    here.until(key, lambda answer: answer.status == 200)
    assert here.until(key, lambda answer: answer.status != 200).error == _INVALID


def test_both_keys_open_while_one_takes_the_place_of_the_other(here: Teams) -> None:
    old = here.new_key()
    new = json.loads(here.run("keys", "rotate", old["id"], "--json"))
    here.until(new, lambda answer: answer.status == 200)
    assert here.until(old, lambda answer: True).status == 200
    last = json.loads(here.run("keys", "rotate", new["id"], "--overlap", "0s", "--json"))
    assert here.until(new, lambda answer: answer.status != 200).error == _INVALID
    here.until(last, lambda answer: answer.status == 200)


def test_keys_of_an_archived_workspace_open_nothing_and_its_batches_end(here: Teams) -> None:
    key = here.new_workspace("archived")
    with here.client(key) as asking:
        asking.create([request("a", "[[slow 1]]")])
    sealed = here.server.seen("seal.committed")
    here.run("workspaces", "archive", "archived")
    assert here.until(key, lambda answer: answer.status != 200).error == _INVALID
    here.server.wait_mark("seal.committed", beyond=sealed - 1)


def test_a_key_sees_what_is_of_its_workspace_and_not_that_there_are_others(here: Teams) -> None:
    ours, theirs = here.new_workspace("ours"), here.new_workspace("theirs")
    admin = here.new_key("--admin")
    with here.client(theirs) as asking:
        batch_id = asking.create([request("a")])["id"]
    missing = batch_id[:-4] + "1111"
    for key in (ours, admin):
        with here.client(key) as asking:
            assert batch_id not in asking.ids()
            for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/results"), ("DELETE", "")):
                answers = [asking.call(method, f"{BATCHES}/{name}{path}") for name in (batch_id, missing)]
                assert {answer.status for answer in answers} == {404}
                assert answers[0].error[2].replace(batch_id, missing) == answers[1].error[2]
            for headers in (
                {"anthropic-workspace-id": theirs["workspace"]["id"]},
                {"anthropic-workspace-id": "wrkspc_none"},
            ):
                refused = asking.call("GET", BATCHES, headers=headers)
                said = "anthropic-workspace-id: this API key is not of that workspace"
                assert refused.error == (403, "permission_error", said)
                assert "anthropic-workspace-id" not in refused.headers


def test_a_key_may_name_its_own_workspace(here: Teams) -> None:
    key = here.new_workspace("named")
    own = key["workspace"]["id"]
    with here.client(key) as asking:
        answer = asking.call("GET", BATCHES, headers={"anthropic-workspace-id": own})
    assert (answer.status, answer.headers["anthropic-workspace-id"]) == (200, own)


def test_every_answer_to_a_key_names_the_same_organization(here: Teams) -> None:
    keys = [here.new_key(), here.new_workspace("organized")]
    seen = set()
    for key in keys:
        with here.client(key) as asking:
            seen |= {
                asking.call("GET", path).headers["anthropic-organization-id"]
                for path in (BATCHES, f"{BATCHES}/msgbatch_01none", "/v1/models")
            }
    (organization,) = seen
    assert uuid.UUID(organization).version == 4
    with here.client({"key": "guess"}) as asking:
        assert "anthropic-organization-id" not in asking.call("GET", BATCHES).headers


def test_the_organization_is_the_same_after_a_restart_and_different_elsewhere(tmp_path: Path, upstream: str) -> None:
    found = []
    for name in ("here", "here", "elsewhere"):
        key = json.loads(overnight("keys", "create", "--json", data=tmp_path / name))
        with teams(tmp_path / name, "--engine", upstream) as started, started.client(key) as asking:
            found.append(asking.call("GET", BATCHES).headers["anthropic-organization-id"])
    assert found[0] == found[1] != found[2]


def test_without_a_key_everybody_comes_in_and_a_key_of_the_store_closes(tmp_path: Path, upstream: str) -> None:
    with teams(tmp_path / "data", "--engine", upstream) as started:
        anybody = {"key": "any"}
        answer = started.until(anybody, lambda answer: True)
        assert (answer.status, "anthropic-organization-id" in answer.headers) == (200, False)
        key = started.new_key()
        assert started.until(anybody, lambda answer: answer.status != 200).error == _INVALID
        started.run("keys", "revoke", key["id"])
        started.until(key, lambda answer: answer.status != 200)
        assert started.until(anybody, lambda answer: True).error == _INVALID, "nothing opens by itself"


def test_a_server_that_others_can_reach_starts_with_a_key_of_the_store_and_not_without(
    tmp_path: Path, upstream: str
) -> None:
    flags = ("--engine", upstream, "--listen", "0.0.0.0:0")
    with pytest.raises(ServerFailed, match=r"exit code 2: .*overnight keys create"):
        ServerProcess(tmp_path / "data", *flags)
    overnight("keys", "create", data=tmp_path / "data")
    assert ServerProcess(tmp_path / "data", *flags).stop() == 0


def test_no_key_is_in_a_log_or_a_file_of_the_server(here: Teams) -> None:
    key = here.new_key()
    with here.client(key) as asking:
        batch_id = asking.create([request("a")])["id"]
        here.server.wait_ended(asking, batch_id)
        asking.call("POST", "/v1/messages", params("x"))
        asking.call("POST", BATCHES, b"{")
    kept = b"".join(path.read_bytes() for path in sorted(here.data.rglob("*")) if path.is_file())
    assert batch_id.encode() in kept
    assert key["key"].encode() not in kept
    assert key["key"] not in here.server.log()
