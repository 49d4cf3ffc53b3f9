"""runner.twins: what is the same to the byte is asked once, and every request has a row of its own."""

import json

import msgspec
import pytest
from runs import kinds, rows, run_of

from overnight import limits
from overnight.runner.segmentrun import SegmentRun, Work
from overnight.runner.twins import Twins
from overnight.wire import params, result
from overnight.wire.create import Request


class Asking:
    """Requests go through `twins`; what has to be asked is collected."""

    def __init__(self) -> None:
        self.asked: list[Work] = []
        self.twins = Twins(self.queue)

    def queue(self, works: list[Work]) -> None:
        self.asked += self.twins.unasked(works)

    def begin(self, *texts: str, temperature: object = 0, run: SegmentRun | None = None) -> SegmentRun:
        """A segment with these texts as `r0`, `r1`, …"""
        run = run or run_of(len(texts))
        works = run.start(
            Request(f"r{index}", msgspec.Raw(_body(text, temperature))) for index, text in enumerate(texts)
        )
        run.is_started = True
        for work in works:
            work.know(params.read_batched(work.params))
        self.queue(works)
        return run

    def ids(self) -> list[str]:
        return [work.custom_id for work in self.asked]


def _body(text: str, temperature: object) -> bytes:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
    return json.dumps(body if temperature is None else {**body, "temperature": temperature}).encode()


def answer(work: Work, text: str = "yes") -> None:
    line = result.succeeded(work.custom_id, json.dumps({"said": text}).encode())
    work.run.record(work, "succeeded", line)


def test_equal_requests_are_asked_once_and_each_has_the_answer_under_its_own_id() -> None:
    asking = Asking()
    run = asking.begin("a", "b", "a", "a")
    assert asking.ids() == ["r0", "r1"]
    answer(asking.asked[0], "for a")
    answer(asking.asked[1], "for b")
    assert {custom_id: row["message"]["said"] for custom_id, row in rows(run).items()} == {
        "r0": "for a",
        "r1": "for b",
        "r2": "for a",
        "r3": "for a",
    }
    assert run.is_done


@pytest.mark.parametrize("temperature", [pytest.param(None, id="not given, so 1"), 0.1, 1, "0"])
def test_only_temperature_0_is_the_same_answer_twice(temperature: object) -> None:
    asking = Asking()
    asking.begin("a", "a", temperature=temperature)
    assert asking.ids() == ["r0", "r1"]


def test_a_refusal_is_shared_too() -> None:
    asking = Asking()
    run = asking.begin("a", "a")
    asking.asked[0].run.record(asking.asked[0], "errored", result.errored("r0", b"{}"))
    assert kinds(run) == {"r0": "errored", "r1": "errored"}


def test_the_next_segment_gets_the_answer_that_is_still_known() -> None:
    asking = Asking()
    asking.begin("a")
    answer(asking.asked[0])
    later = asking.begin("a", "b")
    assert asking.ids() == ["r0", "r1"]
    assert kinds(later) == {"r0": "succeeded"}


def test_answers_are_forgotten_beyond_the_limit_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TWINS_BYTES_MAX", 150)
    asking = Asking()
    asking.begin("a", "b")
    for work in asking.asked:
        answer(work, "x" * 40)
    asking.begin("b", "a")
    assert asking.ids() == ["r0", "r1", "r1"], "the newest is kept"


def test_a_leader_that_is_canceled_leaves_its_place_to_the_next() -> None:
    asking = Asking()
    first = asking.begin("a")
    second = asking.begin("a", "a")
    assert asking.ids() == ["r0"]
    first.close_all("canceled")
    assert [work.run for work in asking.asked] == [first, second]
    answer(asking.asked[1])
    assert (kinds(first), kinds(second)) == ({"r0": "canceled"}, {"r0": "succeeded", "r1": "succeeded"})


def test_a_leader_whose_lease_is_lost_leaves_its_place_to_the_next() -> None:
    asking = Asking()
    first = asking.begin("a")
    second = asking.begin("a")
    first.abandon()
    assert [work.run for work in asking.asked] == [first, second]


def test_a_canceled_follower_gets_no_second_row() -> None:
    asking = Asking()
    asking.begin("a")
    second = asking.begin("a")
    second.close_all("canceled")
    answer(asking.asked[0])
    assert kinds(second) == {"r0": "canceled"}


def test_workspaces_share_nothing() -> None:
    asking = Asking()
    asking.begin("a")
    asking.begin("a", run=run_of(1, workspace="wrkspc_other"))
    assert len(asking.asked) == 2
