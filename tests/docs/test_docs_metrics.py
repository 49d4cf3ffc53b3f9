"""The pages about metrics and about what holds an engine back, compared with the code."""

from docpages import ROOT, table
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from overnight.core.tokens import Tokens
from overnight.runner.status import DOORS, BacklogStatus, EngineStatus, Status
from overnight.server.metrics import Counted, rendered

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


def _row(family: Metric) -> list[str]:
    sample = family.samples[0]
    return [sample.name, family.type, ", ".join(sample.labels), family.documentation]


def test_every_metric_is_documented() -> None:
    text = rendered(_STATUS, [Counted({}, Tokens(0, 0))], {}).decode()
    assert table(_METRICS, "test_every_metric_is_documented") == [
        _row(family) for family in text_string_to_metric_families(text)
    ]


def test_every_door_is_documented() -> None:
    assert [row[0] for row in table(_SEE, "test_every_door_is_documented")] == list(DOORS)
