"""The dashboard and the alerts that are shipped, as tests read them."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "packaging" / "prometheus"
_METRIC = re.compile(r"\b(?:overnight|process)_[a-z_]+\b")


def dashboard() -> Any:
    return json.loads((ROOT / "packaging" / "grafana" / "overnight.json").read_text())


def panels() -> list[Any]:
    """Those that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every expression, with what Grafana would put in the place of its variables."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [text.replace("$instance", ".*").replace("$__rate_interval", "1m") for text in found]


def rules() -> list[Any]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def metrics_in(text: str) -> set[str]:
    return set(_METRIC.findall(text))


def needed(program: str) -> str:
    """Where a program of Prometheus is. Without it the test is skipped, but fails in CI."""
    found = shutil.which(program)
    if found is None:
        missing = f"{program} is not installed: apt-get install prometheus"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found
