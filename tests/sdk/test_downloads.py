"""100,000 results arrive complete, through the official SDKs and curl, compressed or not.

The official Python SDK ends a gzip stream at its first member and says nothing, so a server that joins compressed
pieces the easy way loses most of its rows there.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from overnight.testing.observed import observed_server
from overnight.testing.wireclient import BATCHES, WireClient, request

_HERE = Path(__file__).parent
_ROWS = 100_000
_SECONDS_MAX = 120


class Whale(NamedTuple):
    """An ended batch of 100,000 answers, and the SHA-256 over its rows as the download programs print it."""

    url: str
    batch_id: str
    sha256: str


@pytest.fixture(scope="module")
def whale(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Iterator[Whale]:
    data = tmp_path_factory.mktemp("whale") / "data"
    texts = {f"row-{number}": f"{number * 7919} ü" for number in range(_ROWS)}
    with observed_server(data, "--engine", engine_url) as server, closing(WireClient(server.url)) as client:
        batch_id = client.create([request(custom_id, text) for custom_id, text in texts.items()])["id"]
        assert server.wait_ended(client, batch_id)["request_counts"]["succeeded"] == _ROWS
        rows = sorted(f"{custom_id}\techo: {text}\n" for custom_id, text in texts.items())
        yield Whale(server.url, batch_id, sha256("".join(rows).encode()).hexdigest())


@pytest.mark.parametrize("accept_encoding", ["gzip", "identity"])
@pytest.mark.parametrize(
    "command",
    [(sys.executable, "python/download.py"), ("node", "typescript/download.mjs")],
    ids=["python", "typescript"],
)
def test_every_row_arrives_in_the_official_sdks(whale: Whale, command: tuple[str, str], accept_encoding: str) -> None:
    program, script = command
    arguments = [program, str(_HERE / script), whale.url, whale.batch_id, accept_encoding]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    assert done.returncode == 0, f"{done.stderr}\nIs it installed? make sdks"
    assert json.loads(done.stdout) == {"rows": _ROWS, "sha256": whale.sha256}


@pytest.mark.parametrize("flag", ["--compressed", "--raw"])
def test_every_row_arrives_in_curl(whale: Whale, flag: str) -> None:
    """As the hosted API's documentation shows it: the `results_url` and the key."""
    url = f"{whale.url}{BATCHES}/{whale.batch_id}/results"
    headers = ("-H", "x-api-key: any", "-H", "anthropic-version: 2023-06-01")
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", str(_SECONDS_MAX), flag, *headers, url]
    lines = map(json.loads, subprocess.check_output(command).splitlines())
    rows = sorted(f"{line['custom_id']}\t{line['result']['message']['content'][0]['text']}\n" for line in lines)
    assert sha256("".join(rows).encode()).hexdigest() == whale.sha256
