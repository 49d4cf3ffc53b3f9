"""What the fixtures of the contract's checks give to a test, as types."""

from typing import NamedTuple, Protocol

from overnight.testing.wireclient import WireClient


class NewClient(Protocol):
    """Makes a client of a workspace that nobody used before, closed at the end of the test."""

    def __call__(self, version: str = "2023-06-01") -> WireClient: ...


class Whale(NamedTuple):
    """A batch as large as they come, ended, and a client that may see it."""

    client: WireClient
    created: dict[str, object]
    requests: int
