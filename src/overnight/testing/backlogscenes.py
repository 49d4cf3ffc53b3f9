"""Scenes for `backlogdrive`, and what is to be read from them: the same for tests and for printed tables."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from random import Random

from msgspec import Struct

from overnight.core import schedule
from overnight.core.retry import Outcome
from overnight.core.tokens import Tokens
from overnight.engines.engine import Call
from overnight.ids import WorkspaceId
from overnight.testing import stepdrive
from overnight.testing.backlogdrive import Drive, Replica, Rule, Submitted
from overnight.testing.stepengine import MEDIUM, SLOTS, Profile, Sizes, StepEngine
from overnight.testing.virtualtime import VirtualClock, run

A, B = WorkspaceId("wrkspc_a"), WorkspaceId("wrkspc_b")

# --- Prefixes -------------------------------------------------------------------------------------------------------


class Prompts(Struct, frozen=True, kw_only=True):
    """Prompts whose prefixes take ten times the caches of all replicas together."""

    requests: int
    uses: int = 10  # Of each prefix.
    shared: int = 2_000  # Tokens.
    own: int = 200
    output: int = 30

    def sizes(self, place: int) -> Sizes:
        """In sorted order."""
        return Sizes(self.shared + self.own, self.output, place // self.uses + 1, self.shared)

    @property
    def ideal(self) -> int:
        """Tokens to compute with one miss per prefix."""
        return self.requests * self.own + -(-self.requests // self.uses) * self.shared

    def cache_tokens(self, replicas: int) -> int:
        """Of one replica."""
        return max(self.requests // self.uses * self.shared // 10 // replicas, 2 * self.shared + 16 * self.own)


class Computed(Struct, frozen=True, kw_only=True):
    """What came of it. `hit_share` is of the ideal; `spread` is (most - least) / mean of answers per replica."""

    hit_share: float
    prefilled_tokens: int
    spread: float
    took_s: float


Placing = Callable[[int], int]


def in_order(place: int) -> int:
    """As sorted at ingest (`core.segment`)."""
    return place


def submitted(prompts: Prompts) -> Placing:
    """Request by request another prefix, as a program that has a few questions about each of many documents."""
    groups = prompts.requests // prompts.uses
    return lambda place: place % groups * prompts.uses + place // groups


def shuffled(prompts: Prompts, seed: int) -> Placing:
    """Without order."""
    places = list(range(prompts.requests))
    Random(seed).shuffle(places)  # noqa: S311  A replay, not a secret.
    return places.__getitem__


def by_turns(item: Submitted, place: int) -> int:
    """Round robin over the replicas."""
    return place


def by_hash(item: Submitted, place: int) -> int:
    """By the prefix."""
    return item.sizes(place).prefix * 2_654_435_761 % 2**32 >> 16


def computed(
    prompts: Prompts,
    placing: Placing,
    rule: Rule,
    *,
    replicas: int,
    window: int = 64,
    slow: float = 1.0,
    seed: int = 1,
) -> Computed:
    """One batch over replicas, of which the first takes `slow` times as long."""
    cache_tokens = prompts.cache_tokens(replicas)
    engines = [
        Replica(MEDIUM, name=f"replica {n}", cache_tokens=cache_tokens, window=window) for n in range(replicas)
    ]
    engines[0].slow_down(slow)
    batch = Submitted(
        name="batch", workspace=A, requests=prompts.requests, sizes=lambda place: prompts.sizes(placing(place))
    )
    drive = Drive(engines, [batch], rule=rule, seed=seed)
    drive.run()
    asked = sum(engine.input_tokens for engine in engines)
    prefilled = sum(engine.prefilled_tokens for engine in engines)
    answers = [engine.answers for engine in engines]
    return Computed(
        hit_share=(asked - prefilled) / max(1, asked - prompts.ideal),
        prefilled_tokens=prefilled,
        spread=(max(answers) - min(answers)) * replicas / sum(answers),
        took_s=drive.took_s,
    )


# --- Fairness -------------------------------------------------------------------------------------------------------


def around(typical: Sizes, seed: int) -> Callable[[int], Sizes]:
    """Outputs exponential around the typical; the same for each place."""

    def sizes(place: int) -> Sizes:
        dice = Random(seed * 1_000_003 + place)  # noqa: S311  A replay, not a secret.
        return typical._replace(output=1 + int(dice.expovariate(1 / typical.output)))

    return sizes


class _Noting(StepEngine):
    """Notes when the last request with a prefix was answered."""

    last_s = 0.0

    async def answer(self, call: Call) -> Outcome:
        outcome = await super().answer(call)
        if b"prefix" in call.params:
            self.last_s = asyncio.get_running_loop().time()
        return outcome


class Beside(Struct, frozen=True, kw_only=True):
    """A small batch comes while a whale is worked on."""

    profile: Profile
    window: int
    whale: int  # Requests.
    at_s: float
    lasts_s: float  # Enough for the small one.
    typical: Sizes = Sizes(400, 30)
    small: int = 100
    seed: int = 1

    def batches(self) -> list[Submitted]:
        """Both."""
        large, little = around(Sizes(400, 30), self.seed), around(self.typical, self.seed + 1)
        return [
            Submitted(name="whale", workspace=A, requests=self.whale, sizes=large),
            Submitted(name="small", workspace=B, requests=self.small, sizes=little, at_s=self.at_s),
        ]

    def run(self, rule: Rule) -> Drive:
        """Until both have ended."""
        drive = Drive([Replica(self.profile, window=self.window)], self.batches(), rule=rule, seed=self.seed)
        drive.run()
        return drive

    def bound(self) -> float:
        """2 x the largest request x its share of what is in flight (docs/explanation/scheduling.md, goal 8)."""
        costs = [
            schedule.cost(Tokens(sizes.input, sizes.output))
            for item in self.batches()
            for sizes in map(item.sizes, range(item.requests))
        ]
        return 2 * max(costs) * self.window / 2

    def oracle_s(self) -> float:
        """What the small one takes if from its creation on half of all tokens are its own, as known before."""
        large, little = (item.sizes for item in self.batches())
        engine = _Noting(self.profile)
        small = (little(place)._replace(prefix=1, prefix_tokens=1) for place in range(self.small))

        def work() -> Iterator[Sizes]:
            ahead = 0.0  # Tokens that the whale got more.
            for place in count():
                yield large(place)
                if asyncio.get_running_loop().time() < self.at_s:
                    continue
                ahead += schedule.cost(Tokens(*large(place)[:2]))
                while ahead > 0 and (own := next(small, None)) is not None:
                    ahead -= schedule.cost(Tokens(*own[:2]))
                    yield own

        drive = stepdrive.Drive(engine, stepdrive.Policy(self.window), work())
        run(drive.run(self.at_s + self.lasts_s), VirtualClock())
        return engine.last_s - self.at_s


def took_s(drive: Drive, name: str) -> float:
    """From the creation to the end of this batch."""
    return next(item.took_s for item in drive.ended if item.submitted.name == name)


# --- Deadlines ------------------------------------------------------------------------------------------------------


def afternoon(*, whales: int, load: float, seed: int, hours: int = 2) -> list[Submitted]:
    """For an engine with eight slots that answers three requests a second: whales for all the time, small batches of
    twenty seconds of work, and every hour an urgent one that needs 35 % of twenty minutes."""
    dice, sizes = Random(seed), around(Sizes(400, 30), seed)  # noqa: S311  A replay, not a secret.
    end_s = 3_600.0 * hours
    small = [
        Submitted(
            name=f"small {number}",
            workspace=WorkspaceId(f"wrkspc_small{number % 10}"),
            requests=60,
            sizes=sizes,
            at_s=dice.uniform(0, end_s - 1_800),
            lasts_s=end_s,
        )
        for number in range(15 * hours)
    ]
    urgent = [
        Submitted(
            name=f"urgent {number}",
            workspace=WorkspaceId("wrkspc_urgent"),
            requests=1_260,
            sizes=sizes,
            at_s=1_800.0 + 3_600 * number,
            lasts_s=1_200,
        )
        for number in range(hours)
    ]
    rest = load * 3 * end_s - sum(item.requests for item in small + urgent)
    return [
        *small,
        *urgent,
        *(
            Submitted(
                name=f"whale {number}",
                workspace=WorkspaceId(f"wrkspc_whale{number}"),
                requests=round(rest / whales),
                sizes=sizes,
                lasts_s=end_s,
            )
            for number in range(whales)
        ),
    ]


def spent(batches: list[Submitted], rule: Rule, *, seed: int) -> Drive:
    """An afternoon of one engine with eight slots."""
    drive = Drive([Replica(SLOTS, window=8)], batches, rule=rule, seed=seed)
    drive.run()
    return drive
