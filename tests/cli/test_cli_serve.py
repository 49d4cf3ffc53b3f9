"""`overnight` and `overnight serve`: help, refusals with their exit codes, and secrets that stay secret."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_calls import Printed, inside, overnight

from overnight import __version__
from overnight.testing.observed import upstream_process
from overnight.testing.processes import running_server
from overnight.testing.wireclient import BATCHES, WireClient, params, request

USAGE = 2
KEY, ENGINE_KEY, WRONG_KEY = "sk-our-key", "sk-engine-key", "sk-wrong-key"


def serve(tmp_path: Path, *arguments: str, environment: dict[str, str] | None = None) -> Printed:
    """A server that must not start."""
    listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
    return overnight("serve", *listen, "--data", str(tmp_path / "data"), *arguments, environment=environment)


def refusal(printed: Printed) -> str:
    assert (printed.code, printed.out) == (USAGE, ""), printed
    (line,) = printed.err.splitlines()
    assert line.startswith("overnight: ")
    return line


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command_and_fits_a_terminal(flag: str) -> None:
    printed = inside(flag)
    assert (printed.code, printed.err) == (0, "")
    listed = {line.split()[0] for line in printed.out.partition("Commands:\n")[2].splitlines()}
    assert {"serve", "demo", "config"} <= listed
    for command in listed:
        own = inside(command, flag)
        assert (own.code, own.err) == (0, "")
        assert own.out.startswith(f"Usage: overnight {command} ")
        assert max(map(len, own.out.splitlines())) <= 115


def test_help_of_serve_shows_every_flag_and_how_to_use_it() -> None:
    printed = inside("serve", "--help")
    for flag in ("--config", "--listen", "--data", "--engine", "--public-url", "--request-counts", "live|at_end"):
        assert flag in printed.out
    assert "overnight serve --engine http://127.0.0.1:8000" in printed.out


def test_the_version_is_that_of_the_package() -> None:
    assert inside("--version").out == f"overnight, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("serve", "--nonsense"), ("serve", "extra"), ("config", "--listen")]
)
def test_a_command_line_that_is_wrong_exits_with_2(arguments: tuple[str, ...]) -> None:
    printed = inside(*arguments)
    assert (printed.code, printed.out) == (USAGE, "")
    assert "Error: " in printed.err
    assert "Traceback" not in printed.err


def test_without_assertions_nothing_runs() -> None:
    printed = overnight("config", flags=("-O",))
    assert printed.code == 1
    assert "python -O" in printed.err


def test_a_server_that_anybody_could_reach_is_not_started_without_a_key(tmp_path: Path) -> None:
    said = refusal(serve(tmp_path, "--listen", "0.0.0.0:0"))
    assert "would let anybody on the network in" in said
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refusal(serve(tmp_path, "--listen", address))
    assert said.startswith(f"overnight: cannot listen on {address}: Address already in use")
    assert said.endswith("choose another address with --listen")


def test_an_address_that_is_not_ours_is_named(tmp_path: Path) -> None:
    printed = serve(tmp_path, "--listen", "192.0.2.1:1", environment={"OVERNIGHT_API_KEY": KEY})
    assert "cannot listen on 192.0.2.1:1: " in refusal(printed)


ENGINES = {
    "unknown": ("ollama", "there is no engine 'ollama'; an engine is one of embedded | PATH.gguf"),
    "empty": ("", "there is no engine ''"),
    "no host": ("http://", "is not an address of an engine"),
    "with a password": (f"http://user:{KEY}@127.0.0.1", "holds a user name or password"),
    "no such file": ("none/such.gguf", "none/such.gguf"),
    "no key": ("claude", "ANTHROPIC_API_KEY is not set"),
    "half a hub name": ("hf:owner", "hf:"),
}


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_cannot_work_is_named(name: str, tmp_path: Path) -> None:
    spec, wanted = ENGINES[name]
    said = refusal(serve(tmp_path, "--engine", spec))
    assert wanted in said
    assert KEY not in said


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.gguf"
    file.write_text("my notes")
    printed = serve(tmp_path, "--engine", str(file))
    assert (printed.code, printed.out) == (USAGE, "")
    last = printed.err.splitlines()[-1]
    assert last.startswith("overnight: ")
    assert str(file) in last


@pytest.fixture
def engine_url() -> Iterator[str]:
    with upstream_process("--key", ENGINE_KEY) as url:
        yield url


def test_keys_are_in_no_log_no_file_and_no_answer(tmp_path: Path, engine_url: str) -> None:
    data, config = tmp_path / "data", tmp_path / "overnight.toml"
    config.write_text(
        f'[[engines]]\nspec = "{engine_url}"\nmodels = ["good*"]\napi_key_env = "ENGINE_KEY"\n'
        f'[[engines]]\nspec = "{engine_url}"\napi_key = "{WRONG_KEY}"\n'
    )
    environment = {"OVERNIGHT_API_KEY": KEY, "ENGINE_KEY": ENGINE_KEY}
    with running_server(data, "--config", str(config), environment=environment) as server:
        answers = []
        with closing(WireClient(server.url, api_key=KEY)) as client:
            requests = [request("good", model="good"), request("odd", model=[])]
            batch_id = client.create(requests)["id"]
            while client.retrieve(batch_id)["processing_status"] != "ended":
                pass
            assert {name: row["type"] for name, row in client.results(batch_id).items()} == {
                "good": "succeeded",
                "odd": "errored",
            }
            for path in (f"{BATCHES}/{batch_id}/results", BATCHES, "/health", "/openapi.json", "/v1/models"):
                answers.append(client.call("GET", path))
            answers.append(client.call("POST", "/v1/messages", params(model="bad")))
            client.create([request("bad", model="bad")])
            while "refuses our key" not in str(client.call("GET", "/health").json["trouble"]):
                pass
            answers.append(client.call("GET", "/health"))
        with closing(WireClient(server.url, api_key=WRONG_KEY)) as stranger:
            answers.append(stranger.call("GET", BATCHES))
            assert answers[-1].status == 401
        assert server.stop() == 0
        log = server.log()
    everything = log + json.dumps([[answer.body.decode(), dict(answer.headers)] for answer in answers])
    files = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    for secret in (KEY, ENGINE_KEY, WRONG_KEY):
        assert secret not in everything
        assert secret.encode() not in files
