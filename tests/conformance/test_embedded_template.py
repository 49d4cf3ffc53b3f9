"""What the model reads in llama.cpp is what it was trained with: the chat template of the file, and `model.chat`."""

import importlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from model import chat
from model.chat import ASSISTANT, END, SYSTEM, USER

from overnight.engines.embedded import tiny_weights

KEY = "template"
TOOL = {
    "name": "record_invoice",
    "description": "Record one invoice line.",
    "parameters": {
        "type": "object",
        "properties": {"department": {"type": "string"}, "amount": {"type": "number"}},
        "required": ["department", "amount"],
    },
}
OFFERED = [{"type": "function", "function": TOOL}]
ARGUMENTS = '{"department": "HR", "amount": 12}'


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(tiny_weights())
    params.n_parallel, params.n_ctx = 1, 1024
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib, params.ui, params.verbosity, params.warmup = 0, False, 0, False
    params.api_keys = [KEY]
    server = xllamacpp.Server(params)  # Gone with its last name.
    yield str(server.listening_address)
    del server


def rendered(address: str, **body: Any) -> str:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    with urlopen(Request(f"{address}/apply-template", json.dumps(body).encode(), headers)) as answer:
        return str(json.load(answer)["prompt"])


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_a_question_alone(address: str) -> None:
    assert rendered(address, messages=[user("Hello")]) == f"{USER}Hello{END}{ASSISTANT}"


def test_a_system_prompt_and_an_example_before_the_question(address: str) -> None:
    turns = [{"role": "system", "content": "Be brief."}, user("a"), {"role": "assistant", "content": "b"}, user("c")]
    expected = f"{SYSTEM}Be brief.{END}{USER}a{END}{ASSISTANT}b{END}{USER}c{END}{ASSISTANT}"
    assert rendered(address, messages=turns) == expected == chat.system("Be brief.") + expected.partition(END)[2]


@pytest.mark.parametrize("system", ["", "Record what was bought."])
def test_tools_that_are_offered(address: str, system: str) -> None:
    before = [{"role": "system", "content": system}] if system else []
    expected = chat.system(system, [TOOL]) + f"{USER}HR, 12{END}{ASSISTANT}"
    assert rendered(address, messages=[*before, user("HR, 12")], tools=OFFERED) == expected


def test_a_call_and_its_result(address: str) -> None:
    function = {"name": "record_invoice", "arguments": ARGUMENTS}
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "id": "1", "function": function}],
    }
    result = {"role": "tool", "tool_call_id": "1", "content": "done"}
    said = chat.call("record_invoice", ARGUMENTS)
    expected = (
        f"{chat.system('', [TOOL])}{USER}HR, 12{END}{ASSISTANT}{said}{END}"
        f"{USER}<tool_response>\ndone\n</tool_response>{END}{ASSISTANT}"
    )
    assert rendered(address, messages=[user("HR, 12"), call, result], tools=OFFERED) == expected
