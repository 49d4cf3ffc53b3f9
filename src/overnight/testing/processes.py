"""A real server in a process of its own, for tests that want sockets, signals and sudden death.

with running_server(tmp_path / "data", "--engine", upstream.url) as server:
    client = Anthropic(base_url=server.url, api_key="any")
"""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import environ
from pathlib import Path

_READY = re.compile(r"overnight is ready on (\S+)")


class ServerFailed(Exception):
    """The server ended before it was ready. The message is what it printed."""


class ServerProcess:
    """`overnight serve` on a free port of 127.0.0.1. Output goes to `log_path`."""

    def __init__(
        self,
        data: Path,
        *flags: str,
        module: str = "overnight.cli.main",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts at once and returns when requests are answered; ServerFailed if that does not happen.

        `module` is run with `python -m`; it must take the arguments of `overnight`.
        """
        self.log_path = data.with_name(data.name + ".log")
        command = [sys.executable, "-m", module, "serve", "--listen", "127.0.0.1:0", "--data", str(data), *flags]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  Our own interpreter.
                command, stdout=subprocess.PIPE, stderr=log, env={**environ, **(environment or {})}, text=True
            )
        self.url = self._wait_ready()

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.process.kill()
        self.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def log(self) -> str:
        """What it wrote to stderr so far, over all starts on this data directory."""
        return self.log_path.read_text(encoding="utf-8")

    def _wait_ready(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := _READY.search(line):
                return found[1]
        code = self.wait()
        raise ServerFailed(f"exit code {code}: {self.log()}")


@contextmanager
def running_server(data: Path, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """A server for the length of a block; stopped with SIGTERM at its end if it still runs."""
    server = ServerProcess(data, *flags, environment=environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        elif server.process.stdout is not None:
            server.process.stdout.close()
