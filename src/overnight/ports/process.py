"""Who we are among the processes of a machine, for locks that must not outlive their holder."""

import os
import socket
from pathlib import Path


def holder() -> str:
    """This process: host, pid, and when it began, so that a pid that is used again is not taken for it."""
    return f"{socket.gethostname()}:{os.getpid()}:{_began(os.getpid())}"


def is_alive(name: str) -> bool:
    """Whether a holder may still run. What runs on another host may."""
    host, _, rest = name.rpartition(":")[0].rpartition(":")
    began = name.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdecimal():
        return True
    try:
        os.kill(int(rest), 0)
    except (ProcessLookupError, OverflowError):  # The latter: no pid at all.
        return False
    except PermissionError:
        pass
    return _began(int(rest)) == began


def _began(pid: int) -> str:
    """Clock ticks since boot (field 22 of proc(5) stat); `0` where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return "0"
