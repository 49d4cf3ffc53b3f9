"""The `overnight` command in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple


class Printed(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def overnight(*arguments: str, environment: Mapping[str, str] | None = None, flags: tuple[str, ...] = ()) -> Printed:
    """Run it to its end. No variable of ours reaches it but those in `environment`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OVERNIGHT_", "ANTHROPIC_"))}
    command = [sys.executable, *flags, "-m", "overnight.cli.main", *arguments]
    env = {**clean, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    return Printed(done.returncode, done.stdout, done.stderr)
