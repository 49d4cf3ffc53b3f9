"""A conversation of training and evaluation asks for something, and its answer is what is true of the text."""

import json
import random
from pathlib import Path

import pytest
from model import evaluate, prompts
from model.chat import ASSISTANT, END, USER

from overnight.engines import conversation

FAMILIES = 60
NOWHERE = Path("not needed")  # Only texts of one training task come out of a folder.


def drawn(task: str, only: str = "") -> list[tuple[prompts.Family, prompts.Branch]]:
    dice = random.Random(task + only)
    families = [
        prompts.family(dice, task, "held_out", NOWHERE, size=2, only=only, plain=0.3) for _ in range(FAMILIES)
    ]
    return [(family, branch) for family in families for branch in family.branches]


@pytest.mark.parametrize("task", ["sentiment", "ticket", "moderation", "language"])
def test_what_is_known_of_a_text_is_in_its_answer(task: str) -> None:
    """In its own spelling, or with a capital letter; a ticket's answer may be about one thing of three."""
    for _, branch in drawn(task):
        assert branch.known
        assert all(label in prompts.ATTRIBUTES[name] for name, label in branch.known.items())
        assert any(label.lower() in branch.answer.lower() for label in branch.known.values())


@pytest.mark.parametrize("task", ["sentiment", "ticket", "moderation", "invoice", "language", "outside"])
def test_a_conversation_is_turns_that_end_where_the_model_speaks(task: str) -> None:
    for family, branch in drawn(task):
        whole = family.prefix + branch.asked
        assert whole.endswith(END + ASSISTANT)
        assert whole.count(USER) == whole.count(ASSISTANT)
        assert END not in branch.answer


@pytest.mark.parametrize("only", ["json", "tool", "input"])
def test_an_invoice_answer_holds_the_fields_of_its_line(only: str) -> None:
    for family, branch in drawn("invoice", only):
        department, written, description = branch.fields
        assert all(field in branch.text for field in branch.fields)
        case = evaluate.case(family, branch)
        assert (case.wanted["department"], case.wanted["description"]) == (department, description)
        digits = "".join(character for character in written if character.isdigit() or character == ".")
        assert str(case.wanted["amount"]).replace(".", "") in digits.replace(".", "") + "0"


def test_a_tool_call_names_the_tool_that_is_offered() -> None:
    for family, branch in drawn("invoice", "tool"):
        [tool] = family.tools
        call = json.loads(branch.answer.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
        assert call["name"] == tool["name"]
        assert set(call["arguments"]) == set(tool["parameters"]["required"])


@pytest.mark.parametrize("task", ["sentiment", "ticket", "moderation", "invoice", "language", "outside"])
def test_a_case_is_a_request_that_the_api_takes(task: str) -> None:
    for family, branch in drawn(task):
        body = {"model": "m", "max_tokens": 10, **evaluate.case(family, branch).params}
        asked = conversation.read(json.dumps(body).encode())
        assert asked.messages[-1].role == "user"


def test_a_table_has_a_row_for_each_task_and_part() -> None:
    fields = {"department": 1, "amount": 2, "description": 1}
    asked = dict.fromkeys(fields, 2)
    scores = [
        evaluate.Score("invoice json | seen", 2, 1, 2, fields, asked, []),
        evaluate.Score("outside | seen", 4, 3, None, {}, {}, []),
        evaluate.Score("outside | held out", 4, 4, None, {}, {}, []),
    ]
    assert evaluate.table(scores).splitlines() == [
        "| task | seen | held out |",
        "|---|---|---|",
        "| invoice json | 50.0% |  |",
        "| invoice json: department | 50.0% |  |",
        "| invoice json: amount | 100.0% |  |",
        "| invoice json: description | 50.0% |  |",
        "| invoice json: valid JSON | 100.0% |  |",
        "| outside | 75.0% | 100.0% |",
    ]
