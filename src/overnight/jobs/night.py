"""A night of a job: plan, send, wait, collect, write, ask again, report. The same call goes on where it stopped."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from overnight import limits
from overnight.errors import NotSpent
from overnight.ids import ID_ENTROPY_BYTES, drawn
from overnight.jobs import again, batches, closing, late, realtime, runs, writing
from overnight.jobs.budget import Budget, size_of
from overnight.jobs.collect import collect
from overnight.jobs.deadline import instant_before
from overnight.jobs.look import look, next_wait_s
from overnight.jobs.plan import Planned, Planner
from overnight.jobs.send import send
from overnight.jobs.sink import Sink
from overnight.jobs.work import Work
from overnight.wire.batch import rfc3339

_NO_MARKS = {ord(mark): "" for mark in "-:"}


class Waiting(NamedTuple):
    """How long to wait for batches: until an instant (ms since the epoch), forever (None); 0 is one look."""

    until_ms: int | None


@dataclass
class Night:
    """Everything that one process does for one job, under its lock."""

    work: Work
    anew: bool = False
    _sinks: dict[str, Sink | None] = field(default_factory=dict)

    def unfinished(self) -> list[str]:
        """Runs that were begun and have not ended, oldest first."""
        with self.work.begin() as connection:
            found = runs.unfinished(connection, self.work.job.settings.name)
            for run_id in found:
                realtime.forget_unknown(connection, run_id)
            open_runs = runs.open_runs(connection, self.work.job.settings.name)
            waiting = [
                batch for run_id in found for batch in batches.of_run(connection, run_id, "submitted", "ended")
            ]
        for batch in waiting:
            self.work.tell("resuming", batch.run_id, id=batch.batch_id, requests=batch.total_requests)
        self._warn_of_changes(found)
        for run_id in open_runs:  # There may be credit by now.
            again.plan_again(self.work, run_id, unpaid=True)
        return found

    def _warn_of_changes(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            with self.work.begin() as connection:
                shape = runs.row_of(connection, run_id).shape
            if shape != self.work.job.shape_digest():
                text = f"the job file has changed since run {run_id} began; its requests stay as they were"
                self.work.tell("note", run_id, text=text)

    def submit(self) -> str | None:
        """Go on with what is unfinished until it is at the server, then plan and send what is new.

        The newest run that has something to wait for; None if there is nothing to do.
        """
        begun = self.unfinished()
        for run_id in begun:
            self.send(run_id)
        planned = self.plan(is_quiet=bool(begun))
        if planned is not None:
            self.work.tell("submitted", planned, rows=self.send(planned))
        return planned or (begun[-1] if begun else None)

    def plan(self, *, is_quiet: bool = False) -> str | None:
        """A new run over the source; None if there is nothing to do. JobError, NotSpent: nothing was sent."""
        work, settings = self.work, self.work.job.settings
        now = work.now_ms
        run_id = (
            f"run_{rfc3339(now)[:19].translate(_NO_MARKS)}_{drawn(work.world.entropy.bytes(ID_ENTROPY_BYTES))[:8]}"
        )
        days = settings.cache.days if settings.cache else 0
        planner = Planner(
            work.job,
            work.ledger,
            run_id,
            rfc3339(now),
            since=instant_before(now, days=settings.ledger.keep_days),
            cached_since=instant_before(now, days=days) if days else None,
            anew=self.anew,
            drop_known=self._is_complete_without(),
        )
        planned = planner.plan(
            work.job.source_rows(work.environment),
            endpoint=work.server.address.base_url,
            reach=work.reach,
            check=self._check_sink,
        )
        self._tell_planned(planned, is_nothing=planned.is_nothing(drop_known=planner.drop_known), is_quiet=is_quiet)
        if planned.is_nothing(drop_known=planner.drop_known):
            return None
        work.reach("job.planned")
        self._first_row(run_id, planned)
        return run_id

    def _is_complete_without(self) -> bool:
        """Whether a run that sends nothing would change nothing: nobody waits for its rows, and its file is there."""
        file = self.work.job.settings.sink.file
        return self.work.job.rows is None and (not file or (self.work.job.home / file).exists())

    def _check_sink(self, columns: Iterable[str]) -> None:
        """A statement that names what no answer has is found before anything is spent."""
        writing.sink_of(self.work.job, columns, self.work.environment)

    def _tell_planned(self, planned: Planned, *, is_nothing: bool, is_quiet: bool) -> None:
        """`is_quiet`: there was something to do in an earlier run, so that nothing new is no news."""
        if is_nothing:
            if not is_quiet:
                self.work.tell("nothing")
        else:
            self.work.tell("found", rows=planned.rows)
        for count, why in (
            (planned.skipped_in_flight, "are in an unfinished run"),
            (planned.skipped_failed, "failed before and have not changed; --rerun asks them again"),
            (planned.skipped_done + planned.reused, "are known from before"),
        ):
            if count:
                self.work.tell("note", text=f"{count} {self.work.job.settings.noun} {why}")

    def _first_row(self, run_id: str, planned: Planned) -> None:
        """Few rows are asked in real time; of many, whose requests look new, the first: it must be answered well."""
        work, name = self.work, self.work.job.settings.name
        with work.begin() as connection:
            positions = realtime.planned(connection, run_id)
            is_new = not runs.has_succeeded(connection, name, work.job.shape_digest())
        if planned.to_send < work.job.settings.batch.min_batch:
            late.ask_all(work, run_id, positions, Budget(work, run_id, work.job.settings.limits.budget_usd))
        elif is_new and planned.is_rendered and planned.to_send >= limits.JOB_PREFLIGHT_ROWS:
            [reading] = realtime.ask(work, run_id, positions[:1])
            if reading.state != "succeeded":
                with work.begin() as connection:
                    runs.remove(connection, run_id)
                raise NotSpent(
                    f"the first row was asked alone, since this job is new or has changed, and is {reading.state}: "
                    f"{reading.error}. The other {planned.to_send - 1} were not sent"
                )

    def send(self, run_id: str, *, is_late: bool = False) -> int:
        """Everything that is planned; how many rows of the run have been sent, those that ask the same too.

        `is_late`: only what was begun, of which nobody knows yet whether it is at the server.
        """
        work, wanted = self.work, ("submitting",) if is_late else ("planned", "submitting")
        budget = Budget(work, run_id, work.job.settings.limits.budget_usd)
        with work.begin() as connection:
            queue = [batch.id for batch in batches.of_run(connection, run_id, *wanted)]
        while queue:
            batch_job = queue.pop(0)
            with work.begin() as connection:
                batch = batches.row_of(connection, batch_job)
                size, requests = size_of(connection, batch_job)
                if batch.status == "planned" and requests == 0:
                    batches.change(connection, batch_job, status="replaced")
                    continue
                if batch.status == "planned" and not budget.allows(connection, size, requests):
                    batches.change(connection, batch_job, status="held")
                    batches.set_state(connection, batch_job, "held", of=("planned",), error="the budget is spent")
                    continue
            queue[:0] = send(work, batch_job)
        with work.begin() as connection:
            return runs.sent_rows(connection, run_id)

    def finish(self, run_id: str, waiting: Waiting) -> bool:
        """Go on with a run until it has ended and everybody is told; False if time is up before that."""
        with self.work.begin() as connection:
            is_open = runs.row_of(connection, run_id).status == "open"
        if is_open:
            if not self._answered(run_id, waiting):
                return False
            self._take_answers(run_id, is_final=True)
            closing.balance(self.work, run_id)
        self._tell_end(run_id)
        return True

    def _answered(self, run_id: str, waiting: Waiting) -> bool:
        """Whether every row has its last answer; False if time is up before."""
        while True:
            self.send(run_id, is_late=late.is_late(self.work, run_id))
            if not self._wait(run_id, waiting):
                return False
            self._take_answers(run_id, is_final=False)
            self._stop_without_credit(run_id)
            if late.is_late(self.work, run_id):
                late.ask_rest(self.work, run_id)
                return True
            if not again.plan_again(self.work, run_id):
                return True

    def _take_answers(self, run_id: str, *, is_final: bool) -> None:
        with self.work.begin() as connection:
            runs.copy_answers(connection, run_id, is_final=is_final)
            if run_id not in self._sinks:
                columns = self.work.columns.of(connection, run_id, 0, 0)
                self._sinks[run_id] = writing.sink_of(self.work.job, columns, self.work.environment)
        writing.write(self.work, run_id, self._sinks[run_id], is_final=is_final)
        if is_final:
            writing.write_file(self.work, run_id)

    def _stop_without_credit(self, run_id: str) -> None:
        reasons = again.paused(self.work, run_id)
        if reasons:
            raise NotSpent(f"{'; '.join(reasons)}. Run the job again when the account has credit: nothing is lost")

    def _tell_end(self, run_id: str) -> None:
        found = closing.summary(self.work, run_id)
        self.work.tell("collected", run_id, succeeded=found.succeeded, failed=found.failed, rows=found.rows)
        closing.notify_all(self.work, run_id)
        self.work.reach("job.reported")
        with self.work.begin() as connection:
            runs.change(connection, run_id, status="ended")

    def _wait(self, run_id: str, waiting: Waiting) -> bool:
        """Look, and collect what has ended, until nothing is left; False if time is up."""
        work, settings = self.work, self.work.job.settings
        seconds, is_first = 0.0, True
        give_up = late.since_ms(work, run_id)
        while True:
            left, busy_s = look(work, run_id, is_first=is_first)
            is_first = False
            self._collect(run_id)
            if left == 0:
                return True
            now = work.now_ms
            if give_up is not None and now >= give_up:
                late.cancel(work, run_id)
                give_up = None
            if waiting.until_ms is not None and now >= waiting.until_ms:
                return False
            seconds = next_wait_s(seconds, fixed=settings.batch.poll, uniform=work.world.entropy.uniform())
            bounds = [(at - now) / 1000 for at in (waiting.until_ms, give_up) if at is not None]
            work.wait(max(0.0, min([max(seconds, busy_s), *bounds])))

    def _collect(self, run_id: str) -> None:
        with self.work.begin() as connection:
            ended = batches.of_run(connection, run_id, "ended")
        for batch in ended:
            collect(self.work, batch.id)
            self._take_answers(run_id, is_final=False)
        if ended:  # Once for all of them: it adds up every row of the run.
            self.work.tell("cost", run_id, usd=closing.cost_usd(self.work, run_id))
