"""One server for all checks, a workspace of its own for each test, and an engine that answers at once.

Model names choose what happens to a request: `claude-…` is answered with `echo: ` and its text, `held-…` waits for an
engine that is not there, so its batch stays in progress, and any other name is unknown.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from given import NewClient, Whale

from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import WireClient, request

_WORKSPACES = 250
_key_numbers = count()


@pytest.fixture(scope="session")
def engine_url() -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Path:
    keys = "".join(
        f'[[keys]]\nsha256 = "{sha256(f"key-{number}".encode()).hexdigest()}"\nworkspace = "wrkspc_{number:03}"\n'
        for number in range(_WORKSPACES)
    )
    path = tmp_path_factory.mktemp("config") / "overnight.toml"
    path.write_text(
        f'[[engines]]\nspec = "{engine_url}"\nmodels = ["claude-*"]\n'
        f'[[engines]]\nspec = "http://127.0.0.1:9"\nmodels = ["held-*"]\n{keys}'
    )
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Iterator[ObservedServer]:
    with observed_server(tmp_path_factory.mktemp("contract") / "data", "--config", str(config)) as found:
        yield found


@pytest.fixture
def new_client(server: ObservedServer) -> Iterator[NewClient]:
    with ExitStack() as held:

        def make(version: str = "2023-06-01") -> WireClient:
            key = f"key-{next(_key_numbers) % _WORKSPACES}"
            return held.enter_context(closing(WireClient(server.url, api_key=key, version=version)))

        yield make


@pytest.fixture
def client(new_client: NewClient) -> WireClient:
    return new_client()


@pytest.fixture(scope="session")
def whale(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Iterator[Whale]:
    data = tmp_path_factory.mktemp("whale") / "data"
    flags = ("--engine", engine_url)
    requests = [request(f"row-{number}", f"say {number} and this: {'y' * 200}") for number in range(100_000)]
    with observed_server(data, *flags) as server, closing(WireClient(server.url)) as client:
        created = client.create(requests)
        server.wait_ended(client, created["id"])
        assert server.stop() == 0
    with observed_server(data, *flags) as server, closing(WireClient(server.url)) as client:
        yield Whale(server, client, created)
