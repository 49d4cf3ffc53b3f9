"""Results as JSON Lines, CSV and Parquet: every row, every text as it was, and no formula runs."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from ended import ended, errored, message, succeeded
from visitor import Visitor

from overnight import limits
from overnight.errors import InvalidRequest, Overloaded, StoreError
from overnight.ids import BatchId
from overnight.ports.offload import InlineOffload
from overnight.ports.world import World
from overnight.server.exports import COLUMNS, FORMULA
from overnight.server.parquet import ParquetFiles
from overnight.store.layout import DataDirectory
from overnight.store.store import open_directory
from overnight.testing.observed import ObservedServer, observed_server
from overnight.testing.wireclient import BATCHES, Answer, WireClient, request
from overnight.wire import result
from overnight.wire.create import Request

_TEXTS = {
    "plain": "fine",
    "quotes": "she said \"no\", twice\r\nand left; 'so'",
    "empty": "",
    "unicode": "Ärger \u202e שלום 🎉 \u2028",
    "control": "nul\x00 bell\x07",
    "surrogate": "half \ud800 pair",
    "long": "w" * 300_000,
    **{f"formula{number}": f"{sign}1+cmd|' /C calc'!A0" for number, sign in enumerate(FORMULA)},
    "-dash": "fine",
}
_ROWS_MANY = 100_000
_EXTRA_MAX = 100 * limits.MIB


def _answered(item: Request) -> bytes:
    if item.custom_id == "refused":
        return errored(item, "rate_limit_error", "=too many")
    if item.custom_id == "canceled":
        return result.canceled(item.custom_id)
    if item.custom_id == "odd":
        return succeeded(item, content=[1], stop_reason=None, usage={"input_tokens": 2**70, "output_tokens": True})
    if item.custom_id == "two":
        return succeeded(item, content=[{"type": "text", "text": "a"}, {"type": "x"}, {"type": "text", "text": "b"}])
    return succeeded(item, _TEXTS[item.custom_id])


_NAMES = [*_TEXTS, "refused", "canceled", "odd", "two"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObservedServer, BatchId, Path]]:
    """A server whose directory has a name that is a pattern, and a quote."""
    data = tmp_path_factory.mktemp("downloads") / "it's [d]ata*"

    async def make() -> BatchId:
        async with open_directory(data, World()) as store:
            return await ended(store, [request(name, f"ask {name}") for name in _NAMES], _answered)

    batch_id = asyncio.run(make())
    with observed_server(data, "--engine", "http://127.0.0.1:9") as server:
        yield server, batch_id, data


@pytest.fixture
def client(served: tuple[ObservedServer, BatchId, Path]) -> Iterator[WireClient]:
    with closing(WireClient(served[0].url)) as found:
        yield found


@pytest.fixture
def batch_id(served: tuple[ObservedServer, BatchId, Path]) -> BatchId:
    return served[1]


def _export(client: WireClient, batch_id: str, query: str) -> Answer:
    answer = client.call("GET", f"/v1/overnight/batches/{batch_id}/export?{query}")
    assert answer.status == 200, answer
    return answer


def _csv(answer: Answer) -> dict[str, dict[str, str]]:
    csv.field_size_limit(limits.MIB)
    rows = list(csv.DictReader(io.StringIO(answer.body.decode("utf-8-sig"), newline="")))
    found = {row["custom_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def _parquet(answer: Answer, folder: Path) -> dict[str, dict[str, Any]]:
    file = folder / "found.parquet"
    file.write_bytes(answer.body)
    with duckdb.connect() as connection:
        relation = connection.read_parquet(str(file))
        return {row[0]: dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()}


def _expected(custom_id: str) -> str:
    return _TEXTS[custom_id].replace("\ud800", "\ufffd")


# --- What is in it --------------------------------------------------------------------------------------------------


def test_jsonl_is_to_the_byte_what_the_api_answers(client: WireClient, batch_id: BatchId) -> None:
    answer = _export(client, batch_id, "format=jsonl")
    assert answer.body == client.call("GET", f"{BATCHES}/{batch_id}/results").body
    assert answer.headers["content-type"] == "application/x-jsonl"
    assert answer.headers["content-disposition"] == f'attachment; filename="{batch_id}.jsonl"'


def test_jsonl_with_requests_has_the_same_results_and_what_was_asked(client: WireClient, batch_id: BatchId) -> None:
    lines = [json.loads(line) for line in _export(client, batch_id, "with=request").body.splitlines()]
    assert {line["custom_id"]: line["result"] for line in lines} == client.results(batch_id)
    assert all(line["params"]["messages"][0]["content"] == f"ask {line['custom_id']}" for line in lines)


def test_csv_has_every_row_and_every_text_as_it_was(client: WireClient, batch_id: BatchId) -> None:
    answer = _export(client, batch_id, "format=csv")
    rows = _csv(answer)
    assert set(rows) == {"'-dash", *_NAMES} - {"-dash"}
    assert list(rows["plain"]) == list(COLUMNS)
    for name in _TEXTS:
        if name.isalpha():
            assert rows[name]["text"] == _expected(name)
    assert json.loads(rows["plain"]["message"]) == message("fine")
    assert [rows["plain"][name] for name in ("input_tokens", "output_tokens", "cache_read", "cache_write")] == [
        "11",
        "7",
        "5",
        "3",
    ]
    assert answer.body.endswith(b"\r\n")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"


@pytest.mark.parametrize("number", range(len(FORMULA)))
def test_no_cell_of_a_csv_begins_as_a_formula(client: WireClient, batch_id: BatchId, number: int) -> None:
    rows = _csv(_export(client, batch_id, "format=csv&with=request"))
    assert rows[f"formula{number}"]["text"] == "'" + _TEXTS[f"formula{number}"]
    assert rows["refused"]["error_message"] == "'=too many"
    assert not any(cell.startswith(FORMULA) for row in rows.values() for cell in row.values())


def test_a_byte_order_mark_is_there_if_it_is_asked_for(client: WireClient, batch_id: BatchId) -> None:
    without, with_bom = (_export(client, batch_id, f"format=csv{more}").body for more in ("", "&bom=true"))
    assert with_bom == b"\xef\xbb\xbf" + without
    assert without.startswith(b'"custom_id"')


def test_parquet_has_every_row_with_types_and_without_apostrophes(
    client: WireClient, batch_id: BatchId, tmp_path: Path
) -> None:
    answer = _export(client, batch_id, "format=parquet&with=request")
    rows = _parquet(answer, tmp_path)
    assert set(rows) == set(_NAMES)
    assert list(rows["plain"]) == [*COLUMNS, "params"]
    assert {name: rows[name]["text"] for name in _TEXTS} == {name: _expected(name) for name in _TEXTS}
    assert rows["plain"]["input_tokens"] == 11
    assert json.loads(rows["plain"]["params"])["messages"][0]["content"] == "ask plain"
    assert rows["two"]["text"] == "ab"
    assert rows["odd"]["input_tokens"] is rows["odd"]["output_tokens"] is rows["odd"]["stop_reason"] is None
    assert rows["refused"]["error_type"] == "rate_limit_error"
    assert rows["canceled"]["text"] is rows["canceled"]["message"] is None
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_the_console_downloads_the_same_files(client: WireClient, batch_id: BatchId) -> None:
    visitor = Visitor(client)
    page = visitor.get(f"/console/batches/{batch_id}/results")
    links = [found["href"] for found in page.attributes("a") if "/download" in found["href"]]
    assert len(links) == 6
    for link in links:
        found = visitor.fetch("GET", link)
        assert found.status == 200
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["content-security-policy"] == "sandbox"
        if "parquet" not in link:  # Its bytes tell what version of DuckDB wrote it, and nothing else new.
            assert found.body == _export(client, batch_id, link.partition("?")[2]).body


@pytest.mark.parametrize("query", ["format=xml", "format=csv&with=everything", "bom=yes", "format=../../etc/passwd"])
def test_a_wish_that_is_unknown_is_refused(client: WireClient, batch_id: BatchId, query: str) -> None:
    answer = client.call("GET", f"/v1/overnight/batches/{batch_id}/export?{query}")
    assert answer.error[:2] == (400, "invalid_request_error")


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_batch_that_has_not_ended_has_no_downloads(client: WireClient, form: str) -> None:
    batch_id = client.create([request("a")])["id"]  # Its engine is not there.
    answer = client.call("GET", f"/v1/overnight/batches/{batch_id}/export?format={form}")
    assert answer.error[:2] == (404, "not_found_error")
    assert answer.headers["x-should-retry"] == "false"


# --- What it leaves, and what it takes ------------------------------------------------------------------------------


def test_nothing_of_a_parquet_file_is_left_on_disk(
    served: tuple[ObservedServer, BatchId, Path], client: WireClient
) -> None:
    _export(client, served[1], "format=parquet")
    exports = DataDirectory(served[2]).exports
    assert exports.is_dir()
    assert not list(exports.rglob("*"))


def test_what_a_crash_left_is_removed_before_the_next_file_is_made(tmp_path: Path) -> None:
    left = tmp_path / "exports" / "tmp1" / "rows"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"{}\n")
    _make(ParquetFiles(), tmp_path / "exports").close()
    assert not left.exists()


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _make(files: ParquetFiles, directory: Path, *pieces: bytes) -> Any:
    lines = pieces or (b'{"a":"x"}\n',)
    return asyncio.run(files.make({"a": "VARCHAR"}, _pieces(*lines), directory=directory, offload=InlineOffload()))


def test_beyond_so_many_files_at_once_others_are_told_to_wait(tmp_path: Path) -> None:
    files = ParquetFiles()
    made = [_make(files, tmp_path / "exports") for _ in range(limits.PARQUET_FILES_MAX)]
    with pytest.raises(Overloaded) as refused:
        _make(files, tmp_path / "exports")
    assert refused.value.status == 529
    made[0].close()
    made[0].close()
    made.append(_make(files, tmp_path / "exports"))
    with pytest.raises(Overloaded):
        _make(files, tmp_path / "exports")
    for file in made:
        file.close()


def test_rows_beyond_the_limit_make_no_file_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARQUET_BYTES_MAX", 25)
    files = ParquetFiles()
    for _ in range(limits.PARQUET_FILES_MAX + 1):  # Each gives its place back.
        with pytest.raises(InvalidRequest, match="take csv or jsonl"):
            _make(files, tmp_path / "exports", b'{"a":"x"}\n' * 2, b'{"a":"x"}\n')
    assert not list((tmp_path / "exports").rglob("*"))
    _make(files, tmp_path / "exports", b'{"a":"x"}\n' * 2).close()


def test_a_directory_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot make a Parquet file"):
        _make(ParquetFiles(), tmp_path / "file" / "exports")


def test_a_row_longer_than_duckdb_reads_by_default_is_whole(tmp_path: Path) -> None:
    line = b'{"a":"' + b"z" * 20_000_000 + b'"}\n'
    file = _make(ParquetFiles(), tmp_path / "exports", line)
    (tmp_path / "found.parquet").write_bytes(file.content.read())
    file.close()
    with duckdb.connect() as connection:
        (found,) = connection.read_parquet(str(tmp_path / "found.parquet")).fetchall()
    assert len(found[0]) == 20_000_000


def test_files_of_100_000_rows_take_little_memory(tmp_path: Path) -> None:
    text = json.dumps(message("an answer of some length " * 16)).encode()

    async def make() -> BatchId:
        async with open_directory(tmp_path / "data", World()) as store:
            requests = [request(f"r{number}", f"question {number}") for number in range(_ROWS_MANY)]
            return await ended(store, requests, lambda item: result.succeeded(item.custom_id, text))

    batch_id = asyncio.run(make())
    with (
        observed_server(tmp_path / "data", "--engine", "http://127.0.0.1:9") as server,
        closing(WireClient(server.url)) as client,
    ):
        before = _peak_bytes(server)
        assert _export(client, batch_id, "format=csv&with=request").body.count(b"\r\n") == _ROWS_MANY + 1
        assert _peak_bytes(server) - before < _EXTRA_MAX // 2
        (tmp_path / "many.parquet").write_bytes(_export(client, batch_id, "format=parquet&with=request").body)
        assert _peak_bytes(server) - before < _EXTRA_MAX
    with duckdb.connect() as connection:
        counted = connection.read_parquet(str(tmp_path / "many.parquet")).aggregate("count(DISTINCT custom_id)")
        assert counted.fetchall() == [(_ROWS_MANY,)]


def _peak_bytes(server: ObservedServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
