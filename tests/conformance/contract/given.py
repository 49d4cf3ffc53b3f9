"""What the fixtures of the contract's checks give to a test, as types."""

from typing import Any, NamedTuple, Protocol

from overnight.testing.observed import ObservedServer
from overnight.testing.wireclient import WireClient


class NewClient(Protocol):
    """Makes a client of a workspace that nobody used before, closed at the end of the test."""

    def __call__(self, version: str = "2023-06-01") -> WireClient: ...


class Whale(NamedTuple):
    """A batch as large as they come, ended, on a server that was started again since: its memory is small."""

    server: ObservedServer
    client: WireClient
    created: Any  # What its create answered.
