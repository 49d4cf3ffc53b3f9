"""The bill of a segment: what its answers took, and why others came to nothing."""

from runs import begun, run_of

from overnight.core.usage import CAUSE_CHARACTERS_MAX, CAUSES_MAX, OTHER_CAUSES, Cause, Sums
from overnight.runner.segmentrun import SegmentRun, Took, Work
from overnight.wire import problem, result


def fail(run: SegmentRun, work: Work, kind: str, message: str) -> None:
    run.record(work, "errored", result.errored(work.custom_id, problem.encode(kind, message, request_id=None)))


def test_answers_are_summed_up_by_model_and_engine() -> None:
    run = run_of(3)
    for index, work in enumerate(begun(run, "abc")):
        work.model = "m"
        took = Took("first" if index < 2 else "second", Sums(requests=1, input_tokens=index + 1, usd_nano=10))
        run.record(work, "succeeded", result.succeeded(work.custom_id, b"{}"), took)
    assert [(used.model, used.engine, used.sums) for used in run.bill().used] == [
        ("m", "first", Sums(requests=2, input_tokens=3, usd_nano=20)),
        ("m", "second", Sums(requests=1, input_tokens=3, usd_nano=10)),
    ]


def test_a_second_result_of_a_request_is_in_no_bill() -> None:
    run = run_of(2)
    work, _ = begun(run, "ab")
    for _ in range(2):
        run.record(work, "succeeded", result.succeeded("r0", b"{}"), Took("e", Sums(requests=1)))
    fail(run, work, "api_error", "too late")
    bill = run.bill()
    assert [used.sums.requests for used in bill.used] == [1]
    assert bill.causes == ()


def test_equal_errors_are_one_cause_with_its_first_request_as_the_example() -> None:
    run = run_of(3)
    for work in begun(run, "abc"):
        fail(run, work, "not_found_error", "model: x")
    assert run.bill().causes == (Cause(type="not_found_error", message="model: x", requests=3, example="r0"),)


def test_beyond_twenty_causes_the_rest_is_one_more() -> None:
    run = run_of(CAUSES_MAX + 5)
    for index, work in enumerate(begun(run, ["a"] * (CAUSES_MAX + 5))):
        fail(run, work, f"type-{index}", f"message {index}")
    causes = run.bill().causes
    assert len(causes) == CAUSES_MAX + 1
    assert (causes[-1].type, causes[-1].message) == OTHER_CAUSES
    assert (causes[-1].requests, sum(cause.requests for cause in causes)) == (5, CAUSES_MAX + 5)


def test_what_an_engine_says_at_length_is_cut() -> None:
    run = run_of(1)
    (work,) = begun(run, "a")
    fail(run, work, "t" * 10_000, "m" * 10_000)
    (cause,) = run.bill().causes
    assert (len(cause.type), len(cause.message)) == (CAUSE_CHARACTERS_MAX, CAUSE_CHARACTERS_MAX)
