"""server.context: who asks, in which version, and how often they may."""

from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

import pytest
from http_requests import http_request
from starlette.requests import Request as HttpRequest

from overnight.errors import InvalidRequest, NotAuthenticated, RateLimited
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.server import context
from overnight.server.access import Doors
from overnight.server.config import KeySettings, Settings
from overnight.server.context import Context

_VERSION = {"anthropic-version": "2023-06-01"}


class _Watch:
    def __init__(self) -> None:
        self.at_ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


def _key(text: str, workspace: str) -> KeySettings:
    return KeySettings(sha256=sha256(text.encode()).hexdigest(), workspace=workspace)


_KEYS = Settings(api_key="default-key", keys=[_key("blue-key", "wrkspc_blue"), _key("kéy", "wrkspc_accent")])


def _here(settings: Settings, watch: _Watch | None = None) -> Context:
    nothing = cast(Any, None)  # What the questions below do not touch.
    return Context(
        settings=settings,
        store=nothing,
        fleet=nothing,
        worker=nothing,
        upkeep=nothing,
        tallies=nothing,
        world=World(clock=watch or _Watch()),
        doors=Doors(settings),
    )


def _asking(here: Context, headers: dict[str, str]) -> HttpRequest:
    return http_request(headers, app=SimpleNamespace(state=SimpleNamespace(context=here)))


@pytest.mark.parametrize(
    ("headers", "workspace"),
    [
        ({"x-api-key": "default-key"}, DEFAULT_WORKSPACE),
        ({"authorization": "Bearer default-key"}, DEFAULT_WORKSPACE),
        ({"authorization": "bearer  blue-key "}, "wrkspc_blue"),
        ({"x-api-key": "blue-key"}, "wrkspc_blue"),
        ({"x-api-key": "blue-key", "authorization": "Bearer wrong"}, "wrkspc_blue"),
    ],
)
def test_a_key_opens_its_workspace(headers: dict[str, str], workspace: str) -> None:
    http_request = _asking(_here(_KEYS), headers)
    assert context.workspace_of(http_request) == workspace
    assert http_request.state.workspace == workspace


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "x-api-key: header is required"),
        ({"x-api-key": ""}, "x-api-key: header is required"),
        ({"authorization": "Basic ZGVmYXVsdC1rZXk="}, "x-api-key: header is required"),
        ({"authorization": "Bearer"}, "x-api-key: header is required"),
        ({"x-api-key": "wrong"}, "API key is invalid."),
        ({"x-api-key": "wrong", "authorization": "Bearer default-key"}, "API key is invalid."),
        ({"x-api-key": "Default-Key"}, "API key is invalid."),
        ({"x-api-key": sha256(b"default-key").hexdigest()}, "API key is invalid."),
        ({"x-api-key": "\xff\xfe"}, "API key is invalid."),
    ],
)
def test_anybody_else_is_refused(headers: dict[str, str], said: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        context.workspace_of(_asking(_here(_KEYS), headers))
    assert str(caught.value) == said


def test_without_keys_everybody_is_let_in() -> None:
    assert context.workspace_of(_asking(_here(Settings()), {"x-api-key": "anything"})) == DEFAULT_WORKSPACE


def test_no_key_is_kept() -> None:
    assert "default-key" not in repr(Doors(_KEYS).keys)


@pytest.mark.parametrize("version", ["2023-01-01", "2023-06-01", "2026-10-21"])
def test_known_versions_are_taken(version: str) -> None:
    assert context.api_version_of(_asking(_here(Settings()), {"anthropic-version": version})) == version


def test_a_version_is_asked_for_unless_that_is_relaxed() -> None:
    with pytest.raises(InvalidRequest, match=r"^anthropic-version: header is required$"):
        context.api_version_of(_asking(_here(Settings()), {}))
    assert context.api_version_of(_asking(_here(Settings(strict_version=False)), {})) == "2026-10-21"
    for settings in (Settings(), Settings(strict_version=False)):
        with pytest.raises(InvalidRequest, match=r"^anthropic-version: '2024-01-01' is not a valid version$"):
            context.api_version_of(_asking(_here(settings), {"anthropic-version": "2024-01-01"}))


def test_a_workspace_that_asks_too_often_is_told_when_to_come_back() -> None:
    watch = _Watch()
    here = _here(Settings(api_key="default-key", keys=_KEYS.keys, requests_per_minute=2), watch)
    mine, other = {**_VERSION, "x-api-key": "blue-key"}, {**_VERSION, "x-api-key": "default-key"}
    seen = []
    for _ in range(2):
        http_request = _asking(here, mine)
        context.admit(http_request)
        seen.append(http_request.state.limit_headers["anthropic-ratelimit-requests-remaining"])
    assert seen == ["1", "0"]
    refused = _asking(here, mine)
    with pytest.raises(RateLimited) as caught:
        context.admit(refused)
    assert caught.value.headers() == {"retry-after": "30"}
    assert refused.state.limit_headers["anthropic-ratelimit-requests-limit"] == "2"
    assert context.admit(_asking(here, other)).workspace == DEFAULT_WORKSPACE
    watch.at_ms += 29_999
    with pytest.raises(RateLimited):
        context.admit(_asking(here, mine))
    watch.at_ms += 1
    assert context.admit(_asking(here, mine)).workspace == "wrkspc_blue"


def test_without_a_limit_nothing_is_counted() -> None:
    here = _here(Settings())
    http_request = _asking(here, _VERSION)
    assert context.admit(http_request).workspace == DEFAULT_WORKSPACE
    assert not here.buckets
    assert not hasattr(http_request.state, "limit_headers")
