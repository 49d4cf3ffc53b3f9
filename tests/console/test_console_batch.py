"""The page of one batch: what became of it, what it cost, and what can be done to it."""

from pathlib import Path

import pytest
from desk import T0, Desk, on_desk
from visitor import Page

from overnight import limits
from overnight.core.batch import Tally
from overnight.core.usage import Bill, Cause, Sums, Used
from overnight.core.workspace import Rules
from overnight.ids import DEFAULT_WORKSPACE, BatchId
from overnight.store.control import SealedResults, Wanted

WS = DEFAULT_WORKSPACE


async def _sealed(desk: Desk, tally: Tally, bill: Bill, *, at_ms: int = T0) -> BatchId:
    """A batch of one segment that has ended so."""
    batch_id = await desk.batch(["x"] * tally.total)
    wanted = Wanted(requests=10**6, segments=100, held=frozenset({WS}))
    (leased,) = await desk.store.control.lease("w", wanted=wanted, now_ms=T0)
    results = SealedResults(length=20, raw_bytes=0, crc=0, inline=b"")
    await desk.store.control.seal(leased.lease, tally, results, now_ms=at_ms, bill=bill)
    return batch_id


def _tiles(page: Page) -> dict[str, str]:
    labels, values = page.texts("dt"), page.texts("dd")
    return dict(zip(labels, values, strict=True))


def _rows(page: Page) -> list[str]:
    """The cells of each row of the tables, but not of their heads."""
    rows: list[list[str]] = []
    for tag, found, texts in page.elements:
        if tag == "tr":
            rows.append([])
        elif tag == "td" or found.get("scope") == "row":
            rows[-1].append("".join(texts).strip())
    return [" ".join(row) for row in rows if row]


def test_it_says_what_failed_and_why(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        causes = (
            Cause(type="rate_limit_error", message="too fast", requests=1, example="r7"),
            Cause(type="api_error", message="it broke", requests=4, example="r/&#3"),
        )
        tally = Tally(succeeded=5, errored=5, canceled=2, expired=1)
        batch_id = await _sealed(desk, tally, Bill(causes=causes))
        page = await desk.browser().get(f"/console/batches/{batch_id}")
        tiles = _tiles(page)
        assert [tiles[name] for name in ("Processing", "Succeeded", "Errored", "Canceled", "Expired")] == list(
            "05521"
        )
        assert _rows(page)[:2] == ["4 api_error it broke r/&#3", "1 rate_limit_error too fast r7"]
        assert page.link("r/&#3") == f"/console/batches/{batch_id}/results/r/%26%233"
        assert page.attributes("svg")[0]["aria-label"] == "13 of 13 done"
        widths = [float(rect["width"]) for rect in page.attributes("rect")]
        assert widths == [1000, 384.62, 384.62, 153.85, 76.92]

    on_desk(body, tmp_path)


def test_it_says_what_it_cost_and_what_was_saved(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        sums = Sums(requests=2, input_tokens=1_000, cache_read_tokens=30, output_tokens=500, usd_nano=400_000_000)
        dear = Used(
            model="m", engine="e", service_tier="batch", sums=Sums(**{**_fields(sums), "realtime_usd_nano": 10**9})
        )
        free = Used(model="n", engine="e", service_tier="batch", sums=Sums(requests=1, output_tokens=5, unpriced=1))
        batch_id = await _sealed(desk, Tally(succeeded=3), Bill(used=(dear, free)))
        page = await desk.browser().get(f"/console/batches/{batch_id}")
        tiles = _tiles(page)
        names = ("Cost as a batch", "In real time", "Saved", "Input tokens", "Output tokens")
        assert [tiles[name] for name in names] == ["$0.40", "$1.00", "$0.6060 %", "1,030", "505"]
        assert _rows(page)[-2:] == ["m e 2 1,000 30 0 500 $0.40 $1.00", "n e 1 0 0 0 5 no price no price"]
        assert "Nobody knows a price for 1 of these requests" in page.source

    on_desk(body, tmp_path)


def _fields(sums: Sums) -> dict[str, int]:
    return {name: getattr(sums, name) for name in sums.__struct_fields__}


def _timeline(page: Page) -> list[tuple[str, str]]:
    """Labels and instants."""
    labels = [text for text in page.texts("span") if text in _LABELS]
    return list(zip(labels, [time["datetime"] for time in page.attributes("time")], strict=True))


_LABELS = ("Created", "Cancel asked", "Ended", "Expires", "Results kept until", "Archived, results removed")


def test_the_timeline_is_what_happened_and_what_will(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        running = await desk.batch()
        browser = desk.browser()
        assert _timeline(await browser.get(f"/console/batches/{running}")) == [
            ("Created", "2026-05-28T20:26:40Z"),
            ("Expires", "2026-05-29T20:26:40Z"),
            ("Results kept until", "2026-06-26T20:26:40Z"),
        ]
        await desk.store.control.cancel(WS, running, now_ms=T0 + 1_000)
        page = await browser.get(f"/console/batches/{running}")
        assert _timeline(page)[1] == ("Cancel asked", "2026-05-28T20:26:41Z")
        await desk.store.access.set_rules(WS, Rules(results_days=1))
        await desk.here.doors.refresh(desk.store.access)
        page = await browser.get(f"/console/batches/{running}")
        assert _timeline(page)[-1] == ("Results kept until", "2026-05-29T20:26:40Z")

    on_desk(body, tmp_path)


def test_an_archived_batch_offers_no_results(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await _sealed(desk, Tally(succeeded=1, errored=1), Bill(), at_ms=T0 + 60_000)
        browser = desk.browser()
        page = await browser.get(f"/console/batches/{batch_id}")
        assert [page.has_link(text) for text in ("Results", "Download JSONL", "Ask again what failed", "Delete")] == [
            True
        ] * 4
        assert _timeline(page)[1] == ("Ended", "2026-05-28T20:27:40Z")
        desk.clock.at_ms += limits.RESULTS_LIFETIME_MS
        assert await desk.store.control.archive(now_ms=desk.clock.at_ms, batches_max=10) == [batch_id]
        page = await browser.get(f"/console/batches/{batch_id}")
        assert [page.has_link(text) for text in ("Results", "Download JSONL", "Ask again what failed", "Delete")] == [
            False
        ] * 3 + [True]
        assert _timeline(page)[-1][0] == "Archived, results removed"

    on_desk(body, tmp_path)


def test_a_batch_that_waits_says_why(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch()
        page = await desk.browser().get(f"/console/batches/{batch_id}")
        assert page.texts("p", class_="why") == ["Why it waits: it is about to begin"]

    on_desk(body, tmp_path)


def test_what_a_program_would_write_is_there(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch()
        curl, sdk = (await desk.browser().get(f"/console/batches/{batch_id}")).texts("pre")
        assert f"curl http://127.0.0.1:8642/v1/messages/batches/{batch_id} " in curl
        assert 'Anthropic(base_url="http://127.0.0.1:8642")' in sdk
        compile(sdk, "the snippet", "exec")

    on_desk(body, tmp_path)


# --- Actions --------------------------------------------------------------------------------------------------------


def test_a_cancel_is_asked_for_and_then_done(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch(["a", "b"])
        browser, path = desk.browser(), f"/console/batches/{batch_id}/cancel"
        asked = await browser.get((await browser.get(f"/console/batches/{batch_id}")).link("Cancel"))
        assert "2 of its 2 requests have no result yet." in asked.source
        token = asked.attributes("input", name="token")[0]["value"]
        for _ in range(2):  # A second click is no error.
            answer = await browser.send("POST", path, {"token": token})
            assert (answer.status, answer.headers["location"]) == (303, f"/console/batches/{batch_id}")
        page = await browser.get(f"/console/batches/{batch_id}")
        assert not page.has_link("Cancel")
        assert "canceling" in page.texts("span", class_="status warn")[0]
        assert (await browser.send("GET", path)).headers["location"] == f"/console/batches/{batch_id}"

    on_desk(body, tmp_path)


@pytest.mark.parametrize("fields", [{}, {"confirm": ""}, {"confirm": "no"}])
def test_a_delete_without_the_tick_deletes_nothing(fields: dict[str, str], tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await _sealed(desk, Tally(succeeded=1), Bill())
        browser, path = desk.browser(), f"/console/batches/{batch_id}/delete"
        answer = await browser.send("POST", path, {"token": await browser.token(path), **fields})
        assert answer.status == 400
        assert await desk.store.control.batch(WS, batch_id) is not None

    on_desk(body, tmp_path)


def test_a_delete_with_the_tick_deletes(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await _sealed(desk, Tally(succeeded=1), Bill())
        browser, path = desk.browser(), f"/console/batches/{batch_id}/delete"
        answer = await browser.send("POST", path, {"token": await browser.token(path), "confirm": "yes"})
        assert (answer.status, answer.headers["location"]) == (303, "/console/batches")
        assert await desk.store.control.batch(WS, batch_id) is None
        assert (await browser.get(f"/console/batches/{batch_id}")).status == 404

    on_desk(body, tmp_path)


def test_a_batch_that_runs_cannot_be_deleted(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch()
        browser, path = desk.browser(), f"/console/batches/{batch_id}/delete"
        assert (await browser.send("GET", path)).headers["location"] == f"/console/batches/{batch_id}"
        token = await browser.token(f"/console/batches/{batch_id}/cancel")
        answer = await browser.send("POST", path, {"token": token, "confirm": "yes"})
        assert answer.status == 400
        assert b"In progress batches cannot be deleted." in answer.body
        assert await desk.store.control.batch(WS, batch_id) is not None

    on_desk(body, tmp_path)
