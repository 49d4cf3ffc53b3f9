"""A whole server whose engine is another server's batch endpoint: killed at each step, it pays for nothing twice.

The other one is ours too, with an engine that counts every request; so what the hosted API does not promise, that an
`Idempotency-Key` is honoured, is used here, and `test_handoff_crashes` is the same without it.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from crash_engine import TimedUpstream, running_engine
from crash_workload import Ledger, Session

from overnight.testing import crashpoint
from overnight.testing.processes import ServerProcess, running_server

COUNT, SEGMENTS = 1_200, 2
QUICK = {"HANDOFF_GATHER_MS": 50, "HANDOFF_POLL_MS": 50, "HANDOFF_SETTLE_MS": 300, "RETRY_DELAY_MS": 100}
MARKS = (
    "handoff.intended",
    "handoff.posted",
    "handoff.submitted",
    "handoff.ended",
    "handoff.collected",
    "seal.committed",
)


@contextmanager
def upstream(tmp_path: Path) -> Iterator[tuple[ServerProcess, TimedUpstream]]:
    with running_engine() as engine, running_server(tmp_path / "upstream", "--engine", engine.url) as server:
        yield server, engine


def handing_over(data: Path, url: str, *, crash_at: str = "") -> ServerProcess:
    return ServerProcess(
        data,
        "--engine",
        f"claude-batch+{url}",
        module="overnight.testing.crashpoint",
        environment=crashpoint.settings(crash_at=crash_at, changed_limits=QUICK),
    )


@contextmanager
def session_of(server: ServerProcess) -> Iterator[Session]:
    session = Session(server.url, Ledger())
    with closing(session.client):
        yield session


@contextmanager
def living(server: ServerProcess) -> Iterator[Session]:
    """A session with a server that is killed at the end of the block."""
    try:
        with session_of(server) as session:
            yield session
    finally:
        server.kill()


def check_all_once(session: Session, batch_id: str, engine: TimedUpstream, *, count: int) -> None:
    ended = session.until_ended(batch_id, requests=count)
    assert ended["request_counts"]["succeeded"] == count
    rows = session.client.results(batch_id)
    assert {row["message"]["usage"]["service_tier"] for row in rows.values()} == {"batch"}
    assert len(engine.asked_at_s) == count
    assert {len(times) for times in engine.asked_at_s.values()} == {1}, "each was asked once"


def test_a_batch_goes_through_another_server_in_runs_not_in_requests(tmp_path: Path) -> None:
    with upstream(tmp_path) as (above, engine):
        with living(handing_over(tmp_path / "data", above.url)) as session:
            check_all_once(session, session.create("all", COUNT), engine, count=COUNT)
        with session_of(above) as there:
            assert len(there.client.ids()) <= SEGMENTS, "one, unless the second segment came late"


@pytest.mark.parametrize("mark", MARKS)
def test_a_server_that_dies_at_any_step_goes_on_where_it_was(mark: str, tmp_path: Path) -> None:
    with upstream(tmp_path) as (above, engine):
        dying = handing_over(tmp_path / "data", above.url, crash_at=f"{mark}:1")
        with session_of(dying) as session:
            batch_id = session.create("all", COUNT)
        assert dying.wait() == -9
        with living(handing_over(tmp_path / "data", above.url)) as session:
            check_all_once(session, batch_id, engine, count=COUNT)


def test_a_cancel_is_carried_through_and_what_came_still_counts(tmp_path: Path) -> None:
    with (
        running_engine(delay_s=0.2) as engine,
        running_server(tmp_path / "upstream", "--engine", engine.url) as above,
        living(handing_over(tmp_path / "data", above.url)) as session,
    ):
        batch_id = session.create("all", COUNT)
        engine.wait_asked_in_total(50)
        session.cancel(batch_id)
        ended = session.until_ended(batch_id, requests=COUNT)["request_counts"]
        assert (ended["processing"], ended["errored"], ended["expired"]) == (0, 0, 0)
        assert ended["canceled"] > 0
        with session_of(above) as there:
            upstreams = [there.client.retrieve(upstream_id) for upstream_id in there.client.ids()]
            assert 1 <= len(upstreams) <= SEGMENTS
            assert all(upstream["cancel_initiated_at"] for upstream in upstreams)


def test_requests_of_people_go_to_the_real_time_endpoint(tmp_path: Path) -> None:
    with upstream(tmp_path) as (above, engine), living(handing_over(tmp_path / "data", above.url)) as session:
        body = {"model": "echo", "max_tokens": 9, "messages": [{"role": "user", "content": "now"}]}
        assert session.client.call("POST", "/v1/messages", body).status == 200
        assert engine.calls["now"] == 1
        with session_of(above) as there:
            assert there.client.ids() == []


def test_an_upstream_that_is_away_is_told_of_and_waited_for(tmp_path: Path) -> None:
    with running_engine() as engine:
        with running_server(tmp_path / "upstream", "--engine", engine.url) as above:
            url = above.url
        with living(handing_over(tmp_path / "data", url)) as session:
            batch_id = session.create("all", 20)
            while not (trouble := session.client.call("GET", "/health").json["trouble"]):
                pass
            assert list(trouble) == [f"engine claude-batch {url}"]
            back = ServerProcess(
                tmp_path / "upstream", "--engine", engine.url, "--listen", url.removeprefix("http://")
            )
            try:
                check_all_once(session, batch_id, engine, count=20)
            finally:
                back.stop()
