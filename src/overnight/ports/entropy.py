"""The one door to dice: ids and retry jitter."""

import os
import random
from typing import Protocol


class Entropy(Protocol):
    """Where random bytes and numbers come from; a seed replays them in simulations."""

    def bytes(self, length: int) -> bytes:
        """`length` bytes nobody can guess."""
        ...

    def uniform(self) -> float:
        """A number in [0, 1), for jitter."""
        ...


class SystemEntropy:
    """The operating system's generator."""

    def bytes(self, length: int) -> bytes:
        return os.urandom(length)

    def uniform(self) -> float:
        return random.random()  # noqa: S311  Jitter, not a secret.
