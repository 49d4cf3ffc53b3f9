"""The page of the engines: what each does and what holds it; of the backlog only the own part."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from desk import OURS, THEIRS, Desk, keys, on_desk

from overnight.core.retry import Busy
from overnight.server.config import Settings
from overnight.testing.engines import Fate, ScriptedEngine, by_words

TWO_KEYS = Settings(keys=keys(ours=OURS, theirs=THEIRS))


@asynccontextmanager
async def _working(desk: Desk, engine: ScriptedEngine, *, inside: int) -> AsyncIterator[None]:
    """The worker runs, with that many requests inside the engine."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(desk.here.worker.run())
        while engine.inside.total() < inside:  # noqa: ASYNC110  The engine tells nobody.
            await asyncio.sleep(0)
        yield
        working.cancel()


def test_an_engine_shows_what_is_inside_and_how_much_may_be(tmp_path: Path) -> None:
    engine = ScriptedEngine(by_words, in_flight_max=2)

    async def body(desk: Desk) -> None:
        await desk.batch(["hung 1", "hung 2", "hung 3"])
        async with _working(desk, engine, inside=2):
            page = await desk.browser().get("/console/engines")
        facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
        assert page.texts("h3") == ["scripted"]
        assert facts["In flight"] == "2 of 2"
        assert facts["Hours"] == "always open"
        assert page.texts("span", class_="status good") == ["● full"]
        assert page.attributes("svg")[0]["aria-label"] == "2 of 2 places taken"
        assert [rect["width"] for rect in page.attributes("rect")] == ["1000", "1000.0"]
        assert page.texts("tr")[1:] == ["scripted1"]

    on_desk(body, tmp_path, None, engine)


def test_an_engine_that_is_away_says_since_when_and_what_it_said(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda text, call: Fate(Busy(reason="connection <refused>", is_away=True)))

    async def body(desk: Desk) -> None:
        await desk.batch()
        async with asyncio.TaskGroup() as group:
            working = group.create_task(desk.here.worker.run())
            while not desk.here.fleet.pools[0].is_away:  # noqa: ASYNC110  The engine tells nobody.
                await asyncio.sleep(0)
            page = await desk.browser().get("/console/engines")
            working.cancel()
        assert page.texts("span", class_="status bad") == ["▲ away"]
        assert page.texts("p", class_="why")[0] == "It is away since 20:26 UTC: connection <refused>."
        assert dict(zip(page.texts("dt"), page.texts("dd"), strict=True))["Away since"] == "2026-05-28 20:26 UTC"

    on_desk(body, tmp_path, None, engine)


def test_a_workspace_sees_the_engines_and_only_its_own_backlog(tmp_path: Path) -> None:
    engine = ScriptedEngine(by_words, in_flight_max=1)

    async def body(desk: Desk) -> None:
        await desk.batch(["hung 1", "hung 2"], workspace=THEIRS, model="their-secret-model")
        async with _working(desk, engine, inside=1):
            ours = await (await desk.logged_in("ours")).get("/console/engines")
            theirs = await (await desk.logged_in("theirs")).get("/console/engines")
        assert ours.texts("h3") == theirs.texts("h3") == ["scripted"]
        assert "their-secret-model" not in ours.source
        assert "Nothing of your workspace waits in memory." in ours.source
        assert "their-secret-model" in theirs.source
        assert "requests of all batches" not in theirs.source

    on_desk(body, tmp_path, TWO_KEYS, engine)
