"""What a night decides: money, deadlines, rows that are asked again, and batches of which nobody knows."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from nights import Folder, Params, Time, said

from overnight.cli.joboptions import DONE, FAILED_ROWS
from overnight.errors import NotSpent, ServerTrouble
from overnight.jobs import tell
from overnight.jobs.job import Job
from overnight.jobs.session import night_of
from overnight.ports.world import World
from overnight.testing.hosted import HostedApi, Outcome, canceled, failed, text

JOB = """
name = "desk"
noun = "tickets"
model = "claude-haiku-4-5"
max_tokens = 50
[source]
db = "sqlite:///rows.db"
sql = "select id, body from tickets where category is null order by id"
key = "id"
[prompt]
user = "{{ body }}"
[output]
choices = ["billing", "technical"]
[sink]
db = "sqlite:///rows.db"
sql = "update tickets set category = :value where id = :key and category is null"
on_error = "update tickets set note = :state where id = :key"
"""
EVENING_MS = 1_780_000_000_000
Answer = Callable[[Params], Outcome]


class Desk:
    """A folder with tickets, and the hosted API; `answer` may be set."""

    def __init__(self, folder: Folder, hosted: HostedApi) -> None:
        self.folder, self.hosted = folder, hosted
        self.environment = {"ANTHROPIC_BASE_URL": hosted.url, "ANTHROPIC_API_KEY": hosted.key}
        self.answer: Answer = lambda params: text("billing")

    def given(self, rows: int, settings: str = "", *, body: Callable[[int], str] = str) -> None:
        self.folder.table(
            "tickets", ["id", "body", "category", "note"], [(n, body(n), None, None) for n in range(rows)]
        )
        self.folder.job(JOB + settings)

    def run(self, **options: Any) -> Any:
        return self.folder.run(self.environment, **options)

    @property
    def answers(self) -> list[Any]:
        return self.folder.sql("select category, note from tickets order by id")

    @property
    def sizes(self) -> list[int]:
        return [len(create.custom_ids) for create in self.hosted.creates]


@pytest.fixture
def desk(folder: Folder) -> Iterator[Desk]:
    found: list[Desk] = []
    with HostedApi(lambda custom_id, params: found[0].answer(params)) as hosted:
        found.append(Desk(folder, hosted))
        yield found[0]


# --- money ----------------------------------------------------------------------------------------------------------


def test_batches_that_a_budget_does_not_cover_are_held_and_sent_on_the_next_night(desk: Desk) -> None:
    """A request is likely to cost about 52 tokens in and 50 out at $0.50 and $2.50 a million: $0.00015."""
    desk.given(6, "[batch]\nmax_requests = 2\n[limits]\nbudget_usd = 0.0007\n")
    assert desk.run().code == FAILED_ROWS
    assert desk.sizes == [2, 2]
    assert desk.answers[4:] == [(None, None)] * 2
    assert desk.run().code == DONE
    assert desk.sizes == [2, 2, 2]
    assert desk.answers == [("billing", None)] * 6


def test_a_budget_for_a_model_without_a_price_sends_nothing(desk: Desk) -> None:
    desk.given(1, "[limits]\nbudget_usd = 1.0\n")
    job = desk.folder.home / "job.toml"
    job.write_text(job.read_text().replace("claude-haiku-4-5", "our-own-model"))
    with pytest.raises(NotSpent, match="nobody knows what our-own-model costs"):
        desk.run()
    assert desk.sizes == []


def test_the_first_row_of_a_new_job_is_asked_alone_and_stops_it_if_it_fails(desk: Desk) -> None:
    desk.given(100)
    desk.answer = lambda params: text("I cannot say")
    with pytest.raises(NotSpent, match=r"is invalid: 'I cannot say' is none of billing.*other 99 were not sent"):
        desk.run()
    assert (desk.sizes, len(desk.hosted.realtime)) == ([], 1)
    desk.answer = lambda params: text("billing")
    assert desk.run().code == DONE
    assert (desk.sizes, len(desk.hosted.realtime)) == ([99], 2)
    assert desk.answers == [("billing", None)] * 100


def test_few_rows_are_asked_in_real_time(desk: Desk) -> None:
    desk.given(3, "[batch]\nmin_batch = 5\n")
    assert desk.run().code == DONE
    assert (desk.sizes, len(desk.hosted.realtime)) == ([], 3)
    assert desk.answers == [("billing", None)] * 3


def test_an_account_without_credit_pauses_a_run_and_the_next_start_goes_on(desk: Desk) -> None:
    desk.given(2)
    desk.hosted.next_create("billing")
    with pytest.raises(NotSpent, match="credit balance is too low"):
        desk.run()
    assert desk.folder.ledger("select state from items") == [("planned",)] * 2
    assert desk.run().code == DONE
    assert desk.sizes == [2]


def test_rows_that_failed_for_want_of_credit_are_sent_when_there_is_some(desk: Desk) -> None:
    desk.given(2)
    poor = failed("invalid_request_error", "Your credit balance is too low to access the API.")
    desk.answer = lambda params: poor if said(params) == "1" else text("billing")
    with pytest.raises(NotSpent, match="credit balance is too low"):
        desk.run()
    desk.answer = lambda params: text("billing")
    assert desk.run().code == DONE
    assert desk.sizes == [2, 1]
    assert desk.answers == [("billing", None)] * 2


# --- asked again ----------------------------------------------------------------------------------------------------


def test_an_answer_that_was_cut_is_asked_again_with_twice_the_room_and_no_more(desk: Desk) -> None:
    desk.given(2)
    desk.answer = lambda params: text("bil", stop_reason="max_tokens") if said(params) == "1" else text("billing")
    assert desk.run().code == FAILED_ROWS
    assert [[params["max_tokens"] for params in create.params] for create in desk.hosted.creates] == [[50, 50], [100]]
    assert desk.answers == [("billing", None), (None, "truncated")]


def test_an_invalid_answer_is_asked_again_with_what_was_wrong_and_no_more(desk: Desk) -> None:
    desk.given(1)
    desk.answer = lambda params: text("billing" if len(params["messages"]) == 3 else "invoices")
    assert desk.run().code == DONE
    first, second = (create.params[0]["messages"] for create in desk.hosted.creates)
    assert second[:2] == [*first, {"role": "assistant", "content": "invoices"}]
    assert "'invoices' is none of billing, technical" in second[2]["content"]
    assert desk.answers == [("billing", None)]


def test_equal_requests_are_sent_once_and_all_their_rows_are_answered(desk: Desk) -> None:
    desk.given(6, body=lambda n: f"ticket {n % 2}")
    printed = desk.run()
    assert desk.sizes == [2]
    assert "Submitted 6 tickets" in printed.lines
    assert desk.answers == [("billing", None)] * 6


def test_a_failure_of_equal_requests_is_every_rows_failure_only_at_the_end(desk: Desk) -> None:
    desk.given(2, body=lambda n: "the same")
    tries = iter([failed("overloaded_error", "busy"), text("technical")])
    desk.answer = lambda params: next(tries)
    assert desk.run().code == DONE
    assert desk.answers == [("technical", None)] * 2


def test_what_failed_for_good_is_left_alone_until_it_changes(desk: Desk) -> None:
    desk.given(2)
    desk.answer = lambda params: failed("invalid_request_error", "no") if said(params) == "1" else text("billing")
    assert desk.run().code == FAILED_ROWS
    assert desk.run().lines == [
        "No tickets to do",
        "1 tickets failed before and have not changed; --rerun asks them again",
    ]
    desk.folder.sql("update tickets set body = 'better' where id = 1")
    assert desk.run().code == DONE
    assert desk.sizes == [2, 1]


def test_rerun_asks_what_failed_for_good(desk: Desk) -> None:
    desk.given(1)
    desk.answer = lambda params: failed("invalid_request_error", "no")
    desk.run()
    desk.answer = lambda params: text("billing")
    assert desk.run(anew=True).code == DONE
    assert desk.answers == [("billing", "errored")]


# --- deadlines ------------------------------------------------------------------------------------------------------


def deadline(desk: Desk, settings: str) -> Any:
    desk.given(3, f'[limits]\ndeadline = "06:00"\nreserve_minutes = 30\n{settings}')
    desk.hosted.progress(1)
    desk.hosted.hold()
    time = Time(now_ms=EVENING_MS)
    return desk.run(time=time), time


def test_at_the_deadline_batches_are_cancelled_and_what_they_answered_is_kept(desk: Desk) -> None:
    printed, time = deadline(desk, "")
    assert printed.code == FAILED_ROWS
    assert sorted(desk.answers, key=str) == [("billing", None), (None, "canceled"), (None, "canceled")]
    assert time.now_ms() - EVENING_MS < 24 * 3_600_000
    assert desk.hosted.realtime == []


def test_the_rest_is_asked_in_real_time_and_no_row_twice(desk: Desk) -> None:
    printed, _ = deadline(desk, 'fallback = "realtime"\n')
    assert printed.code == DONE
    assert desk.answers == [("billing", None)] * 3
    assert len(desk.hosted.realtime) == 2


def test_the_rest_is_held_where_the_money_for_it_ends(desk: Desk) -> None:
    desk.hosted.usage(100, 10)  # $0.00015 in real time; before it is asked, a row is likely to cost $0.0001.
    printed, _ = deadline(desk, 'fallback = "realtime"\nfallback_usd = 0.0002\n')
    assert printed.code == FAILED_ROWS
    assert len(desk.hosted.realtime) == 1
    assert sorted(desk.answers, key=str) == [("billing", None), ("billing", None), (None, None)]


# --- nobody knows ---------------------------------------------------------------------------------------------------


def test_a_batch_of_somebody_else_that_was_taken_for_ours_gives_its_rows_back(desk: Desk) -> None:
    """The create never arrived, and another program made a batch of as many requests in the same minute."""
    desk.given(1)
    desk.hosted.next_create("500-nothing")
    time = Time(on_wait=lambda seconds: stranger(desk) if not desk.hosted.batches else None)
    assert desk.run(time=time).code == DONE
    assert desk.sizes == [1, 1]
    assert desk.answers == [("billing", None)]


def stranger(desk: Desk) -> None:
    from anthropic import Anthropic

    params = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "theirs"}]}
    client = Anthropic(base_url=desk.hosted.url, api_key=desk.hosted.key)
    client.messages.batches.create(requests=[{"custom_id": "theirs", "params": params}])  # type: ignore[typeddict-item]


def test_a_person_may_have_to_say_what_is_to_happen(desk: Desk) -> None:
    desk.given(1, '[batch]\non_unknown = "stop"\n')
    desk.hosted.next_create("lost")
    with pytest.raises(ServerTrouble, match="--adopt BATCH"):
        desk.run()
    job, time = Job.load(desk.folder.home / "job.toml"), Time()
    with night_of(
        job,
        environment={"HOME": str(desk.folder.home), **desk.environment},
        listener=tell.as_json(lambda line: None),
        world=World(clock=time, pause=time),
        adopted=desk.hosted.batches[0].id,
    ) as night:
        night.submit()
    assert desk.run().code == DONE
    assert desk.sizes == [1]


def test_a_night_goes_on_when_nobody_reads_what_it_prints(desk: Desk) -> None:
    desk.given(2, "[batch]\npoll = 0.01\n")
    process = desk.folder.started(desk.environment, "run", "job.toml")
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (DONE, "")
    assert desk.answers == [("billing", None)] * 2


def test_a_cancelled_row_is_not_asked_again(desk: Desk) -> None:
    desk.given(2)
    desk.answer = lambda params: canceled() if said(params) == "1" else text("billing")
    assert desk.run().code == FAILED_ROWS
    assert desk.sizes == [2]
    assert desk.answers == [("billing", None), (None, "canceled")]
