"""The engines that speak HTTP, on vLLM."""

from pathlib import Path

import pytest
from vllmserver import SLOTS

from overnight.engines.engine import Engine
from overnight.engines.messages import Messages
from overnight.engines.openai import Chat
from overnight.testing.enginesuite import RemoteEngineSuite, departure_table

WORDS_TOO_MANY = 9_000
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/engines.md"


class TestMessagesOnVllm(RemoteEngineSuite):
    words_too_many = WORDS_TOO_MANY

    @pytest.fixture(autouse=True)
    def _served(self, vllm_url: str) -> None:
        self.url = vllm_url

    def engine_at(self, url: str) -> Engine:
        return Messages(url, in_flight_max=SLOTS)


class TestChatOnVllm(RemoteEngineSuite):
    words_too_many = WORDS_TOO_MANY
    allows = frozenset({"tool_input"})

    @pytest.fixture(autouse=True)
    def _served(self, vllm_url: str) -> None:
        self.url = vllm_url

    def engine_at(self, url: str) -> Engine:
        return Chat(url, dialect="vllm", in_flight_max=SLOTS)


def test_the_page_tells_what_is_allowed() -> None:
    suites = {"vLLM": TestMessagesOnVllm, "vLLM, `chat+`": TestChatOnVllm}
    assert departure_table(suites) in PAGE.read_text(encoding="utf-8")
