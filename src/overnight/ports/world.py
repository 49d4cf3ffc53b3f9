"""The doors to the outside world in one hand, so that a composition root passes one argument."""

from dataclasses import dataclass, field

from overnight.ports.clock import Clock, Pause, SystemClock, SystemPause
from overnight.ports.entropy import Entropy, SystemEntropy
from overnight.ports.files import Files, OsFiles
from overnight.ports.marks import Marks, NoMarks
from overnight.ports.offload import Offload, ThreadOffload


@dataclass(frozen=True, kw_only=True)
class World:
    """Time, waiting, dice, disk, threads and test marks. The default is the real world."""

    clock: Clock = field(default_factory=SystemClock)
    pause: Pause = field(default_factory=SystemPause)
    entropy: Entropy = field(default_factory=SystemEntropy)
    files: Files = field(default_factory=OsFiles)
    offload: Offload = field(default_factory=ThreadOffload)
    marks: Marks = field(default_factory=NoMarks)
