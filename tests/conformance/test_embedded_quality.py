"""How good the packaged model is, in short: 20 cases of each held-out cell through the embedded engine.

The whole evaluation is `python -m model.make evaluate`; its figures stand in the model card. The floors here lie three
cases below what these 20 gave when the weights were packaged, so a wrong tokenizer, template, weight or decoder shows.
"""

import asyncio
from pathlib import Path

import pytest
from model import evaluate

from overnight.engines.embedded import tiny_weights

CASES = 20
FLOORS = {}


@pytest.fixture(scope="module")
def scores() -> dict[str, evaluate.Score]:
    cells = [cell for cell in evaluate.generated(Path("build/model"), CASES) if cell.name in FLOORS]
    found = asyncio.run(evaluate.run(tiny_weights(), cells, threads=2))
    return {score.name: score for score in found}


@pytest.mark.parametrize("name", FLOORS)
def test_the_packaged_model_is_as_good_as_its_card_says(name: str, scores: dict[str, evaluate.Score]) -> None:
    assert scores[name].right >= FLOORS[name], scores[name].mistakes


def test_json_without_a_schema_is_valid(scores: dict[str, evaluate.Score]) -> None:
    asked = [score for score in scores.values() if score.valid_json is not None]
    assert sum(score.valid_json for score in asked) >= 0.98 * sum(score.cases for score in asked)
