"""Secrets of every kind, through success and every failure, and then looked for in everything that comes out.

Not here, since tested where they are used: secrets of jobs (tests/unit/jobs/test_jobs_secret.py, test_jobs_ledger.py,
test_jobs_notify.py, tests/jobs/test_jobs_postgres.py, test_jobs_mail.py).
"""

import base64
import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import pytest
from cli_calls import inside

from overnight.server.app import ROUTES
from overnight.server.console.routes import CONSOLE_ROUTES, OPEN_ROUTES
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import BATCHES, Answer, WireClient, params, request

OF_ENGINE, OF_ENVIRONMENT = "sk-engine/+0123456789", "sk-environment-?&0123456789"
WRONG = "sk-wrong-0123456789"
OPERATOR = "sk-operator-0123456789abcdef"
IN_SIGNAL = "signal-0123456789"
GUESS = "sk-guess-0123456789"
LOGGED = ("text", "json")


def forms(secret: str) -> dict[str, bytes]:
    """How a secret may look: as it is, percent-encoded, in JSON, in hex, and in base64 wherever it begins."""
    raw = secret.encode()
    found = {
        "plain": raw,
        "percent": quote(secret, safe="").encode(),
        "plus": quote_plus(secret).encode(),
        "JSON": json.dumps(secret)[1:-1].replace("/", "\\/").encode(),
        "hex": raw.hex().encode(),
        "UTF-16": secret.encode("utf-16-le"),
        "compressed": b"",
    }
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        middle = encoded[4 if shift else 0 : -4]  # Without what its neighbours have a part in.
        found[f"base64 {shift}"] = middle
        found[f"base64url {shift}"] = middle.replace(b"+", b"-").replace(b"/", b"_")
    return {name: form for name, form in found.items() if form}


def seen(where: Mapping[str, bytes], secrets: Mapping[str, str]) -> list[str]:
    """Which secret is where, in which form."""
    return [
        f"{name} in {place} as {form}"
        for name, secret in secrets.items()
        for form, looks in forms(secret).items()
        for place, content in where.items()
        if looks in content
    ]


class _Repeats(BaseHTTPRequestHandler):
    """An engine that says in its errors what it was sent, as debugging proxies do. The model says which status."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = int(body["model"].rpartition("-")[2])
        said = " ".join(f"{name}: {value}" for name, value in self.headers.items())
        self._answer(status, {"type": "error", "error": {"type": "invalid_request_error", "message": said}})

    def do_GET(self) -> None:
        self._answer(404, {})

    def _answer(self, status: int, told: object) -> None:
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _repeating() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Repeats)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Found(NamedTuple):
    """What was found in all places, and what must not be there."""

    places: dict[str, bytes]
    secrets: dict[str, str]
    hook_secret: str
    database: bytes


def _config(path: Path, upstream: str, repeating: str) -> None:
    path.write_text(
        f'[[engines]]\nspec = "{upstream}"\nmodels = ["good*"]\napi_key = "{OF_ENGINE}"\n'
        f'[[engines]]\nspec = "{repeating}"\nmodels = ["says-*"]\napi_key_env = "ENGINE_KEY"\n'
        f'[[engines]]\nspec = "chat+{repeating}"\nmodels = ["chat-says-*"]\napi_key_env = "ENGINE_KEY"\n'
        f'[[engines]]\nspec = "{upstream}"\nmodels = ["wrong*"]\napi_key = "{WRONG}"\n'
        f'[engines.signal]\nurl = "{repeating}/?key={IN_SIGNAL}"\nat_most = 1\n'
    )


def _requests() -> list[object]:
    """One for each way to end."""
    texts = {
        "answered": "x",
        "refused": "[[400]]",
        "busy": "[[529 x1]]",
        "garbage": "[[garbage]]",
        "lost": "[[drop x1]]",
    }
    says = [f"{kind}says-{status}" for kind in ("", "chat-") for status in (400, 413, 422)]
    return [
        *(request(name, text, model="good") for name, text in texts.items()),
        *(request(model, model=model) for model in says),
        request("invalid", model="good", max_tokens=0),
        request("unknown", model=[]),
    ]


def _answers(server: ObservedServer, key: str, batch_id: str) -> Iterator[tuple[str, Answer]]:
    """Every endpoint and every page, as its own key sees it, and what goes wrong for a wrong one."""
    parts = {"batch_id": batch_id, "custom_id": "answered", "model_id": "good", "name": "x"}
    with closing(WireClient(server.url, api_key=key)) as client:
        for method, path, _ in ROUTES:
            to = path.replace(":path", "")
            if method == "GET":
                to = to.format(**parts) + ("?starting_at=2026-01-01T00:00:00Z" if "report" in path else "")
                yield f"{method} {to}", client.call(method, to)
        for model in ("good", "wrong", *(f"{kind}says-{n}" for kind in ("", "chat-") for n in (400, 401, 403, 500))):
            yield f"message {model}", client.call("POST", "/v1/messages", params(model=model))
            yield f"stream {model}", client.call("POST", "/v1/messages", params(model=model, stream=True))
            yield f"count {model}", client.call("POST", "/v1/messages/count_tokens", params(model=model))
        yield "broken", client.call("POST", BATCHES, b"{")
        yield "wrong key", client.call("GET", BATCHES, headers={"x-api-key": GUESS})
        for path in (f"/{GUESS}", f"{BATCHES}?after_id=x&key={GUESS}", "/console/login"):
            headers = {"x-api-key": GUESS, "authorization": f"Bearer {GUESS}"}
            yield "elsewhere", client.call("GET", path.replace(GUESS, "x"), headers=headers)
    yield from _pages(server, key, parts)


def _pages(server: ObservedServer, key: str, parts: dict[str, str]) -> Iterator[tuple[str, Answer]]:
    with closing(WireClient(server.url)) as client:
        page = client.call("GET", "/console/login")
        token = page.body.partition(b'name="token" value="')[2][:64].decode()
        headers = {
            "cookie": page.headers["set-cookie"].partition(";")[0],
            "content-type": "application/x-www-form-urlencoded",
        }
        for shown in (GUESS, key):
            body = f"token={token}&key={quote_plus(shown)}".encode()
            begun = client.call("POST", "/console/login", body, headers=headers, without=["x-api-key"])
            yield f"login {shown == key}", begun
        assert begun.status == 303
        cookie = {"cookie": begun.headers["set-cookie"].partition(";")[0]}
        missing = {"key_id": "x", "workspace_id": "x", "hook_id": "x", "delivery_id": "x"}
        for method, path, _ in (*CONSOLE_ROUTES, *OPEN_ROUTES):
            if method == "GET":
                answer = client.call("GET", path.format(**parts, **missing), headers=cookie, without=["x-api-key"])
                assert answer.status != 303 or path == "/console/login" or "login" not in answer.headers["location"]
                yield f"page {path}", answer


COMMANDS: list[tuple[str, ...]] = [
    ("config", "--config", "{config}"),
    ("doctor", "--config", "{config}", "--url", "{url}"),
    ("engines", "--url", "{url}"),
    ("keys", "list", "--data", "{data}"),
    ("keys", "list", "--json", "--data", "{data}"),
    ("workspaces", "list", "--data", "{data}"),
    ("hooks", "list", "--data", "{data}"),
    ("hooks", "list", "--json", "--data", "{data}"),
    ("hooks", "deliveries", "--data", "{data}"),
    ("hooks", "deliveries", "--json", "--data", "{data}"),
    ("hooks", "test", "{hook}", "--data", "{data}"),
    ("usage", "--data", "{data}"),
    ("usage", "--by", "key", "--data", "{data}"),
    ("backup", "{backup}", "--data", "{data}"),
    ("restore", "{backup}", "--check"),
    ("serve", "--engine", f"http://user:{WRONG}@127.0.0.1", "--data", "{data}x"),
    ("config", "--engine", f"http://user:{WRONG}@127.0.0.1"),
    ("config", "--public-url", f"https://user:{WRONG}@night.example"),
    ("doctor", "--engine", f"http://user:{WRONG}@127.0.0.1", "--data", "{data}"),
    ("hooks", "create", f"https://user:{WRONG}@night.example/", "--data", "{data}"),
    ("hooks", "create", f"http://127.0.0.1/{WRONG}", "--data", "{data}"),
    ("engines", "--url", f"http://user:{WRONG}@127.0.0.1:9"),
    ("usage", "--url", f"http://user:{WRONG}@127.0.0.1:9"),
]


@pytest.fixture(scope="module", params=LOGGED)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    folder = tmp_path_factory.mktemp("secrets")
    with pytest.MonkeyPatch.context() as patched, _repeating() as repeating:
        for name, value in {
            "OVERNIGHT_API_KEY": OPERATOR,
            "ENGINE_KEY": OF_ENVIRONMENT,
            "OVERNIGHT_LOG_FORMAT": request.param,
            "OVERNIGHT_LOG_LEVEL": "debug",
        }.items():
            patched.setenv(name, value)
        with upstream_process("--key", OF_ENGINE) as upstream:
            _config(folder / "overnight.toml", upstream, repeating)
            yield _lived(folder, folder / "overnight.toml")


def _lived(folder: Path, config: Path) -> Found:
    """The life of a server with secrets, and everything that came out of it."""
    data, places = folder / "data", dict[str, bytes]()
    key = json.loads(inside("keys", "create", "--admin", "--json", "--data", str(data)).out)["key"]
    with (
        observed_server(data, "--config", str(config)) as server,
        closing(WireClient(server.url, api_key=key)) as client,
    ):
        made = inside("hooks", "create", "https://8.8.8.8/hook", "--json", "--data", str(data))
        hook = json.loads(made.out)
        while client.call("GET", BATCHES).status != 200:
            pass  # Until the key that was made is known.
        batch_id = client.create(_requests())["id"]
        server.wait_ended(client, batch_id)
        away = client.create([request("a", model="wrong"), request("b", model="says-401")])["id"]
        while "refuses our key" not in str(client.call("GET", "/health").json["trouble"]):
            pass
        for name, answer in _answers(server, key, batch_id):
            places[name] = answer.body + b"\n" + json.dumps(dict(answer.headers)).encode()
        client.cancel(away)
        server.wait_ended(client, away)
        given = {"config": str(config), "url": server.url, "data": str(data), "hook": hook["id"]}
        for arguments in COMMANDS:
            to = [part.format(**given, backup=str(folder / "backup")) for part in arguments]
            printed = inside(*to, environment={"ENGINE_KEY": OF_ENVIRONMENT, "OVERNIGHT_API_KEY": OPERATOR})
            assert "Traceback" not in printed.err, (arguments, printed.err)
            places[" ".join(arguments).replace(WRONG, "…")] = f"{printed.out}\n{printed.err}".encode()
        if (of_process := Path(f"/proc/{server.process.pid}/cmdline")).exists():
            places["process list"] = of_process.read_bytes()
        assert all(row["type"] == "errored" for name, row in client.results(batch_id).items() if "says" in name)
    places["log"] = server.log().encode()
    database = b""
    for path in sorted((*data.rglob("*"), *(folder / "backup").rglob("*"))):
        if path.is_file():
            content = path.read_bytes()
            if "control" in path.name:
                database += content
            places[f"file {path.relative_to(folder)}"] = gzip.decompress(content) if path.suffix == ".gz" else content
    secrets = {
        "key of an engine": OF_ENGINE,
        "key of an engine, by its name": OF_ENVIRONMENT,
        "wrong key": WRONG,
        "operator's key": OPERATOR,
        "made key": key,
        "guess": GUESS,
        "key of a signal": IN_SIGNAL,
    }
    return Found(places, secrets, hook["secret"], database)


def test_no_secret_comes_out_anywhere(found: Found) -> None:
    assert len(found.places) > 100
    assert "\n".join(seen(found.places, found.secrets)) == ""


def test_the_secret_of_a_hook_is_in_the_database_alone(found: Found) -> None:
    secret = found.hook_secret.removeprefix("whsec_")
    raw = base64.b64decode(secret)
    assert raw in found.database, "receivers and we have to know the same"
    others = {name: text for name, text in found.places.items() if "control" not in name}
    assert [name for name, text in others.items() if raw in text or raw.hex().encode() in text.lower()] == []
    assert seen(others, {"hook": found.hook_secret, "without its prefix": secret}) == []


def test_what_is_not_secret_came_out(found: Found) -> None:
    """The places were no empty ones."""
    for name, expected in {
        "log": b"batch created",
        "config --config {config}": b"(set)",
        "keys list --data {data}": b"sk-ant-admin01-...",
        "message says-401": b"[key]",
        "GET /v1/models": b'"data"',
        "page /console/batches": b"msgbatch_",
    }.items():
        assert expected in found.places[name], (name, found.places[name][:500])


@pytest.mark.parametrize("form", forms(OF_ENGINE))
def test_the_search_finds_every_form(form: str) -> None:
    text: Any = b'{"a": "x' + forms(OF_ENGINE)[form] + b'y"}'
    assert seen({"somewhere": text}, {"key": OF_ENGINE})
    assert seen({"somewhere": base64.b64encode(b"Basic user:" + OF_ENGINE.encode() + b"!")}, {"key": OF_ENGINE})
