"""A night under virtual time with an upstream above it, which outlives its processes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hostedinside import HostedInside

from overnight.core.prices import told
from overnight.engines.claudebatch import ClaudeBatch
from overnight.ports.marks import Marks, NoMarks
from overnight.ports.offload import InlineOffload
from overnight.ports.world import World
from overnight.runner.purse import Purse
from overnight.testing.handingover import Night
from overnight.testing.hosted import HostedApi, Outcome, text
from overnight.testing.simulation import Machine
from overnight.testing.virtualtime import run

Drive = Callable[[Night], Awaitable[None]]
Script = Callable[[str, dict[str, Any]], Outcome]
HOUR_S = 3600.0
MODEL = "claude-haiku-4-5"
A_DOLLAR = told(input=0.0, output=2_000_000.0)  # For each token of output in a batch, at half price.


class Killed(Exception):
    """The process died at a mark."""


class KillingMarks:
    """Ends the process at one mark."""

    def __init__(self, mark: str, *, times: int = 1) -> None:
        self._mark, self._left = mark, times

    def reach(self, mark: str) -> None:
        if mark == self._mark:
            self._left -= 1
            if self._left == 0:
                raise Killed(mark)


def said(params: dict[str, Any]) -> str:
    """The prompt of a request."""
    return str(params["messages"][-1]["content"])


def echo(custom_id: str, params: dict[str, Any]) -> Outcome:
    """What was said, so that an answer shows whose it is."""
    return text(f"echo {said(params)}")


class Sky:
    """A machine of ours and an upstream."""

    def __init__(self, tmp_path: Path, script: Script = echo, *, ahead_s: int | None = None, **bounds: int) -> None:
        """`ahead_s`: the upstream says its time of day, and it is ahead of ours."""
        tmp_path.mkdir(exist_ok=True)
        self.machine = Machine(tmp_path)
        ahead_ms = (ahead_s or 0) * 1000
        self.hosted = HostedApi(script, now_ms=lambda: self.machine.clock.now_ms() + ahead_ms)
        self.wire = HostedInside(self.hosted, has_date=ahead_s is not None)
        self.bounds = bounds
        self.segments_max = 1_000  # That are leased at once.
        self.usd_per_day: float | None = None  # What the upstream may cost, at the prices of `A_DOLLAR`.

    def live(self, drive: Drive, *, marks: Marks | None = None) -> None:
        """One process, from recovery to its death."""

        async def main() -> None:
            async with self.machine.opened() as committer:
                engine = ClaudeBatch(
                    "https://api.anthropic.com", wire=self.wire, clock=self.machine.clock, **self.bounds
                )
                store, world = self.machine.store(committer), self._world(marks or NoMarks())
                night = Night(store, engine, world, segments_max=self.segments_max, purse=self._purse(engine))
                async with night.working():
                    await drive(night)

        run(main(), self.machine.clock)

    def die_at(self, mark: str, drive: Drive, *, times: int = 1) -> None:
        """One process that dies at a mark. AssertionError if it does not come to that."""
        try:
            self.live(drive, marks=KillingMarks(mark, times=times))
        except BaseExceptionGroup as group:
            if group.subgroup(Killed) is None:
                raise
            return
        raise AssertionError(f"it did not come to {mark}")

    def asked(self) -> Counter[str]:
        """How often each prompt was sent in a batch that was made: what is paid for."""
        return Counter(said(params) for create in self.hosted.creates for params in create.params)

    def sizes(self) -> list[int]:
        """Of the batches that were made, oldest first."""
        return [len(create.custom_ids) for create in self.hosted.creates]

    def _purse(self, engine: ClaudeBatch) -> Purse | None:
        if self.usd_per_day is None:
            return None
        return Purse(
            engine.name, self.usd_per_day, clock=self.machine.clock, prices={MODEL: A_DOLLAR}, is_batched=True
        )

    def _world(self, marks: Marks) -> World:
        machine = self.machine
        return World(
            clock=machine.clock, entropy=machine.entropy, files=machine.disk, offload=InlineOffload(), marks=marks
        )


def requests(count: int, name: str = "r", **more: Any) -> list[tuple[str, dict[str, Any]]]:
    """`r0`, `r1`, …, each of which says its own name."""

    def params(said: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": said}]
        return {"model": MODEL, "max_tokens": 10, "messages": turns, **more}

    return [(f"{name}{index}", params(f"{name}{index}")) for index in range(count)]


def answers(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    """By custom_id: what was answered, or the kind of the row."""
    return {
        name: found["message"]["content"][0]["text"] if found["type"] == "succeeded" else found["type"]
        for name, found in results.items()
    }


def echoes(count: int, name: str = "r") -> dict[str, str]:
    """What all of `requests` are answered."""
    return {f"{name}{index}": f"echo {name}{index}" for index in range(count)}


async def night_of(night: Night, count: int, *, name: str = "r", **more: Any) -> dict[str, dict[str, Any]]:
    """A batch from its creation to its results."""
    batch = await night.create(requests(count, name, **more))
    ended = await night.until_ended(batch)
    assert ended.tally.total == count
    return await night.results(batch)


async def check_echoes(night: Night, count: int) -> None:
    """A whole night of a batch that goes well in the end."""
    assert answers(await night_of(night, count)) == echoes(count)


async def nothing_is_left(night: Night) -> None:
    """No handoff is held or written down."""
    await asyncio.sleep(60)
    assert (night.handoff.in_flight, await night.outstanding()) == (0, [])
