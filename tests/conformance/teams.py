"""A real server that teams share, and the commands that change it while it runs."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from overnight.cli.main import cli
from overnight.testing.observed import ObservedServer, observed_server
from overnight.testing.wireclient import BATCHES, Answer, WireClient

_RATE_LIMITS = "/v1/organizations/rate_limits"
_LOOKS_MAX = 50_000  # At well over 0.2 ms each: several times as long as a server takes to notice.


def overnight(*arguments: str, data: Path) -> str:
    """What a command on a data directory prints; it must succeed."""
    result = CliRunner().invoke(cli, arguments, env={"OVERNIGHT_DATA": str(data)}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class Teams:
    """A server on a data directory."""

    def __init__(self, server: ObservedServer, data: Path) -> None:
        self.server, self.data = server, data
        self.changes = 0

    def run(self, *arguments: str) -> str:
        """What a command prints."""
        return overnight(*arguments, data=self.data)

    def created(self, kind: str, *arguments: str) -> Any:
        """A new workspace or key."""
        return json.loads(self.run(kind, "create", "--json", *arguments))

    def new_key(self, *arguments: str) -> Any:
        """A key that opens already."""
        key = self.created("keys", *arguments)
        self.until(key, lambda answer: answer.status == 200, "/v1/models")  # No rate limit counts those.
        return key

    def new_workspace(self, name: str, *rules: str) -> Any:
        """A key of a new workspace; its rules count already."""
        self.created("workspaces", name, *rules)
        return self.new_key("--workspace", name)

    def client(self, key: Any) -> closing[WireClient]:
        """Somebody with a key."""
        return closing(WireClient(self.server.url, api_key=key["key"]))

    def until(self, key: Any, is_so: Callable[[Answer], bool], path: str = f"{BATCHES}?limit=1") -> Answer:
        """The first answer to a GET that is so."""
        with self.client(key) as asking:
            for _ in range(_LOOKS_MAX):
                answer = asking.call("GET", path)
                if is_so(answer):
                    return answer
        raise AssertionError(f"it never was: {answer}")

    def change(self, key: Any, *rules: str) -> None:
        """New rules of the workspace of a key; they count already when this returns."""
        workspace = key["workspace"]["id"]
        self.changes += 1
        seen = str(1_000_000 + self.changes)
        self.run("workspaces", "set", workspace, "--queue-requests-max", seen, *rules)
        self.until(key, lambda answer: seen.encode() in answer.body, _RATE_LIMITS)


@contextmanager
def teams(data: Path, *flags: str, ahead_s: int = 0) -> Iterator[Teams]:
    """A server for the length of a block."""
    with observed_server(data, *flags, ahead_s=ahead_s) as server:
        yield Teams(server, data)
