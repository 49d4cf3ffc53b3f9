"""Every kind of engine on real servers: ours inside, llama.cpp's own server, and our server behind another one."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.engines.claudebatch import ClaudeBatch
from overnight.engines.embedded import Embedded, tiny_weights
from overnight.engines.engine import Call, Engine
from overnight.engines.messages import Messages
from overnight.engines.openai import Chat
from overnight.ports.entropy import SystemEntropy
from overnight.testing.enginecases import ENDLESS, ENDLESS_TOKENS
from overnight.testing.enginesuite import EngineSuite, RemoteEngineSuite, departure_table
from overnight.testing.processes import running_server

SLOTS = 4
CONTEXT_TOKENS = 4096
WORDS_TOO_MANY = 9_000
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/engines.md"


@pytest.fixture(scope="module")
def llama_url() -> Iterator[str]:
    """The HTTP listener of xllamacpp is llama.cpp's own server."""
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(tiny_weights())
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib, params.ui, params.verbosity, params.warmup = 0, False, -1, False
    params.model_alias, params.endpoint_metrics = {"overnight-tiny"}, True
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


@pytest.fixture(scope="module")
def overnight_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our server, with the embedded engine."""
    folder = tmp_path_factory.mktemp("overnight")
    config = folder / "overnight.toml"
    config.write_text('[[engines]]\nspec = "embedded"\nmodels = ["overnight-tiny"]\nthreads = 1\n')
    with running_server(folder / "data", "--config", str(config)) as server:
        yield server.url


class TestEmbedded(EngineSuite):
    words_too_many = WORDS_TOO_MANY
    allows = frozenset({"any_model"})

    def engine(self) -> Engine:
        return Embedded(tiny_weights(), entropy=SystemEntropy(), threads=1)


class TestMessagesOnLlama(RemoteEngineSuite):
    words_too_many = WORDS_TOO_MANY
    allows = frozenset({"any_model", "cancel", "echoes_prefill", "image", "schema", "stop_sequence"})

    @pytest.fixture(autouse=True)
    def _served(self, llama_url: str) -> None:
        self.url = llama_url

    def engine_at(self, url: str) -> Engine:
        return Messages(url, in_flight_max=SLOTS)

    def endless(self, *, tokens: int = ENDLESS_TOKENS, **params: Any) -> Call:
        """Schemas are ignored here, but tools are not."""
        tool = {"name": "endless", "description": "Say it.", "input_schema": ENDLESS}
        choice = {"type": "tool", "name": "endless"}
        return self.call("Go on.", max_tokens=tokens, tools=[tool], tool_choice=choice, **params)


class TestChatOnLlama(RemoteEngineSuite):
    words_too_many = WORDS_TOO_MANY
    allows = frozenset({"any_model", "cancel"})

    @pytest.fixture(autouse=True)
    def _served(self, llama_url: str) -> None:
        self.url = llama_url

    def engine_at(self, url: str) -> Engine:
        return Chat(url, dialect="llamacpp", in_flight_max=SLOTS)


class TestMessagesOnOurs(RemoteEngineSuite):
    words_too_many = WORDS_TOO_MANY
    allows = frozenset({"load"})

    @pytest.fixture(autouse=True)
    def _served(self, overnight_url: str) -> None:
        self.url = overnight_url

    def engine_at(self, url: str) -> Engine:
        return Messages(url, in_flight_max=SLOTS)


class TestRealtimeOfClaudeBatchOnOurs(TestMessagesOnOurs):
    def engine_at(self, url: str) -> Engine:
        return ClaudeBatch(url)


def test_the_page_tells_what_is_allowed() -> None:
    suites = {
        "embedded": TestEmbedded,
        "llama.cpp": TestMessagesOnLlama,
        "llama.cpp, `chat+`": TestChatOnLlama,
        "overnight": TestMessagesOnOurs,
    }
    assert departure_table(suites) in PAGE.read_text(encoding="utf-8")
