"""What the benchmarks share: who measured where, what a process has used, and one line of JSON at the end.

Wall times are what a client sees, but other work on the machine stretches them; CPU times stay. So each benchmark
measures its physical limit in the same run, in rounds that alternate, and judges the median of the ratios per round.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SEED = 20261121


def parser(about: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options every benchmark has: `--rounds`, `--seed` and `--on`, a directory on the disk to measure."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--rounds", type=int, default=rounds, help="ours and the limit in turn, this often")
    found.add_argument("--seed", type=int, default=SEED)
    found.add_argument("--on", type=Path, help="a directory on the disk to measure; default: the temporary one")
    return found


@contextmanager
def scratch(on: Path | None) -> Iterator[Path]:
    """A directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="overnight-benchmark-", dir=on) as name:
        yield Path(name)


def machine() -> dict[str, Any]:
    """Cores, Python, and how busy the machine is with other things."""
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "load_1min_5min": [round(load, 2) for load in os.getloadavg()[:2]],
    }


def commit() -> str:
    """The commit of this checkout, `+` behind it if files have changed since; `unknown` outside of one."""
    root = Path(__file__).resolve().parent
    command = ["git", "-C", str(root)]
    head = subprocess.run([*command, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return "unknown"
    changes = subprocess.run([*command, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def cpu_s(process_id: int) -> float:
    """User and system time of a process with all its threads so far. Linux only."""
    return time.clock_gettime((~process_id << 3) | 2)  # The clock clock_getcpuclockid(3) names.


def memory_mb(process_id: int, field: str) -> float:
    """`VmRSS` (resident now) or `VmHWM` (the most that ever was) of a process, in 10^6 bytes. Linux only."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"/proc/{process_id}/status has no {field}")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, least and most."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def ratios(ours: Sequence[float], limit: Sequence[float]) -> dict[str, float]:
    """The ratios round by round."""
    return spread([mine / floor for mine, floor in zip(ours, limit, strict=True)], 2)


def goal(value: float, *, at_most: float | None = None, at_least: float | None = None) -> dict[str, Any]:
    """A goal, the value it is judged by, and whether it is met."""
    found: dict[str, Any] = {"value": round(value, 2)}
    if at_most is not None:
        return found | {"at_most": at_most, "is_met": value <= at_most}
    assert at_least is not None
    return found | {"at_least": at_least, "is_met": value >= at_least}


def report(name: str, *, seed: int, workload: Mapping[str, Any], goals: Mapping[str, Any], **figures: Any) -> None:
    """Print the one line."""
    line = {"benchmark": name, "commit": commit(), "machine": machine(), "seed": seed, "workload": workload}
    sys.stdout.write(json.dumps({**line, **figures, "goals": goals}) + "\n")


@contextmanager
def upstream(*flags: str) -> Iterator[str]:
    """The URL of an engine that costs almost nothing, in a process of its own."""
    command = [sys.executable, "-m", "overnight.testing.upstream", "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
