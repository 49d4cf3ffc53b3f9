"""What a client does and remembers while a server dies, and what it may demand from the next one."""

import gzip
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import Any

from crash_engine import TimedUpstream

from overnight.store import checkpoint
from overnight.testing.wireclient import BATCHES, Answer, WireClient, request
from overnight.wire import result

LARGE = 350  # Requests of 10 kB: four segments, each with a results object, and half a second for 64 at once.
CHECKPOINT_LOSS_S = 0.5


class ServerGone(Exception):
    """The server died while it was asked."""


class Ledger:
    """What one client was promised."""

    def __init__(self, *, seed: int = 1) -> None:
        self.sent: dict[str, frozenset[str]] = {}  # Of every create that was sent: its custom_ids, by a name.
        self.acknowledged: dict[str, str] = {}  # Names by batch id.
        self.cancel_sent: set[str] = set()
        self.canceled: set[str] = set()
        self.delete_sent: set[str] = set()
        self.deleted: set[str] = set()
        self.downloaded: dict[str, bytes] = {}
        self._random = Random(seed)

    def requests(self, name: str, count: int, *, text_bytes: int = 20) -> list[dict[str, object]]:
        """Requests whose prompts begin with their custom_id and do not compress below half."""
        found = []
        for index in range(count):
            custom_id = f"{name}-{index}"
            found.append(request(custom_id, f"{custom_id} {self._random.randbytes(text_bytes // 2).hex()}"))
        self.sent[name] = frozenset(str(item["custom_id"]) for item in found)
        return found


def counted(batch: dict[str, Any], requests: int) -> dict[str, Any]:
    """The batch, whose counts must sum to N however far it is."""
    assert sum(batch["request_counts"].values()) == requests, batch
    if batch["processing_status"] == "ended":
        assert batch["request_counts"]["processing"] == 0, batch
    return batch


class Session:
    """One client of one server process."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self.client = WireClient(url)
        self.ledger = ledger

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """One exchange, of which only a death of the server may rob us."""
        try:
            answer = self.client.call(method, path, body)
        except (OSError, HTTPException) as error:
            raise ServerGone from error
        assert answer.status == 200, answer
        return answer

    def create(self, name: str, count: int, *, text_bytes: int = 20) -> str:
        requests = self.ledger.requests(name, count, text_bytes=text_bytes)
        batch = self.call("POST", BATCHES, {"requests": requests}).json
        self.ledger.acknowledged[batch["id"]] = name
        return str(counted(batch, count)["id"])

    def until_ended(self, batch_id: str, *, requests: int) -> dict[str, Any]:
        while True:
            batch = counted(self.call("GET", f"{BATCHES}/{batch_id}").json, requests)
            if batch["processing_status"] == "ended":
                return batch

    def download(self, batch_id: str) -> bytes:
        return self.call("GET", f"{BATCHES}/{batch_id}/results").body

    def cancel(self, batch_id: str) -> None:
        self.ledger.cancel_sent.add(batch_id)
        self.call("POST", f"{BATCHES}/{batch_id}/cancel")
        self.ledger.canceled.add(batch_id)

    def delete(self, batch_id: str) -> None:
        self.ledger.delete_sent.add(batch_id)
        self.call("DELETE", f"{BATCHES}/{batch_id}")
        self.ledger.deleted.add(batch_id)


def work(url: str, ledger: Ledger) -> None:
    """One of everything a client can do. ServerGone if the server dies meanwhile."""
    session = Session(url, ledger)
    with closing(session.client):
        kept, gone = session.create("kept", 2), session.create("gone", 3)
        for batch_id, requests in ((kept, 2), (gone, 3)):
            session.until_ended(batch_id, requests=requests)
        ledger.downloaded[kept] = session.download(kept)
        large = session.create("large", LARGE, text_bytes=10_000)
        dropped = session.create("dropped", 100)
        session.cancel(dropped)
        session.delete(gone)
        for batch_id, requests in ((large, LARGE), (dropped, 100)):
            session.until_ended(batch_id, requests=requests)
            ledger.downloaded[batch_id] = session.download(batch_id)


def check_promises(url: str, ledger: Ledger) -> list[str]:
    """Everything acknowledged is there, ends, and is whole. Returns the batches that are left."""
    session = Session(url, ledger)
    with closing(session.client):
        listed = session.client.ids()
        missing = ledger.acknowledged.keys() - set(listed)
        assert ledger.deleted <= missing <= ledger.delete_sent
        for batch_id in listed:
            _check_batch(session, batch_id)
        assert set(session.client.ids()) == set(listed)
    return listed


def _check_batch(session: Session, batch_id: str) -> None:
    ledger, client = session.ledger, session.client
    first = client.retrieve(batch_id)
    if batch_id in ledger.canceled:
        assert first["processing_status"] != "in_progress"
    ended = session.until_ended(batch_id, requests=sum(first["request_counts"].values()))
    content = session.download(batch_id)
    rows = [json.loads(line) for line in content.splitlines()]
    custom_ids = [row["custom_id"] for row in rows]
    names = {custom_id.partition("-")[0] for custom_id in custom_ids}
    assert len(names) == 1, names
    name = ledger.acknowledged.get(batch_id) or names.pop()
    assert len(set(custom_ids)) == len(custom_ids)
    assert set(custom_ids) == ledger.sent[name]
    kinds = Counter(row["result"]["type"] for row in rows)
    assert kinds == Counter({kind: count for kind, count in ended["request_counts"].items() if count})
    assert kinds.keys() <= ({"succeeded", "canceled"} if batch_id in ledger.cancel_sent else {"succeeded"})
    assert ledger.downloaded.get(batch_id, content) == content


def check_nothing_left(url: str, data: Path, batch_ids: list[str]) -> None:
    """When all batches are deleted, no file of any of them is left."""
    with closing(WireClient(url)) as client:
        for batch_id in batch_ids:
            assert client.call("DELETE", f"{BATCHES}/{batch_id}").status == 200
        asked_until(client, lambda: not left_files(data), what=lambda: left_files(data))
        assert client.call("GET", "/health").json["trouble"] == {}


def left_files(data: Path) -> list[Path]:
    """The files of batches in a data directory, finished or not."""
    return [path for part in ("objects", "checkpoints") for path in (data / part).rglob("*") if path.is_file()]


def asked_until(client: WireClient, is_so: Callable[[], bool], *, what: Callable[[], object]) -> None:
    """Ask the server for its health until something is so: each answer means it went around its loop."""
    for _ in range(5_000):
        if is_so():
            return
        health = client.call("GET", "/health")
    raise AssertionError(f"{what()}, health {health.json}")


def recorded(data: Path, scratch: Path) -> set[str]:
    """The custom_ids that have a durable result in a dead server's directory: sealed, or in a checkpoint log."""
    copy = scratch / "looked-at"
    shutil.copytree(data, copy)  # Opening a database changes its files.
    found: set[str] = set()
    for log in (copy / "checkpoints").glob("*.log"):
        for _, lines in checkpoint.decode(log.read_bytes()):
            found.update(line.custom_id for line in result.read_lines(lines))
    with closing(sqlite3.connect(copy / "control.sqlite3")) as sql:
        sealed = sql.execute("SELECT result_inline, result_key FROM segments WHERE is_sealed = 1").fetchall()
    for inline, key in sealed:
        member = inline if key is None else (copy / "objects" / key).read_bytes()
        found.update(line.custom_id for line in result.read_lines(gzip.decompress(member)))
    shutil.rmtree(copy)
    return found


def asked_again(engine: TimedUpstream, *, after_s: float) -> dict[str, float]:
    """When each request was first asked that was asked again after that time."""
    return {
        word: times[0]
        for word, times in engine.asked_at_s.items()
        if times[0] <= after_s and any(time_s > after_s for time_s in times)
    }
