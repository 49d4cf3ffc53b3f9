"""How good the packaged model is, in short: 20 cases of each held-out cell through the embedded engine.

The whole evaluation is `python -m model.make evaluate`; its figures stand in the model card. The floors lie three
cases below what these 20 gave when the weights were packaged, so a wrong tokenizer, template or weight shows.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from model import evaluate

from overnight.engines.embedded import tiny_weights

CASES = 20
FLOORS: Mapping[str, int] = {
    "sentiment | held out": 10,
    "ticket category | held out": 14,
    "ticket urgency | held out": 14,
    "ticket mood | held out": 13,
    "ticket json | held out": 5,
    "moderation | held out": 15,
    "invoice json | held out": 12,
    "invoice tool | held out": 9,
    "language | held out": 17,
    "outside | held out": 15,
    "sentiment | new words": 12,
    "sentiment | new nouns": 12,
}


@pytest.fixture(scope="module")
def scores() -> Mapping[str, evaluate.Score]:
    cells = evaluate.generated(Path("not needed"), CASES, ["held_out"])
    found = asyncio.run(evaluate.run(tiny_weights(), cells, threads=2))
    return {score.name: score for score in found}


@pytest.mark.parametrize("name", FLOORS)
def test_the_packaged_model_is_as_good_as_its_card_says(name: str, scores: Mapping[str, evaluate.Score]) -> None:
    assert scores[name].right >= FLOORS[name], scores[name].mistakes


def test_every_held_out_cell_has_a_floor(scores: Mapping[str, evaluate.Score]) -> None:
    assert set(scores) == set(FLOORS)


def test_json_without_a_schema_is_valid(scores: Mapping[str, evaluate.Score]) -> None:
    asked = [score for score in scores.values() if score.valid_json is not None]
    valid, cases = (
        sum(part) for part in zip(*((score.valid_json or 0, score.cases) for score in asked), strict=True)
    )
    assert valid >= cases - 3
