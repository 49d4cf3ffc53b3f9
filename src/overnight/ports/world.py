"""The doors to the outside world in one hand, so that a composition root passes one argument."""

from dataclasses import dataclass, field

from overnight.ports.clock import Clock, Pause, SystemClock, SystemPause
from overnight.ports.entropy import Entropy, SystemEntropy
from overnight.ports.files import Files, OsFiles
from overnight.ports.marks import Marks, NoMarks
from overnight.ports.offload import Offload, ThreadOffload
from overnight.ports.tracer import NoTracer, Tracer


@dataclass(frozen=True, kw_only=True)
class World:
    """Time, waiting, dice, disk, threads, test marks and traces. The default is the real world, without traces."""

    clock: Clock = field(default_factory=SystemClock)
    pause: Pause = field(default_factory=SystemPause)
    entropy: Entropy = field(default_factory=SystemEntropy)
    files: Files = field(default_factory=OsFiles)
    offload: Offload = field(default_factory=ThreadOffload)
    marks: Marks = field(default_factory=NoMarks)
    tracer: Tracer = field(default_factory=NoTracer)
