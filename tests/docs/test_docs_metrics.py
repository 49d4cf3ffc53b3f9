"""The pages about metrics and about what holds an engine back, compared with the code."""

from docpages import ROOT, table
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from overnight.core.tokens import Tokens
from overnight.core.usage import NOTHING
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.clock import SystemClock
from overnight.runner.journal import Line
from overnight.runner.purse import Purse
from overnight.runner.status import DOORS, BacklogStatus, EngineStatus, Status
from overnight.server.families import Own
from overnight.server.metrics import Counted, rendered
from overnight.server.reading import Sizes, Stored
from overnight.server.traffic import Counts, Way
from overnight.store.figures import Figures, Open

MARK = "test_every_metric_is_documented"
_METRICS = ROOT / "docs" / "reference" / "metrics.md"
_SEE = ROOT / "docs" / "how-to" / "see-what-it-does.md"
_ENGINE = EngineStatus(
    name="e",
    rank=0,
    is_replica=False,
    held_by="window",
    held="",
    is_away=False,
    away_since=None,
    in_flight=1,
    interactive=1,
    window=1,
    window_max=1,
    ceiling=1,
    tokens_in_flight=1,
    tokens_limit=1,
    share=1.0,
    hours="",
    signal=1.0,
    speed_per_s=1.0,
    running=1,
    waiting=1,
    kv_share=1.0,
    rate_wait_s=1.0,
    trouble="",
)
_STATUS = Status(
    at="", engines=[_ENGINE], backlog=BacklogStatus(waiting={"m": 1}, segments=1, danger_until=None, unfinished=1)
)


_OWN = Own(
    batches={},
    traffic=Counts(),
    stored=Stored(
        Figures(
            open={DEFAULT_WORKSPACE: Open(batches=1, requests=1, oldest_created_at_ms=0, nearest_expires_at_ms=0)},
            hooks_pending=0,
            hooks_dead=0,
        ),
        Sizes({"wal": 1}, 1),
    ),
    troubles={"results": 0},
    lag_s=0,
    used={Line("m", "e", "batch"): NOTHING},
    purses=(Purse("e", 1.0, clock=SystemClock()),),
    by_workspace=True,
)
_OWN.traffic.note(Way("/x", "GET", "2xx"), 0.1)


def rows() -> list[list[str]]:
    """What the table of metrics must say."""
    text = rendered(_STATUS, [Counted({}, Tokens(0, 0))], {}, _OWN).decode()
    return [_row(family) for family in text_string_to_metric_families(text)]


def _row(family: Metric) -> list[str]:
    sample = family.samples[-1]
    name = family.name if family.type == "histogram" else sample.name
    return [name, family.type, ", ".join(sorted(sample.labels)), family.documentation]


def test_every_metric_is_documented() -> None:
    assert table(_METRICS, MARK) == rows()


def test_every_door_is_documented() -> None:
    assert [row[0] for row in table(_SEE, "test_every_door_is_documented")] == list(DOORS)
