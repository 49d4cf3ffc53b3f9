"""`overnight traces`: before a deletion it finds a batch everywhere, after one nowhere, while the server runs."""

import json
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from cli_calls import Printed, inside

from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess, running_server
from overnight.testing.wireclient import BATCHES, WireClient, request

PHRASE = 'Zoë "the owl" Nightingale'  # Spelled in three ways in JSON.
LARGE = 300  # Requests of a batch whose results are an object; with fewer they are in their row.
LOOKS_MAX = 200


@pytest.fixture
def engine_url() -> Iterator[str]:
    with upstream_process() as url:
        yield url


def traces(data: Path, batch_id: str, *arguments: str) -> Printed:
    return inside("traces", batch_id, "--data", str(data), *arguments)


def places(data: Path, batch_id: str) -> dict[str, set[str]]:
    """By what was found, where."""
    printed = traces(data, batch_id, "--text", PHRASE, "--json")
    found = json.loads(printed.out)["traces"]
    assert printed.code == (1 if found else 0)
    return {what: {item["place"] for item in found if item["what"] == what} for what in ("id", "text")}


def ended(client: WireClient, requests: list[object]) -> str:
    batch_id = str(client.create(requests)["id"])
    while client.retrieve(batch_id)["processing_status"] != "ended":
        pass
    return batch_id


def _noise(number: int) -> str:
    """What does not get smaller than 60 bytes when it is compressed."""
    return sha256(str(number).encode()).hexdigest() * 3 + sha256(str(-number).encode()).hexdigest()


def gone(server: ServerProcess, client: WireClient, data: Path, batch_id: str) -> None:
    """Return when nothing is left; each look takes longer than a pass of upkeep that was rung."""
    for _ in range(LOOKS_MAX):
        if traces(data, batch_id, "--text", PHRASE).code == 0:
            return
        assert client.call("GET", "/health").status == 200, server.log()
    raise AssertionError(places(data, batch_id))


@pytest.mark.parametrize("count", [1, LARGE], ids=["in its row", "in objects"])
def test_what_is_deleted_is_nowhere_while_the_server_runs(count: int, tmp_path: Path, engine_url: str) -> None:
    data = tmp_path / "data"
    with (
        running_server(data, "--engine", engine_url) as server,
        closing(WireClient(server.url)) as client,
    ):
        batch_id = ended(client, [request(f"r{n}", f"{PHRASE} {_noise(n)}") for n in range(count)])
        other = ended(client, [request("r", "somebody else")])
        before = places(data, batch_id)
        assert {"table batches, column id", "table segments, column batch_id"} <= before["id"]
        if count == 1:
            assert {
                "table segments, column requests_inline",
                "table segments, column result_inline",
            } <= before["text"]
        else:
            assert f"inside of objects/requests/{batch_id}.gz" in before["text"]
            assert {f"name of objects/results/{batch_id}", f"name of objects/requests/{batch_id}.gz"} <= before["id"]
        assert any(place.startswith("bytes of control.sqlite3") for place in before["id"])
        assert any(place.startswith("gzip inside of control.sqlite3") for place in before["text"]) == (count == 1)
        assert client.call("DELETE", f"{BATCHES}/{batch_id}").status == 200
        gone(server, client, data, batch_id)
        assert b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file()).count(batch_id.encode()) == 0
        assert client.results(other)["r"]["type"] == "succeeded"
        assert traces(data, other).code == 1
    assert places(data, batch_id) == {"id": set(), "text": set()}


def test_it_says_in_words_what_it_found(tmp_path: Path, engine_url: str) -> None:
    data = tmp_path / "data"
    with running_server(data, "--engine", engine_url) as server, closing(WireClient(server.url)) as client:
        batch_id = ended(client, [request("r", PHRASE)])
        printed = traces(data, batch_id, "--text", PHRASE)
        assert "table batches, column id: the id, 1 times" in printed.out.splitlines()
        assert "table segments, column requests_inline: the text, 1 times" in printed.out.splitlines()
        assert printed.out.splitlines()[-1].startswith("Found in ")
        other = batch_id[:-1] + ("a" if batch_id[-1] != "a" else "b")
        assert traces(data, other) == Printed(0, f"Nothing is left of {other}.\n", "")


@pytest.mark.parametrize(
    ("batch_id", "said"),
    [
        ("msgbatch_01", "is no id of a batch"),
        ("../../etc", "is no id of a batch"),
        ("msgbatch_01" + "a" * 22, "--data"),
    ],
)
def test_a_wrong_question_is_no_proof(batch_id: str, said: str, tmp_path: Path) -> None:
    printed = traces(tmp_path / "none", batch_id)
    assert (printed.code, printed.out) == (2, "")
    assert said in printed.err
