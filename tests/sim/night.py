"""A client that lives through a bad night: it creates batches, polls, cancels, comes back after every power cut, and
believes nothing. What it checks at every step:

I1  what was acknowledged is there after a cut          I5  status only moves forward, over all lives
I2  the five counts always sum to N, one row a request  I6  everything ends once its time is over
I3  results never change a byte, however often asked    and: answers that were half a second old are never paid again
"""

import asyncio
import gzip
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from overnight import limits
from overnight.core.retry import Answered
from overnight.ids import BatchId
from overnight.store.objects import requests_key
from overnight.testing.engines import ScriptedEngine
from overnight.testing.simulation import Life, Machine
from overnight.testing.wireclient import BATCHES

_FORWARD = ["in_progress", "canceling", "ended"]
_LOST_S = 0.5  # Answers of the last checkpoint interval may be paid twice (`limits.CHECKPOINT_EVERY_MS`), with slack.
_ENDS_WITHIN_S = (limits.LEASE_TTL_MS + limits.LEASE_RENEW_MS) / 1000 + 10  # After `expires_at`, by any path.


class Plan(NamedTuple):
    """A batch to be made at `at_s`, whose requests say these texts (`testing.engines.by_words`)."""

    name: str
    texts: Sequence[str]
    at_s: float = 0.0
    cancel_at_s: float | None = None
    padding_bytes: int = 0  # In every request, so that few of them fill a segment.

    def requests(self) -> list[dict[str, Any]]:
        """The requests of the create body."""
        return [
            {
                "custom_id": f"r{index}",
                "params": {
                    "model": "any",
                    "max_tokens": 9,
                    "system": "x" * self.padding_bytes + f" {index}",
                    "messages": [{"role": "user", "content": text}],
                },
            }
            for index, text in enumerate(self.texts)
        ]


class Night:
    """`drive` is called once per life, until it returns."""

    def __init__(self, machine: Machine, plans: Sequence[Plan], *, patience_s: float, poll_s: float = 1.0) -> None:
        """After `patience_s` without an end, the clock jumps a day: what is left expires."""
        self.cuts: list[int] = []  # The power goes after this many moments of each life in turn.
        self.ids: dict[str, str] = {}
        self.kinds: dict[str, list[str]] = {}  # Of every request, by batch, once it has ended.
        self.lost_s = _LOST_S
        self._machine, self._plans = machine, plans
        self._patience_s, self._poll_s = patience_s, poll_s
        self._canceled = set[str]()
        self._steps: dict[str, int] = {}
        self._results: dict[str, bytes] = {}
        self._cuts_s: list[float] = []
        self._expired_at_s: float | None = None

    def survive(self, engine: ScriptedEngine) -> None:
        """Live until all batches have ended, then once more, and check what the engine was asked."""
        self._plan_cut()
        while not self._machine.live(engine, self.drive):
            self._cuts_s.append(self._machine.clock.now_s)
            self._plan_cut()
        assert self._machine.live(engine, self._tidy_morning), "no cut was planned for the morning after"
        self._check_nothing_is_paid_twice(engine)

    def _plan_cut(self) -> None:
        if self.cuts:
            self._machine.disk.cut_after(self.cuts.pop(0))

    async def drive(self, life: Life) -> None:
        """Do what is left to do."""
        await self._look_back(life)
        while len(self._results) < len(self._plans):
            now_s = asyncio.get_running_loop().time()
            for plan in self._plans:
                await self._advance(life, plan, now_s)
            if now_s > self._patience_s and self._expired_at_s is None:
                self._machine.clock.jump(limits.BATCH_LIFETIME_MS)
                self._expired_at_s = now_s
            assert self._expired_at_s is None or now_s < self._deadline_s(), "I6: something did not end in time"
            await asyncio.sleep(self._poll_s)
        assert await life.store.checkpoints.all() == [], "a sealed segment leaves no log"

    def _deadline_s(self) -> float:
        assert self._expired_at_s is not None
        return max([self._expired_at_s, *self._cuts_s]) + _ENDS_WITHIN_S

    async def _look_back(self, life: Life) -> None:
        for name, batch_id in self.ids.items():
            answer = await life.client.call("GET", f"{BATCHES}/{batch_id}")
            assert answer.status == 200, f"I1: {name} was acknowledged and is gone"
            self._check(name, answer.json)
            if name in self._results:
                assert await self._download(life, batch_id) == self._results[name], "I3: results changed"

    async def _tidy_morning(self, life: Life) -> None:
        await self._look_back(life)
        await asyncio.sleep(1)  # Upkeep's first pass.
        assert await life.store.checkpoints.all() == [], "logs that a cut brought back are removed"
        batch_ids = [BatchId(batch_id) for batch_id in self.ids.values()]
        named = {
            item.key for batch_id in batch_ids for item in await life.store.control.results(batch_id) if item.key
        }
        kept = {requests_key(batch_id) for batch_id in batch_ids}
        assert named <= set(await life.store.objects.keys()) <= named | kept, "objects that nobody names are removed"

    async def _advance(self, life: Life, plan: Plan, now_s: float) -> None:
        if plan.name not in self.ids:
            if now_s >= plan.at_s:
                answer = await life.client.create(plan.requests(), key=plan.name)
                assert answer.status == 200, answer.body
                self.ids[plan.name] = answer.json["id"]
                self._check(plan.name, answer.json)
            return
        batch_id = self.ids[plan.name]
        if plan.cancel_at_s is not None and now_s >= plan.cancel_at_s and plan.name not in self._canceled:
            answer = await life.client.call("POST", f"{BATCHES}/{batch_id}/cancel")
            self._canceled.add(plan.name)
            self._check(plan.name, answer.json)
            assert answer.json["processing_status"] != "in_progress"
        batch = (await life.client.call("GET", f"{BATCHES}/{batch_id}")).json
        self._check(plan.name, batch)
        if batch["processing_status"] == "ended" and plan.name not in self._results:
            self._results[plan.name] = await self._download(life, batch_id)
            self._check_rows(plan, self._results[plan.name], batch)

    def _check(self, name: str, batch: dict[str, Any]) -> None:
        counts, requests = batch["request_counts"], len(next(plan.texts for plan in self._plans if plan.name == name))
        assert sum(counts.values()) == requests, f"I2: {name}: {counts}"
        assert min(counts.values()) >= 0, f"I2: {name}: {counts}"
        step = _FORWARD.index(batch["processing_status"])
        assert step >= self._steps.get(name, 0), f"I5: {name} went back to {batch['processing_status']}"
        assert name not in self._canceled or step > 0, f"I1: the cancel of {name} was acknowledged and is lost"
        assert (step == 2) == (batch["ended_at"] is not None) == (batch["results_url"] is not None)
        self._steps[name] = step

    async def _download(self, life: Life, batch_id: str) -> bytes:
        plain = await life.client.call("GET", f"{BATCHES}/{batch_id}/results")
        packed = await life.client.call("GET", f"{BATCHES}/{batch_id}/results", headers={"accept-encoding": "gzip"})
        assert (plain.status, packed.status) == (200, 200)
        assert gzip.decompress(packed.body) == plain.body
        assert len(plain.body) == int(plain.headers["content-length"])
        return plain.body

    def _check_rows(self, plan: Plan, results: bytes, batch: dict[str, Any]) -> None:
        rows = {row["custom_id"]: row["result"] for row in map(json.loads, results.splitlines())}
        assert len(results.splitlines()) == len(rows) == len(plan.texts), f"I2: {plan.name} has {len(rows)} rows"
        self.kinds[plan.name] = [rows[f"r{index}"]["type"] for index in range(len(plan.texts))]
        for kind in ("succeeded", "errored", "canceled", "expired"):
            assert batch["request_counts"][kind] == self.kinds[plan.name].count(kind), "I2: counts are of the rows"
        for index, text in enumerate(plan.texts):
            row = rows[f"r{index}"]
            if row["type"] == "succeeded":
                assert row["result" if "result" in row else "message"]["content"][0]["text"].startswith(text)
            assert row["type"] in self._allowed(plan, text), f"{plan.name}: {text!r} became {row['type']}"

    def _allowed(self, plan: Plan, text: str) -> set[str]:
        words = text.split()
        allowed = set() if "hung" in words else {"errored" if "refused" in words else "succeeded"}
        if plan.cancel_at_s is not None:
            allowed.add("canceled")
        if self._expired_at_s is not None:
            allowed.add("expired")
        return allowed

    def _check_nothing_is_paid_twice(self, engine: ScriptedEngine) -> None:
        answered_s = {}
        for asked in engine.log:
            if isinstance(asked.outcome, Answered):
                answered_s.setdefault(asked.text, asked.ended_s)
        for text, began_s in engine.begun:
            if began_s > answered_s.get(text, began_s):
                between_s = [cut_s for cut_s in self._cuts_s if answered_s[text] <= cut_s <= began_s]
                assert between_s, f"{text!r} was answered, and asked again although no power went"
                age_s = between_s[0] - answered_s[text]
                assert age_s <= self.lost_s, f"{text!r} was answered {age_s:.3f} s before a cut, and asked again"
