"""The page of usage: whose it is, from when, how it is drawn, and that the table and the CSV say the same."""

import csv
import io
import re
from pathlib import Path

import pytest
from desk import OURS, T0, THEIRS, Desk, keys, on_desk

from overnight import limits
from overnight.core.usage import NANO, Sums, Used
from overnight.core.workspace import Rules
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.limits import DAY_MS
from overnight.server.config import KeySettings, Settings
from overnight.server.console import chart
from overnight.server.console.chart import Series
from overnight.server.console.usage import SERIES_MAX
from overnight.store.usage import Entry

HOUR_MS = 3_600_000
HARM = "</title><script>alert(1)</script>'\"\u202e\x1b[0m"
ADMIN = [KeySettings(sha256=key.sha256, workspace=key.workspace, role="admin") for key in keys(admin=OURS)]
TEAMS = Settings(keys=[*ADMIN, *keys(ours=OURS, theirs=THEIRS)])


async def _use(
    desk: Desk,
    *,
    model: str = "m",
    engine: str = "e",
    workspace: WorkspaceId = DEFAULT_WORKSPACE,
    api_key: str = "",
    at_ms: int = T0,
    **sums: int,
) -> None:
    used = Used(model=model, engine=engine, service_tier="batch", sums=Sums(**{"requests": 1, **sums}))
    await desk.store.usage.note([Entry(workspace=workspace, api_key=api_key, used=used)], now_ms=at_ms)


def _tiles(page: object) -> dict[str, str]:
    return dict(zip(page.texts("dt"), page.texts("dd"), strict=True))  # type: ignore[attr-defined]


def test_totals_are_what_was_used_and_what_it_saved(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _use(
            desk,
            requests=3,
            input_tokens=1_000,
            cache_read_tokens=200,
            cache_write_5m_tokens=30,
            cache_write_1h_tokens=4,
            output_tokens=500,
            usd_nano=2 * NANO,
            realtime_usd_nano=5 * NANO,
            unpriced=1,
        )
        page = await desk.browser().get("/console/usage")
        assert _tiles(page) == {
            "Requests": "3",
            "Input tokens": "1,000",
            "Read from cache": "200",
            "Written to cache": "34",
            "Output tokens": "500",
            "Cost": "$2.00",
            "In real time": "$5.00",
            "Saved": "$3.0060 %",
        }
        assert "Nobody knows a price for 1 of these requests; amounts are without them." in page.texts(
            "p", class_="muted"
        )

    on_desk(body, tmp_path)


def test_without_usage_the_page_says_how_to_make_some(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        page = await desk.browser().get("/console/usage")
        assert page.texts("p", class_="lead") == ["Nothing was used in this time."]
        assert "curl http://127.0.0.1:8642/v1/messages" in page.texts("pre")[0]
        assert not page.attributes("svg", class_="chart")

    on_desk(body, tmp_path)


def test_the_chart_its_table_and_the_csv_say_the_same(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        for model, days, nano in (("a", 0, 3 * NANO), ("a", 2, NANO), ("b", 2, 2 * NANO)):
            await _use(desk, model=model, at_ms=T0 - days * DAY_MS, usd_nano=nano)
        browser = desk.browser()
        page = await browser.get("/console/usage?by=model&per=day")
        said = [text for text in page.texts("title") if text.startswith("2026")]
        assert said == ["2026-05-26, a: $1.00", "2026-05-26, b: $2.00", "2026-05-28, a: $3.00"]
        lines = [row.split() for row in _cells(page.source, "numbers")]
        assert lines == [
            ["Day,", "UTC", "a", "b", "Together"],
            ["2026-05-26", "$1.00", "$2.00", "$3.00"],
            ["2026-05-28", "$3.00", "$0.00", "$3.00"],
        ]
        answer = await browser.send("GET", f"/console/usage.csv?{page.link('Download CSV').partition('?')[2]}")
        found = list(csv.DictReader(io.StringIO(answer.body.decode())))
        assert [(row["day"][:10], row["model"], row["usd"]) for row in found] == [
            ("2026-05-26", "a", "1"),
            ("2026-05-26", "b", "2"),
            ("2026-05-28", "a", "3"),
        ]

    on_desk(body, tmp_path)


def _cells(source: str, table: str) -> list[str]:
    """The lines of a table, with a blank between cells."""
    (found,) = re.findall(rf'<table id="{table}">(.*?)</table>', source, re.DOTALL)
    return [re.sub(r"<[^>]*>", " ", row) for row in re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)]


RANGES = [
    pytest.param("range=24h", ["2026-05-28 00:00", "2026-05-28 19:00", "2026-05-28 20:00"], id="24 hours"),
    pytest.param("range=24h&per=day", ["2026-05-28"], id="24 hours by the day"),
    pytest.param("", ["2026-05-22", "2026-05-28"], id="7 days"),
    pytest.param("range=30d", ["2026-04-29", "2026-05-22", "2026-05-28"], id="30 days"),
    pytest.param("range=90d", ["2026-03-01", "2026-04-29", "2026-05-22", "2026-05-28"], id="90 days"),
    pytest.param("from=2026-04-29&to=2026-05-22", ["2026-04-29", "2026-05-22"], id="from and to"),
    pytest.param("from=2026-05-22", ["2026-05-22", "2026-05-28"], id="from"),
    pytest.param("range=30d&from=2026-05-28", ["2026-05-28"], id="days before a range"),
]


@pytest.mark.parametrize(("query", "buckets"), RANGES)
def test_a_range_has_its_whole_days_and_no_others(query: str, buckets: list[str], tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        midnight = T0 - T0 % DAY_MS
        for days in (0, 6, 29, 88, 90):
            await _use(desk, at_ms=midnight - days * DAY_MS)
        await _use(desk, at_ms=T0)
        await _use(desk, at_ms=T0 - HOUR_MS)
        page = await desk.browser().get(f"/console/usage?show=requests&{query}")
        found = [row.split("  ")[0].strip().removesuffix(" UTC") for row in _cells(page.source, "numbers")[1:]]
        assert found == buckets

    on_desk(body, tmp_path)


TROUBLES = [
    pytest.param("from=x", "from", id="no day"),
    pytest.param("to=2026-05-01", "from", id="an end without a beginning"),
    pytest.param("from=2026-05-20&to=2026-05-01", "to", id="backwards"),
    pytest.param("from=2024-01-01", "to", id="longer than 400 days"),
    pytest.param("from=0001-01-01", "from", id="before there was anything"),
    pytest.param("by=secret", "by", id="by"),
    pytest.param("show=%3Cscript%3E", "show", id="show"),
    pytest.param("per=minute", "per", id="per"),
    pytest.param("range=30d&per=hour", "per", id="hours of a month"),
    pytest.param("from=2026-01-01&to=2026-01-02&per=hour", "per", id="hours long ago"),
    pytest.param("workspace=wrkspc_none", "workspace", id="workspace"),
]


@pytest.mark.parametrize(("query", "field"), TROUBLES)
def test_what_cannot_be_shown_is_said_at_its_field(query: str, field: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _use(desk)
        browser = desk.browser()
        page = await browser.get(f"/console/usage?{query}")
        assert page.status == 400
        (marked,) = [found for found in _fields(page) if found.get("aria-invalid") == "true"]
        assert marked["id"] == field
        assert page.attributes("p", id=marked["aria-describedby"].split()[-1]), "what describes it is there"
        assert "<script>alert" not in page.source
        assert (await browser.send("GET", f"/console/usage.csv?{query}")).status == 400

    on_desk(body, tmp_path)


def _fields(page: object) -> list[dict[str, str]]:
    return [*page.attributes("input"), *page.attributes("select")]  # type: ignore[attr-defined]


def test_an_unknown_range_is_said_and_a_week_is_shown(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        page = await desk.browser().get("/console/usage?range=century")
        assert (page.status, page.texts("a", aria_current="true")) == (400, [])
        assert page.texts("p", role="alert") == ["There is no such choice; take one of the list."]

    on_desk(body, tmp_path)


@pytest.mark.parametrize("query", ["", "?workspace=wrkspc_theirs", "?by=engine&workspace=wrkspc_theirs", "?by=key"])
def test_a_key_sees_what_its_workspace_used_and_nothing_else(query: str, tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _use(desk, model="our-model", engine="gpu-left", workspace=OURS, api_key="settings-2")
        await _use(desk, model="their-model", engine="gpu-right", workspace=THEIRS, api_key="settings-3", requests=70)
        browser = await desk.logged_in("ours")
        page = await browser.get(f"/console/usage{query}")
        assert _tiles(page)["Requests"] == "1"
        for source in (page.source, (await browser.send("GET", f"/console/usage.csv{query}")).body.decode()):
            assert not re.search(r"their|gpu-right|settings-3", source)
        assert not page.attributes("select", name="workspace")

    on_desk(body, tmp_path, TEAMS)


def test_a_key_cannot_group_by_workspace(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _use(desk, workspace=THEIRS)
        page = await (await desk.logged_in("ours")).get("/console/usage?by=workspace")
        assert page.status == 400
        assert THEIRS not in page.source

    on_desk(body, tmp_path, TEAMS)


def test_an_admin_sees_all_workspaces_or_the_one_it_chooses(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _use(desk, workspace=OURS)
        await _use(desk, workspace=THEIRS, requests=70)
        browser = await desk.logged_in("admin")
        assert _tiles(await browser.get("/console/usage"))["Requests"] == "71"
        assert _tiles(await browser.get(f"/console/usage?workspace={THEIRS}"))["Requests"] == "70"
        page = await browser.get("/console/usage?by=workspace&show=requests")
        assert [row.split()[:2] for row in _cells(page.source, "groups")[1:]] == [[THEIRS, "70"], [OURS, "1"]]

    on_desk(body, tmp_path, TEAMS)


def test_more_groups_than_fills_become_others(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        for number in range(SERIES_MAX + 3):
            await _use(desk, model=f"m{number:02}", requests=100 - number)
        page = await desk.browser().get("/console/usage?show=requests")
        legend = page.texts("li")[-SERIES_MAX - 1 :]
        assert [text.split() for text in legend][-1] == ["3", "others", str(93 + 92 + 91)]
        fills = {found["fill"] for found in page.attributes("rect", class_="bar-part")}
        assert fills == {f"url(#fill-{number})" for number in range(SERIES_MAX + 1)}
        patterns = page.attributes("pattern")
        assert {found["id"] for found in patterns} == {f"fill-{number}" for number in range(SERIES_MAX + 1)}
        hatches = [found["d"] for found in page.attributes("path", class_="hatch")]
        assert len(set(hatches)) == SERIES_MAX + 1, "told apart without colours"

    on_desk(body, tmp_path)


def test_a_table_is_cut_where_callers_named_too_many_models(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        for number in range(limits.CONSOLE_GROUPS + 2):
            await _use(desk, model=f"m{number}")
        browser = desk.browser()
        page = await browser.get("/console/usage?show=requests")
        assert len(_cells(page.source, "groups")) == limits.CONSOLE_GROUPS + 1
        assert "2 more are in the CSV." in page.texts("p", class_="muted")
        whole = (await browser.send("GET", "/console/usage.csv")).body.decode()
        assert len(whole.splitlines()) == limits.CONSOLE_GROUPS + 3

    on_desk(body, tmp_path)


def test_own_hardware_shows_what_a_million_tokens_have_cost(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _use(desk, engine="gpu", input_tokens=300_000, output_tokens=100_000, usd_nano=NANO)
        await _use(desk, engine="free", input_tokens=300_000)
        page = await desk.browser().get("/console/usage")
        assert [row.split() for row in _cells(page.source, "rates")[1:]] == [["gpu", "m", "400,000", "$2.50"]]

    on_desk(body, tmp_path)


def test_budgets_say_what_is_spent_and_when_they_open(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await desk.store.access.set_rules(DEFAULT_WORKSPACE, Rules(usd_per_day=2.0, usd_per_month=8.0))
        await desk.here.doors.refresh(desk.store.access)
        await _use(desk, usd_nano=2 * NANO)
        await _use(desk, usd_nano=2 * NANO, at_ms=T0 - DAY_MS)
        page = await desk.browser().get("/console/usage")
        day, month = page.texts("li")[-2:]
        assert "$2.00 of $2.00" in day
        assert "spent" in day
        assert "Nothing of it starts before 2026-05-29 00:00 UTC" in " ".join(day.split())
        assert "$4.00 of $8.00" in month
        assert "Begins anew 2026-06-01 00:00 UTC" in " ".join(month.split())

    on_desk(body, tmp_path)


def test_without_prices_tokens_are_shown_first(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        await _use(desk, input_tokens=5, unpriced=1)
        browser = desk.browser()
        assert (await browser.get("/console/usage")).texts("h2")[0] == "Tokens by model and day"
        page = await browser.get("/console/usage?show=usd")
        assert not page.attributes("svg", class_="chart")
        assert "Nobody knows a price for any of it: show tokens or requests." in page.texts("p", class_="muted")

    on_desk(body, tmp_path)


def test_hostile_names_are_text_on_the_page_and_no_formula_in_the_csv(tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        for name in (HARM, "=1+1"):
            await _use(desk, model=name, engine=name, usd_nano=NANO, input_tokens=9)
        browser = desk.browser()
        page = await browser.get("/console/usage")
        for sign in ("<script>alert", "\x1b", "\u202e"):
            assert sign not in page.source
        assert page.source.count("&lt;script&gt;alert(1)") == 6  # Tooltip, legend, head, groups, twice in rates.
        answer = await browser.send("GET", "/console/usage.csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
        rows = list(csv.reader(io.StringIO(answer.body.decode())))
        assert [row[1] for row in rows[1:]] == [HARM, "'=1+1"]

    on_desk(body, tmp_path)


@pytest.mark.parametrize(
    ("values", "grid"),
    [
        pytest.param([0, 7], ["0", "2", "4", "6", "8"], id="small"),
        pytest.param([1_000, 0], ["0", "500", "1000"], id="round"),
        pytest.param([1, 0], ["0", "1"], id="one"),
        pytest.param([123_456_789, 5], ["0", "50000000", "100000000", "150000000"], id="large"),
    ],
)
def test_the_axis_reaches_the_highest_bar_in_round_steps(values: list[int], grid: list[str]) -> None:
    found = chart.drawn(["d1", "d2"], [Series("a", values)], shown=str, short=str)
    assert [tick.label for tick in found.grid] == grid
    floor, top = found.grid[0].at, found.grid[-1].at
    for bar in found.bars:
        assert bar.y >= top
        assert bar.y + bar.height == pytest.approx(floor)


def test_bars_stand_on_each_other_within_the_picture() -> None:
    found = chart.drawn(
        [f"d{number}" for number in range(limits.USAGE_DAYS_MAX)],
        [Series("a", [1] * limits.USAGE_DAYS_MAX), Series("b", [3] * limits.USAGE_DAYS_MAX)],
        shown=str,
        short=str,
    )
    for below, above in zip(found.bars[::2], found.bars[1::2], strict=True):
        assert (below.fill, above.fill, below.x) == (0, 1, above.x)
        assert above.y + above.height == pytest.approx(below.y)
        assert above.height == pytest.approx(3 * below.height)
    assert found.bars[-1].x + found.bars[-1].width <= chart.WIDTH
    assert len(found.below) <= 8
    assert found.below[-1].label == f"d{limits.USAGE_DAYS_MAX - 1}"
