"""overnight.jobs.report: every row accounted for, totals, errors, and cost."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from overnight import limits
from overnight.errors import JobError
from overnight.jobs.jobfile import Currency, Report
from overnight.jobs.report import Summary, report
from overnight.jobs.row import Answer, State

HEADING = "=== INVOICE CLASSIFICATION RESULTS ==="
LINE = (
    "{{ key }} -> {{ department }} | Rs {{ amount }} | {{ description }}"
    "{% if approval_required %} *** APPROVAL REQUIRED ***{% endif %}"
)
RUPEES = Currency(code="INR", symbol="Rs ", per_usd=85.0)
QUIET = Summary(job="tickets", noun="tickets", run="run_1", rows=1, counts={"succeeded": 1})


def invoice(number: int, department: str, amount: int, description: str) -> Answer:
    fields = {"department": department, "amount": amount, "description": description}
    return Answer(f"INV-{number:03}", {}, "succeeded", {**fields, "approval_required": amount > 200_000})


def failed(key: str | int, state: State = "expired", error: str = "not done in 24 h") -> Answer:
    return Answer(key, {"body": "x"}, state, {}, error, str(key))


def text(summary: Summary, answers: Iterable[Answer] = (), settings: Report | None = None, **bound: Any) -> list[str]:
    return list(report(settings or Report(), summary, answers, **bound))


INVOICES = [
    invoice(1, "IT", 124_500, "AWS cloud infrastructure costs"),
    invoice(2, "HR", 45_000, "Recruitment"),
    invoice(3, "Marketing", 285_000, "Campaign"),
    failed("INV-004"),
    invoice(5, "Finance", 850_000, "Audit"),
]


def test_invoices_are_reported_literally_and_in_order() -> None:
    summary = Summary("invoices", "invoices", "run_1", 5, {"succeeded": 4, "expired": 1})
    assert text(summary, INVOICES, Report(heading=HEADING, line=LINE))[:8] == [
        "=== INVOICE CLASSIFICATION RESULTS ===",
        "INV-001 -> IT | Rs 124500 | AWS cloud infrastructure costs",
        "INV-002 -> HR | Rs 45000 | Recruitment",
        "INV-003 -> Marketing | Rs 285000 | Campaign *** APPROVAL REQUIRED ***",
        "INV-004: Failed - not done in 24 h",
        "INV-005 -> Finance | Rs 850000 | Audit *** APPROVAL REQUIRED ***",
        "",
        "5 invoices: 4 succeeded, 1 failed (1 expired)",
    ]


def test_a_whole_report() -> None:
    summary = Summary(
        job="tickets",
        noun="tickets",
        run="run_7",
        rows=3000,
        counts={"succeeded": 2990, "expired": 4, "invalid": 6, "refused": 0},
        skipped_in_flight=12,
        skipped_failed=1234,
        errors=[("answer is none of the choices", 6), ("not done\nin 24 h", 4)],
        batch_usd=Decimal("0.48"),
        realtime_usd=Decimal("0.96"),
        month_usd=Decimal("12.48"),
        year_usd=Decimal("175.2"),
        cache_read_tokens=1_200_000,
        cache_write_tokens=400,
        batches=["msgbatch_1", "msgbatch_2"],
        duration_s=11_100,
    )
    assert text(summary, [failed("INV-9", "invalid", "no\nJSON")]) == [
        "INV-9: Failed - no JSON",
        "",
        "3,000 tickets: 2,990 succeeded, 10 failed (6 invalid, 4 expired)",
        "Most common errors:",
        "  6 × answer is none of the choices",
        "  4 × not done in 24 h",
        "Cost: $0.48 in batches, $0.96 in real time, $0.48 saved",
        "This month: $12.48",
        "A year of such nights: ~$175, ~$175 saved",
        "Skipped: 12 tickets that an unfinished run has",
        "Skipped: 1,234 tickets that failed for good before; --rerun asks them again",
        "Prompt cache: 1,200,000 tokens read, 400 written",
        "Batches: msgbatch_1, msgbatch_2",
        "Run: run_7, 3 h 5 min",
    ]


def test_a_run_without_trouble_is_short() -> None:
    assert text(QUIET, [Answer(1, {}, "succeeded", {"value": "x"})]) == [
        "1 tickets: 1 succeeded",
        "Cost: unknown, the model has no price; [prices] in the job file sets one",
        "Run: run_1, 0 s",
    ]


@pytest.mark.parametrize(
    ("amounts", "currency", "lines"),
    [
        pytest.param(
            {"batch_usd": "0.275", "realtime_usd": "0.55", "month_usd": "2.75", "year_usd": "100.375"},
            RUPEES,
            [
                "Cost: $0.28 (Rs 23.38) in batches, $0.55 (Rs 46.75) in real time, $0.28 (Rs 23.38) saved",
                "This month: $2.75 (Rs 233.75)",
                "A year of such nights: ~$100 (~Rs 8,532), ~$100 (~Rs 8,532) saved",
            ],
            id="in the user's currency too",
        ),
        pytest.param({"batch_usd": "0.48"}, None, ["Cost: $0.48"], id="no price in real time"),
        pytest.param(
            {"batch_usd": "0"},
            RUPEES,
            ["Cost: $0 (Rs 0)"],
            id="free is not unknown",
        ),
    ],
)
def test_cost_is_told_at_both_prices(amounts: dict[str, str], currency: Currency | None, lines: list[str]) -> None:
    summary = QUIET._replace(**{name: Decimal(usd) for name, usd in amounts.items()})
    assert text(summary, settings=Report(currency=currency))[1:-1] == lines


def test_rows_without_an_end_are_counted() -> None:
    summary = QUIET._replace(rows=1500, counts={"succeeded": 400, "submitted": 1000, "held": 100})
    assert text(summary)[0] == "1,500 tickets: 400 succeeded, 100 failed (100 held), 1,000 not finished"


@pytest.mark.parametrize(
    ("count", "named", "more"),
    [(limits.JOB_NAMED_MAX, limits.JOB_NAMED_MAX, []), (1025, limits.JOB_NAMED_MAX, ["… and 1,005 more"])],
)
def test_without_a_line_only_so_many_failed_rows_are_named(count: int, named: int, more: list[str]) -> None:
    answers = [Answer(0, {}, "succeeded", {"value": "x"}), *(failed(key) for key in range(count))]
    lines = text(QUIET, answers)
    assert lines[: lines.index("")] == [f"{key}: Failed - not done in 24 h" for key in range(named)] + more


def test_only_so_many_batches_are_named() -> None:
    summary = QUIET._replace(batches=[f"b{n}" for n in range(limits.JOB_NAMED_MAX + 2)])
    assert text(summary)[-2].endswith(f", b{limits.JOB_NAMED_MAX - 1}, … and 2 more")


@pytest.mark.parametrize(
    ("bound", "lines"),
    [
        pytest.param(None, ["aaaa", "bbbb", "cccc"], id="none"),
        pytest.param(12, ["aaaa", "bbbb", "cccc"], id="enough"),
        pytest.param(11, ["aaaa", "bbbb", "… and 1 more"], id="one too short"),
        pytest.param(3, ["… and 3 more"], id="for none"),
    ],
)
def test_a_bound_leaves_out_rows_and_never_totals(bound: int | None, lines: list[str]) -> None:
    answers = [Answer(key, {}, "succeeded", {"value": key * 4}) for key in "abc"]
    made = text(QUIET, answers, Report(line="{{ value }}"), characters_max=bound)
    assert made[: len(lines) + 2] == [*lines, "", "1 tickets: 1 succeeded"]


def test_an_answer_cannot_steer_a_terminal() -> None:
    answers = [Answer(1, {}, "succeeded", {"value": "\x1b[2J"}), failed(2, error="\x1b[2J")]
    made = text(QUIET._replace(errors=[("\x1b[2J", 1)]), answers, Report(line="{{ value }}"))
    assert "\x1b" not in "\n".join(made)
    assert made[:2] == [r"\x1b[2J", r"2: Failed - \x1b[2J"]


def test_a_wrong_line_is_named() -> None:
    answers = [Answer(1, {}, "succeeded", {"amount": 1})]
    with pytest.raises(JobError, match=r"^\[report\] line: there is no column 'amuont'; .* did you mean 'amount'\?$"):
        text(QUIET, answers, Report(line="{{ amuont }}"))
