"""One leader for each new prefix, where a prompt cache has its price.

Claude writes a prefix to its cache with the first answer that has it, at 1.25 times the price of input, and reads it
at a tenth; requests that are sent before the first answer begins find nothing and write it again
(https://platform.claude.com/docs/en/build-with-claude/prompt-caching). So the first request with a prefix goes alone,
and the others with the same one follow when it is answered. An entry lives five minutes after its last use.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable

from overnight.runner.segmentrun import Work
from overnight.wire import params

WARM_MS = 270_000  # Of the five minutes, half a minute is left for requests under way.
PREFIXES_MAX = 4_096  # Remembered; a batch is in prompt order, so few are in use at once.


class Leaders:
    """The prefixes of one engine. Instants are loop time."""

    def __init__(self) -> None:
        self._followers: dict[int, list[Work]] = {}  # By the prefix that is being led.
        self._warm_until_ms: OrderedDict[int, float] = OrderedDict()  # The one used longest ago first.
        self._ready: deque[Work] = deque()

    @property
    def held(self) -> int:
        """How many requests wait for a leader."""
        return sum(map(len, self._followers.values()))

    def next(self) -> Work | None:
        """A request that had to wait, and may go now."""
        while self._ready:
            work = self._ready.popleft()
            if work.is_open:
                return work
        return None

    def may_go(self, work: Work, *, now_ms: float) -> bool:
        """Whether a request goes now, as a leader or on a warm prefix. If not, it is held until `next` gives it."""
        if not work.is_cached:
            return True
        prefix = params.prefix_of(work.params)
        if prefix in self._followers:
            self._followers[prefix].append(work)
            return False
        if now_ms < self._warm_until_ms.get(prefix, 0.0):
            self._warm(prefix, now_ms)
        else:
            self._followers[prefix] = []
        return True

    def ended(self, work: Work, *, was_answered: bool, now_ms: float) -> None:
        """A request that went is back. If it led and was not answered, one of those that waited leads."""
        if not work.is_cached:
            return
        prefix = params.prefix_of(work.params)
        self._ready.extend(self._followers.pop(prefix, ()))
        if was_answered:
            self._warm(prefix, now_ms)

    def give_back(self) -> Iterable[Work]:
        """All that waits here: the engine is away."""
        found = [*self._ready, *(work for works in self._followers.values() for work in works)]
        self._ready.clear()
        self._followers = {prefix: [] for prefix in self._followers}
        return found

    def _warm(self, prefix: int, now_ms: float) -> None:
        self._warm_until_ms[prefix] = now_ms + WARM_MS
        self._warm_until_ms.move_to_end(prefix)
        if len(self._warm_until_ms) > PREFIXES_MAX:
            self._warm_until_ms.popitem(last=False)
