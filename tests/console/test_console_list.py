"""The list of batches: filters, pages, progress, and what it costs with very many of them."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import chain
from pathlib import Path
from urllib.parse import urlencode

import pytest
from desk import OURS, T0, THEIRS, Browser, Desk, desk, keys, on_desk

from overnight import ids, limits
from overnight.core.lease import SegmentRef
from overnight.ids import BatchId
from overnight.server.config import Settings
from overnight.server.console import shown
from overnight.store import browsing
from overnight.store.control import ID_PREFIX_MIN, Page, Sought
from overnight.store.sqlite import connect

MANY = 100_000
DAY_MS = limits.DAY_MS
STEPS_MAX = 40_000  # Of SQLite's machine for one page: 51 rows take 2,000, all rows over a million.


def _ids(page: object) -> list[str]:
    return [text for text in page.texts("code") if text.startswith("msgbatch_")]  # type: ignore[attr-defined]


async def _walk(browser: Browser, query: str, *, link: str) -> list[list[str]]:
    """The ids of every page from one on."""
    pages = []
    while True:
        page = await browser.get(f"/console/batches{query}")
        pages.append(_ids(page))
        if not page.has_link(link):
            return pages
        query = "?" + page.link(link).partition("?")[2]


def test_an_empty_list_says_how_to_make_a_batch(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        page = await desk.browser().get("/console/batches")
        assert "curl http://127.0.0.1:8642/v1/messages/batches" in page.texts("pre")[0]
        filtered = await desk.browser().get("/console/batches?status=ended")
        assert (filtered.texts("pre"), filtered.has_link("Show all batches")) == ([], True)

    on_desk(body, tmp_path)


def test_pages_show_every_batch_once_newest_first_in_both_directions(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        made = [await desk.batch() for _ in range(2 * limits.CONSOLE_BATCHES + 1)]
        down = await _walk(desk.browser(), "", link="Older")
        assert [len(page) for page in down] == [limits.CONSOLE_BATCHES, limits.CONSOLE_BATCHES, 1]
        assert list(chain(*down)) == made[::-1]
        up = await _walk(desk.browser(), f"?before={made[0]}", link="Newer")
        assert list(chain(*up[::-1])) == made[:0:-1]

    on_desk(body, tmp_path)


@pytest.mark.parametrize("cursor", ["after", "before"])
def test_a_cursor_whose_batch_is_gone_leads_to_the_newest_page(cursor: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch()
        page = await desk.browser().get(f"/console/batches?{cursor}=msgbatch_01gone")
        assert (page.status, _ids(page)) == (200, [batch_id])

    on_desk(body, tmp_path)


def test_filters_find_by_status_id_and_day(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        old = await desk.batch()
        desk.clock.at_ms += 2 * DAY_MS
        canceling, new = await desk.batch(), await desk.batch()
        await desk.store.control.cancel(ids.DEFAULT_WORKSPACE, canceling, now_ms=desk.clock.at_ms)
        browser = desk.browser()
        cases = [
            ({"status": "in_progress"}, [new, old]),
            ({"status": "canceling"}, [canceling]),
            ({"status": "ended"}, []),
            ({"id": old}, [old]),
            ({"id": f" {old} "}, [old]),
            ({"id": new[:ID_PREFIX_MIN]}, [new, canceling]),
            ({"id": new[:ID_PREFIX_MIN], "status": "canceling"}, [canceling]),
            ({"id": "msgbatch_01%_____"}, []),
            ({"from": "2026-05-28"}, [new, canceling, old]),
            ({"from": "2026-05-29"}, [new, canceling]),
            ({"to": "2026-05-28"}, [old]),
            ({"to": "2026-05-27"}, []),
            ({"from": "2026-05-28", "to": "2026-05-30", "status": "in_progress"}, [new, old]),
            ({"from": "2026-05-31"}, []),
        ]
        for query, found in cases:
            page = await browser.get(f"/console/batches?{urlencode(query)}")
            assert (page.status, _ids(page)) == (200, found), query

    on_desk(body, tmp_path)


@pytest.mark.parametrize(
    "query",
    [
        "status=gone",
        f"id={'m' * (ID_PREFIX_MIN - 1)}",
        "from=yesterday",
        "to=2026-13-01",
        "from=0001-01-01",
        "to=9999-12-31",
    ],
)
def test_a_filter_that_cannot_be_read_is_said_above_the_whole_list(query: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch()
        page = await desk.browser().get(f"/console/batches?{query}")
        assert (page.status, _ids(page)) == (400, [batch_id])
        assert page.texts("p", role="alert")[0].endswith("This list is not filtered.")

    on_desk(body, tmp_path)


def test_links_to_other_pages_keep_the_filters(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        made = [await desk.batch() for _ in range(limits.CONSOLE_BATCHES + 1)]
        await desk.store.control.cancel(ids.DEFAULT_WORKSPACE, made[0], now_ms=T0)
        await desk.batch()
        walked = await _walk(desk.browser(), "?status=in_progress", link="Older")
        assert [len(page) for page in walked] == [limits.CONSOLE_BATCHES, 1]
        assert made[0] not in chain(*walked)

    on_desk(body, tmp_path)


def test_what_runs_is_counted_live_and_what_waits_says_why(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        batch_id = await desk.batch(["a", "b", "c", "d"])
        counter = desk.here.tallies.counter(SegmentRef(batch_id, 0))
        counter.update(succeeded=2, errored=1)
        page = await desk.browser().get("/console/batches")
        assert page.texts("td", class_="number")[:2] == ["4", "2"]
        assert page.texts("td", class_="number bad") == ["1"]
        assert page.attributes("svg")[0]["aria-label"] == "3 of 4 done"
        assert page.texts("div", class_="why") == ["it is about to begin"]

    on_desk(body, tmp_path, Settings(request_counts="at_end"))


# --- Very many ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 100,000 batches of two workspaces, one a minute; every tenth is in progress."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "data").mkdir()
    with closing(connect(folder / "data" / "control.sqlite3")) as sql:
        sql.execute("BEGIN")
        sql.executemany(
            "INSERT INTO batches (id, workspace, api_version, betas, status, requests, segments_open, created_at_ms, "
            "expires_at_ms, ended_at_ms) VALUES (?, ?, '', '', ?, 1, ?, ?, ?, ?)",
            (_row(number) for number in range(MANY)),
        )
        sql.execute("COMMIT")
    return folder


def _at_ms(number: int) -> int:
    return T0 - (MANY - number) * 60_000


def _id(number: int) -> BatchId:
    return ids.batch_id(_at_ms(number), number.to_bytes(ids.BATCH_ID_ENTROPY_BYTES, "big"))


def _row(number: int) -> tuple[object, ...]:
    at_ms, is_open = _at_ms(number), number % 10 == 0
    workspace, status = THEIRS if number % 3 == 0 else OURS, "in_progress" if is_open else "ended"
    return _id(number), workspace, status, int(is_open), at_ms, T0 + DAY_MS, None if is_open else at_ms


def _is_ours(number: int) -> bool:
    return number % 3 != 0


_MIDDLE = 50_000
assert _is_ours(_MIDDLE)
assert not _is_ours(_MIDDLE + 1)
_CASES = [
    pytest.param(Sought(), {}, lambda number: True, id="newest"),
    pytest.param(Sought(), {"after": _id(_MIDDLE)}, lambda number: number < _MIDDLE, id="from the middle on"),
    pytest.param(Sought(status="in_progress"), {}, lambda number: number % 10 == 0, id="a rare status"),
    pytest.param(Sought(status="canceling"), {}, lambda number: False, id="no status"),
    pytest.param(Sought(until_ms=_at_ms(100)), {}, lambda number: number < 100, id="the oldest"),
    pytest.param(
        Sought(since_ms=_at_ms(500), until_ms=_at_ms(520), status="ended"),
        {},
        lambda number: 500 <= number < 520 and number % 10,
        id="a status within minutes",
    ),
    pytest.param(Sought(since_ms=T0 + 1), {}, lambda number: False, id="the future"),
    pytest.param(Sought(id_prefix=_id(_MIDDLE)), {}, lambda number: number == _MIDDLE, id="an id"),
    pytest.param(Sought(id_prefix=_id(_MIDDLE + 1)), {}, lambda number: False, id="an id of others"),
    pytest.param(
        Sought(id_prefix=_id(_MIDDLE)[:16], status="in_progress"),
        {},
        lambda number: _id(number).startswith(_id(_MIDDLE)[:16]) and number % 10 == 0,
        id="a prefix",
    ),
]


@pytest.mark.parametrize(("sought", "cursor", "is_meant"), _CASES)
def test_a_page_of_very_many_batches_takes_few_steps(
    sought: Sought, cursor: dict[str, BatchId], is_meant: Callable[[int], bool], many: Path
) -> None:
    statements: list[str] = []
    hundreds = 0

    def count() -> int:
        nonlocal hundreds
        hundreds += 1
        return 0

    with closing(sqlite3.connect(many / "data" / "control.sqlite3")) as sql:
        sql.set_trace_callback(statements.append)
        sql.set_progress_handler(count, 100)
        given = {"after": None, "before": None, **cursor}
        found = browsing.browse(sql, OURS, sought, limit=limits.CONSOLE_BATCHES, **given)
    meant = [_id(number) for number in range(MANY - 1, -1, -1) if is_meant(number) and _is_ours(number)]
    assert isinstance(found, Page)
    assert [batch.id for batch in found.batches] == meant[: limits.CONSOLE_BATCHES]
    assert found.has_more is (len(meant) > limits.CONSOLE_BATCHES)
    assert len(statements) <= 40
    assert 100 * hundreds < STEPS_MAX


def test_the_page_itself_takes_few_statements(many: Path) -> None:
    async def hold() -> None:
        async with desk(many, Settings(keys=keys(ours=OURS))) as here:
            statements: list[str] = []
            browser = await here.logged_in("ours")
            await here.store.control.counts()  # What came before is done.
            committer = here.store.control._committer  # type: ignore[attr-defined]
            committer._connection.set_trace_callback(statements.append)
            page = await browser.get("/console/batches?status=in_progress&from=2026-04-01&to=2026-05-01")
            committer._connection.set_trace_callback(None)
            assert len(_ids(page)) == limits.CONSOLE_BATCHES
            assert len(statements) <= 1 + 2 * 18 + 2 * limits.CONSOLE_BATCHES

    asyncio.run(hold())


# --- Values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (1, "<$0.000001"),
        (499, "<$0.000001"),
        (1_000, "$0.000001"),
        (756_000, "$0.000756"),
        (10_000_000, "$0.01"),
        (500_000_000, "$0.50"),
        (1_000_000_000, "$1.00"),
        (1_234_567_891_000, "$1,234.57"),
        (-250_000_000, "$-0.25"),
    ],
)
def test_money_is_shown_to_the_cent_and_small_money_to_the_millionth(nano: int, text: str) -> None:
    assert shown.usd(nano) == text


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0 %"), (0.0001, "1 %"), (0.5, "50 %"), (0.9999, "99 %"), (1, "100 %")]
)
def test_only_nothing_is_0_percent_and_only_everything_100(part: float, text: str) -> None:
    assert shown.share(part) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(-5, "0 s"), (999, "0 s"), (61_000, "1 min 1 s"), (3_660_000, "1 h 1 min"), (DAY_MS + 3_600_000, "1 d 1 h")],
)
def test_a_length_of_time_is_shown_in_two_units(ms: int, text: str) -> None:
    assert shown.duration(ms) == text
