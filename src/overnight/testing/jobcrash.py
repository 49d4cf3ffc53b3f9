"""A nightly job that dies, or whose disk fills up, exactly where a test says: `overnight` with test doors.

subprocess.run([sys.executable, "-m", jobcrash.MODULE, "run", "job.toml"], env=settings(crash_at="job.sunk"))

As a module it takes the arguments of `overnight`; where it fails comes from the environment:

    OVERNIGHT_CRASH_AT     MARK:N, of `ports.marks.MARKS`: SIGKILL when it is reached the N-th time
    OVERNIGHT_FULL_AT      MARK:N: from then on this process can write to no file, as on a full disk
    OVERNIGHT_MARKS_LOG    a file; "MARK SECONDS" (monotonic clock) is appended whenever a mark is reached
    OVERNIGHT_LIMITS       "NAME=NUMBER ...": other values for `overnight.limits`
"""

import os
import resource
from collections.abc import Mapping
from pathlib import Path

from overnight.ports.world import World
from overnight.testing import crashpoint
from overnight.testing.crashpoint import CrashingMarks, change_limits

MODULE = "overnight.testing.jobcrash"


def settings(
    *,
    crash_at: str | None = None,
    full_at: str | None = None,
    marks_log: Path | None = None,
    changed_limits: Mapping[str, float] | None = None,
) -> dict[str, str]:
    """The environment that asks this module for these failures."""
    given = crashpoint.settings(crash_at=crash_at, marks_log=marks_log, changed_limits=changed_limits)
    return given | ({"OVERNIGHT_FULL_AT": full_at} if full_at else {})


class FailingMarks(CrashingMarks):
    """Kills this process at one mark, or takes its disk away at another."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(
            crash_at=environment.get("OVERNIGHT_CRASH_AT", ""), log=environment.get("OVERNIGHT_MARKS_LOG", "")
        )
        mark, _, count = environment.get("OVERNIGHT_FULL_AT", "").partition(":")
        self._full_at, self._left = mark, int(count or 1)

    def reach(self, mark: str) -> None:
        super().reach(mark)
        if mark == self._full_at:
            self._left -= 1
            if self._left == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def main() -> None:
    """Run the command until its end, or until the mark."""
    change_limits(os.environ.get("OVERNIGHT_LIMITS", ""))
    from overnight.cli.main import main as run  # noqa: PLC0415  After the limits were changed.

    run(World(marks=FailingMarks(os.environ)))


if __name__ == "__main__":
    main()
