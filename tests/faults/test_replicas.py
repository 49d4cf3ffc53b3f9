"""Two and three replicas: one is dead, one is slow, one is killed by a request, one never answers."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fault_runs import Group, back_after_s, by_id, check_answers, created, rows, serving, speed_before, texts

from overnight import limits
from overnight.testing import crashpoint
from overnight.testing.faultyengine import POISON, SLOWNESS, FaultyEngine, running_engines
from overnight.testing.observed import ObservedServer
from overnight.testing.processes import ServerProcess
from overnight.testing.wireclient import WireClient

MODEL = "m"
DELAY_S = 0.2
IN_FLIGHT = 16


@contextmanager
def serving_replicas(count: int, folder: Path) -> Iterator[tuple[list[FaultyEngine], ObservedServer]]:
    with (
        running_engines(count, delay_s=DELAY_S) as engines,
        serving(folder, Group(MODEL, engines, IN_FLIGHT)) as server,
    ):
        yield engines, server


def times_asked(engines: list[FaultyEngine], text: str) -> int:
    return sum(engine.calls[text] for engine in engines)


def answered_between(engine: FaultyEngine, from_s: float, to_s: float) -> int:
    return sum(from_s <= time_s < to_s for time_s in engine.answered_s)


def test_the_others_do_the_work_of_a_dead_replica_until_it_is_back(tmp_path: Path) -> None:
    asked = texts(MODEL, 1800)
    with serving_replicas(3, tmp_path) as (engines, server):
        batch_id = created(server, MODEL, asked)
        dead, *others = engines
        dead.wait_answered(160)
        dead.suffer("refused", for_s=3.0)
        check_answers(rows(server, batch_id, len(asked)), by_id(asked))
        ((_, began_s, ended_s),) = dead.faults
        before = speed_before(others, began_s) * (ended_s - began_s)
        during = sum(answered_between(engine, began_s, ended_s) for engine in others)
        assert during >= 0.8 * before, "the others go on as fast as they did"
        assert answered_between(dead, began_s + DELAY_S, ended_s) == 0
        back_s = back_after_s([dead], ended_s, per_s=speed_before([dead], began_s))
        assert back_s < 60
        extra = {text: n for text in asked if (n := times_asked(engines, text)) != 1}
        assert len(extra) <= IN_FLIGHT, "only what was inside is asked again"
        assert set(extra.values()) <= {2}


def test_a_slow_replica_gets_no_more_than_it_can_do(tmp_path: Path) -> None:
    asked = texts(MODEL, 1200)
    with serving_replicas(2, tmp_path) as (engines, server):
        slow, fast = engines
        slow.suffer("slow", for_s=300.0)
        batch_id = created(server, MODEL, asked)
        check_answers(rows(server, batch_id, len(asked)), by_id(asked))
        per_s = IN_FLIGHT / DELAY_S * (1 + 1 / SLOWNESS)
        answered_s = sorted(slow.answered_s + fast.answered_s)
        took_s = answered_s[-1] - answered_s[0] + DELAY_S
        assert took_s <= 1.3 * len(asked) / per_s
        assert {times_asked(engines, text) for text in asked} == {1}


def test_a_request_that_kills_its_engine_is_found_out_and_the_others_are_answered(tmp_path: Path) -> None:
    """Twice lost among others, once alone, or twice if only suspects were left: then it is errored, and only it."""
    asked = texts(MODEL, 600)
    asked[100] = f"{POISON} {asked[100]}"
    with serving_replicas(2, tmp_path) as (engines, server):
        found = rows(server, created(server, MODEL, asked), len(asked))
    error = found.pop("r100")
    assert (error["type"], error["error"]["error"]["type"]) == ("errored", "api_error")
    assert {row["type"] for row in found.values()} == {"succeeded"}
    deaths = sum(engine.deaths for engine in engines)
    assert limits.DEATHS_MAX + 1 <= times_asked(engines, asked[100]) == deaths <= limits.DEATHS_MAX + 2
    assert max(times_asked(engines, text) for text in asked) <= deaths + 1


def test_what_an_engine_never_answers_is_asked_again_when_its_time_is_over(tmp_path: Path) -> None:
    """With a timeout of two seconds instead of ten minutes."""
    asked, environment = texts(MODEL, 400), crashpoint.settings(changed_limits={"ENGINE_TIMEOUT_S": 2.0})
    with running_engines(1, delay_s=DELAY_S) as (engine,):
        flags, module = ("--engine", engine.url), "overnight.testing.crashpoint"
        server = ServerProcess(tmp_path / "data", *flags, module=module, environment=environment)
        try:
            with closing(WireClient(server.url)) as client:
                batch_id = created(server, MODEL, asked)
                engine.wait_answered(100)
                engine.suffer("silent", for_s=1.0)
                engine.wait_answered(len(asked))
                while client.retrieve(batch_id)["processing_status"] != "ended":
                    pass
                check_answers(client.results(batch_id), by_id(asked))
        finally:
            server.kill()
    assert max(engine.calls.values()) == 2
