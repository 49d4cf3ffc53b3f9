"""GET /openapi.json against the server that answers by it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, ValidationError

from overnight.server import openapi
from overnight.server.app import ROUTES
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import BATCHES, Answer, WireClient, params, request

_KEY = "sk-openapi"
_CONFIG = Path(__file__).with_name("schemathesis.toml")
_RUN_S_MAX = 300  # A minute and a half on a slow machine; a hang fails.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedServer]:
    folder = tmp_path_factory.mktemp("openapi")
    with upstream_process() as engine:
        config = folder / "overnight.toml"
        config.write_text(f'api_key = "{_KEY}"\n[[engines]]\nspec = "{engine}"\n')
        with observed_server(folder / "data", "--config", str(config)) as found:
            yield found


@pytest.fixture
def client(server: ObservedServer) -> Iterator[WireClient]:
    with closing(WireClient(server.url, api_key=_KEY)) as found:
        yield found


@pytest.fixture
def document(client: WireClient) -> Any:
    return client.call("GET", "/openapi.json", without=["x-api-key", "anthropic-version"]).json


# --- The document by itself -----------------------------------------------------------------------------------------


def test_it_describes_every_path_we_answer_and_no_other() -> None:
    found = openapi.described(needs_key=True, needs_version=True)["paths"]
    described = {(method.upper(), path) for path, methods in found.items() for method in methods}
    assert described == {(method, path.replace(":path", "")) for method, path, _ in ROUTES}


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    document = openapi.described(needs_key=True, needs_version=True)
    text = json.dumps(document)
    components = document["components"]
    referred = set(re.findall(r'"\$ref": "#/components/(\w+)/([\w-]+)"', text))
    assert text.count('"$ref"') == len(re.findall(r'"\$ref": "#/components/\w+/[\w-]+"', text))
    there = {(kind, name) for kind in ("schemas", "parameters", "headers", "responses") for name in components[kind]}
    assert referred == there


def test_its_schemas_are_schemas_and_its_operations_have_names() -> None:
    document = openapi.described(needs_key=True, needs_version=True)
    for name in document["components"]["schemas"]:
        _validator(document, name)
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)
    links = document["paths"][BATCHES]["post"]["responses"]["200"]["links"]
    assert {link["operationId"] for link in links.values()} <= set(names)


def test_it_says_what_this_server_asks_for() -> None:
    open_to_all = openapi.described(needs_key=False, needs_version=False)
    assert open_to_all["security"] == []
    assert open_to_all["components"]["parameters"]["version"]["required"] is False
    strict = openapi.described(needs_key=True, needs_version=True)
    assert strict["security"] == [{"api_key": []}, {"bearer": []}]
    assert strict["components"]["parameters"]["version"]["required"] is True


def test_it_is_served_to_everybody(document: Any) -> None:
    assert document == json.loads(json.dumps(openapi.described(needs_key=True, needs_version=True)))


# --- What the server says, against it -------------------------------------------------------------------------------


def _validator(document: Any, name: str) -> Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return Draft202012Validator(schema, validate_formats=True)


def _check(document: Any, name: str, value: Any) -> None:
    """`value` is as the schema says, and, one level deep, holds nothing it does not name."""
    _validator(document, name).validate(value)
    undocumented = set(value) - set(document["components"]["schemas"][name]["properties"])
    assert not undocumented, f"undocumented in {name}: {undocumented}"


def test_a_life_of_a_batch_is_as_documented(server: ObservedServer, client: WireClient, document: Any) -> None:
    batch = client.create([request("good"), {"custom_id": "bad", "params": {}}])
    _check(document, "MessageBatch", batch)
    _check(document, "MessageBatch", server.wait_ended(client, batch["id"]))
    _check(document, "MessageBatch", client.cancel(batch["id"]))
    page = client.page("limit=1")
    _check(document, "BatchPage", page)
    _check(document, "MessageBatch", page["data"][0])
    lines = client.call("GET", f"{BATCHES}/{batch['id']}/results").body.splitlines()
    assert len(lines) == 2
    for line in lines:
        _check(document, "ResultLine", json.loads(line))
    _check(document, "DeletedBatch", client.call("DELETE", f"{BATCHES}/{batch['id']}").json)
    gone = client.call("GET", f"{BATCHES}/{batch['id']}")
    assert gone.status == 404
    _check(document, "Problem", gone.json)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (("POST", "/v1/messages", params()), "Message"),
        (("POST", "/v1/messages/count_tokens", params()), "TokenCount"),
        (("GET", "/v1/models"), "ModelPage"),
        (("GET", "/v1/models/any"), "ModelInfo"),
        (("GET", "/health"), "Health"),
        (("GET", f"{BATCHES}?limit=0"), "Problem"),
        (("POST", BATCHES, b"{"), "Problem"),
    ],
)
def test_other_answers_are_as_documented(client: WireClient, document: Any, call: tuple[str, str], name: str) -> None:
    _check(document, name, client.call(*call).json)


def _accepts(document: Any, name: str, value: Any) -> bool:
    return bool(_validator(document, name).is_valid(value))


@pytest.mark.parametrize(
    "body",
    [
        {"requests": []},
        {"requests": [{"custom_id": "a b", "params": {}}]},
        {"requests": [{"custom_id": "", "params": {}}]},
        {"requests": [{"custom_id": "x" * 65, "params": {}}]},
        {"requests": [{"custom_id": "a", "params": []}]},
        {"requests": [{"params": {}}]},
        {"requests": {}},
        {},
        [],
        {"requests": [{"custom_id": "a", "params": {}, "more": 1}], "more": 1},
        {"requests": [{"custom_id": "x" * 64, "params": {}}]},
    ],
)
def test_what_a_batch_may_be_is_the_same_here_and_there(client: WireClient, document: Any, body: object) -> None:
    answer = client.call("POST", BATCHES, body)
    assert answer.status in (200, 400)
    assert (answer.status == 200) == _accepts(document, "CreateBody", body)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"model": 1},
        {"max_tokens": 0},
        {"max_tokens": "1"},
        {"messages": []},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": 1}]},
        {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
        {"system": [{"type": "image"}]},
        {"system": [{"type": "text", "text": "x"}]},
        {"system": None},
        {"stream": "yes"},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]},
        {"temperature": 0.5, "unknown": {}},
    ],
)
def test_what_a_prompt_may_be_is_the_same_here_and_there(
    client: WireClient, document: Any, path: str, more: dict[str, object]
) -> None:
    body = params(**more)
    answer: Answer = client.call("POST", path, body)
    assert answer.status in (200, 400)
    name = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert (answer.status == 200) == _accepts(document, name.rpartition("/")[2], body)


def test_these_checks_can_fail(document: Any) -> None:
    with pytest.raises(ValidationError):
        _check(document, "MessageBatch", {"id": "msgbatch_1"})
    with pytest.raises(AssertionError, match="undocumented"):
        _check(document, "TokenCount", {"input_tokens": 1, "more": 2})


# --- Everything else that can be thought of -------------------------------------------------------------------------


def test_schemathesis_finds_nothing(server: ObservedServer, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file",
        str(_CONFIG),
        "--no-color",
        "run",
    ]
    more = ["--max-examples", "500"] if os.environ.get("OVERNIGHT_LONG") else []
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", "--report-junit-path", str(report), *more],
        cwd=tmp_path,
        env={**os.environ, "OPENAPI_TEST_KEY": _KEY},
        capture_output=True,
        text=True,
        timeout=_RUN_S_MAX * (10 if more else 1),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (generated,) = re.findall(r"(\d+) generated", done.stdout)
    assert int(generated) > 500
    assert re.search(rf"Tested: {len(ROUTES) - 1}\b", done.stdout), done.stdout  # All but the document itself.
    assert server.process.poll() is None
    assert "Traceback" not in server.log()
