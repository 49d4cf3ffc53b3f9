"""A server for the official SDKs: `claude-…` is answered with `echo: ` and the text, `held-…` never."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from overnight.testing.observed import ObservedServer, observed_server, upstream_process

KEYS = 20


@pytest.fixture(scope="session")
def engine_url() -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Iterator[ObservedServer]:
    """Its keys are `key-0` and so on, each for a workspace of its own."""
    folder = tmp_path_factory.mktemp("sdk")
    keys = "".join(
        f'[[keys]]\nsha256 = "{sha256(f"key-{number}".encode()).hexdigest()}"\nworkspace = "wrkspc_{number:02}"\n'
        for number in range(KEYS)
    )
    config: Path = folder / "overnight.toml"
    config.write_text(
        f'[[engines]]\nspec = "{engine_url}"\nmodels = ["claude-*"]\n'
        f'[[engines]]\nspec = "http://127.0.0.1:9"\nmodels = ["held-*"]\n{keys}'
    )
    with observed_server(folder / "data", "--config", str(config)) as found:
        yield found
