"""A lane of an engine whose slots have a prompt cache each: it takes from the backlog on its own account, so that
neighbours meet in the same slot."""

from overnight.runner.backlog import Taker


class Slot:
    """See `backlog.Taker`."""

    turn = 3  # A slot holds one prefix: changing workspaces each time would compute it each time.
    limit = 1

    def __init__(self, pool: Taker) -> None:
        self._pool = pool
        self.engine = pool.engine

    @property
    def is_by_deadline(self) -> bool:
        """As all of the engine."""
        return self._pool.is_by_deadline
