"""The `Chat` engine on llama.cpp's own server, with the weights of the package."""

import importlib
import importlib.resources
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from chatserver import KEY, call, run

from overnight.core.retry import Answered, Refused
from overnight.engines.engine import Load
from overnight.engines.messages import Messages
from overnight.engines.openai import Chat
from overnight.wire import message


@pytest.fixture(scope="module")
def llama_url() -> Iterator[str]:
    """The HTTP listener of xllamacpp is llama.cpp's own server."""
    xllamacpp = importlib.import_module("xllamacpp")
    weights = importlib.resources.files("overnight.engines") / "weights" / "tiny.q8_0.gguf"
    with importlib.resources.as_file(weights) as path:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel, params.n_ctx = 2, 2 * 1024
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_ram_mib, params.ui, params.verbosity, params.warmup = 0, False, 0, False
        params.api_keys, params.model_alias, params.endpoint_metrics = [KEY], {"tiny"}, True
        server = xllamacpp.Server(params)
        yield server.listening_address
        del server


ASKED = {
    "model": "tiny",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
ROW = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
RECORD = {"name": "record", "description": "Record a line.", "input_schema": ROW}


def with_llama(url: str, case: Callable[[Chat], Coroutine[Any, Any, None]]) -> None:
    async def hold() -> None:
        engine = Chat(url, api_key=KEY)
        try:
            await case(engine)
        finally:
            await engine.close()

    run(hold())


def test_llama_cpp_answers_counts_lists_and_tells_its_load(llama_url: str) -> None:
    async def case(engine: Chat) -> None:
        outcome = await engine.answer(call(**ASKED))
        assert isinstance(outcome, Answered), outcome
        line, usage = message.as_batch(outcome.message)
        assert (json.loads(line)["model"], json.loads(line)["stop_reason"]) == ("tiny", "max_tokens")
        count = await engine.count_tokens(call(**ASKED))
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == count > 0
        assert [model.id for model in await engine.models()] == ["tiny"]
        assert await engine.load() == Load(running=0, waiting=0)
        assert await engine.is_there()

    with_llama(llama_url, case)


def test_the_messages_engine_tells_the_same_of_the_same_server(llama_url: str) -> None:
    async def case(chat: Chat) -> None:
        engine = Messages(llama_url, api_key=KEY)
        assert (await engine.load(), await engine.is_there()) == (await chat.load(), await chat.is_there())
        assert await engine.load() == Load(running=0, waiting=0)
        await engine.close()
        nobody = Messages("http://127.0.0.1:1")
        assert (await nobody.load(), await nobody.is_there()) == (None, False)
        await nobody.close()

    with_llama(llama_url, case)


def test_llama_cpp_streams_what_it_answers(llama_url: str) -> None:
    async def case(engine: Chat) -> None:
        whole = await engine.answer(call(**ASKED, temperature=0))
        assert isinstance(whole, Answered)
        pieces = b"".join(
            [piece async for piece in engine.stream(call(**ASKED, temperature=0, stream=True))]
        ).decode()
        events = [json.loads(line[6:]) for line in pieces.splitlines() if line.startswith("data: ")]
        assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
        assert events[0]["message"]["usage"]["input_tokens"] > 0
        text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        assert text == json.loads(whole.message)["content"][0]["text"]

    with_llama(llama_url, case)


def test_llama_cpp_honours_stops_schemas_tools_and_prefills(llama_url: str) -> None:
    async def asked(engine: Chat, **params: Any) -> dict[str, Any]:
        outcome = await engine.answer(call(**(ASKED | {"temperature": 0} | params)))
        assert isinstance(outcome, Answered), outcome
        whole: dict[str, Any] = json.loads(outcome.message)
        return whole

    async def case(engine: Chat) -> None:
        free = await asked(engine)
        text = free["content"][0]["text"]
        stopped = await asked(engine, stop_sequences=[text[3:6]])
        assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", text[3:6])
        assert stopped["content"][0]["text"] == text[:3]
        wanted = {"format": {"type": "json_schema", "schema": ROW}}
        structured = await asked(engine, output_config=wanted, max_tokens=64)
        assert json.loads(structured["content"][0]["text"]).keys() == {"amount"}
        [block] = (await asked(engine, tools=[RECORD], tool_choice={"type": "any"}, max_tokens=64))["content"]
        assert (block["type"], block["name"], block["input"].keys()) == ("tool_use", "record", {"amount"})
        prefill = {"role": "assistant", "content": text[:5]}
        continued = await asked(engine, messages=[*ASKED["messages"], prefill])  # type: ignore[misc]
        assert continued["content"][0]["text"].startswith(text[5:])

    with_llama(llama_url, case)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        pytest.param({"messages": [{"role": "user", "content": "word " * 4_000}]}, "prompt is too long: ", id="long"),
        pytest.param(
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "wat"}}}},
            "JSON schema",
            id="schema",
        ),
        pytest.param(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                            }
                        ],
                    }
                ]
            },
            "this model does not read images",
            id="blind",
        ),
    ],
)
def test_llama_cpps_refusals_are_the_requests_fault(llama_url: str, params: dict[str, Any], said: str) -> None:
    async def case(engine: Chat) -> None:
        outcome = await engine.answer(call(**(ASKED | params)))
        assert isinstance(outcome, Refused), outcome
        assert (outcome.status, outcome.type) == (400, "invalid_request_error")
        assert said in outcome.message

    with_llama(llama_url, case)
