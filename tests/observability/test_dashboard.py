"""The dashboard and the alerts: that Grafana and Prometheus can read them, and that what they ask for exists."""

import re
import subprocess

import pytest
from boards import PROMETHEUS, ROOT, dashboard, expressions, metrics_in, needed, panels, rules


def _documented() -> set[str]:
    text = (ROOT / "docs/reference/metrics.md").read_text()
    names = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) | set(re.findall(r"`(process_\w+)`", text))
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "count", "sum")}


def test_every_metric_of_the_dashboard_and_the_alerts_is_documented() -> None:
    asked = metrics_in(" ".join([*expressions(), *(rule["expr"] for rule in rules())]))
    assert len(asked) > 30
    assert asked - _documented() == set()


def test_every_panel_asks_the_chosen_data_source_about_the_chosen_servers() -> None:
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert 'instance=~"$instance"' in target["expr"], panel["title"]
    variables = {variable["name"]: variable["type"] for variable in dashboard()["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    found = dashboard()["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_rows_are_those_of_the_page() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Queue and deadlines", "Engines", "Cost", "HTTP", "Storage and process"]
    page = (ROOT / "docs/how-to/monitoring.md").read_text()
    assert all(f"| {row} |" in page for row in rows)


def test_every_alert_says_what_is_wrong_and_leads_to_what_to_do() -> None:
    for rule in rules():
        assert {"summary", "description", "runbook"} == set(rule["annotations"]), rule["alert"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, rule["alert"]


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_agrees(command: list[str]) -> None:
    """`alerts_test.yml` is the unit test of every alert: when it fires, and when it does not."""
    promtool = needed("promtool")
    done = subprocess.run(
        [promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_unit_test() -> None:
    tested = (PROMETHEUS / "alerts_test.yml").read_text()
    assert [rule["alert"] for rule in rules() if f"alertname: {rule['alert']}\n" not in tested] == []
