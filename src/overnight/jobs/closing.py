"""The end of a run: its counts must balance, then it is reported, and everybody is told once."""

from collections.abc import Iterator
from decimal import Decimal

from sqlalchemy import insert, select, update

from overnight.errors import ServerTrouble, StoreError
from overnight.jobs import batches, budget, notify, runs, writing
from overnight.jobs.adopt import instant_ms
from overnight.jobs.cost import per_year
from overnight.jobs.job import Job
from overnight.jobs.ledger import Ledger
from overnight.jobs.notify import Message
from overnight.jobs.report import Summary, report
from overnight.jobs.tables import notices
from overnight.jobs.work import Work


def balance(work: Work, run_id: str) -> None:
    """Close the books of a run: every row has exactly one final state, and its cost is known. StoreError if not."""
    with work.begin() as connection:
        run = runs.row_of(connection, run_id)
        counts = runs.counts(connection, run_id)
        open_rows = counts["planned"] + counts["submitted"]
        if counts.total() != run.rows or open_rows:
            raise StoreError(
                f"run {run_id} does not balance: {run.rows} rows, and {dict(counts)}; look into {work.ledger.where}"
            )
        cost = budget.cost_so_far(connection, run_id, budget.rate(work))
        runs.change(
            connection,
            run_id,
            status="reporting",
            ended_at=work.instant,
            cost_known=int(cost.batch is not None),
            cost_usd=float(cost.batch or 0),
            realtime_usd=float(cost.realtime or 0),
        )


def cost_usd(work: Work, run_id: str) -> Decimal | None:
    """What a run has cost until now; None if nobody knows the price."""
    with work.begin() as connection:
        return budget.cost_so_far(connection, run_id, budget.rate(work)).batch


def summary(work: Work, run_id: str) -> Summary:
    """As `summary_of`, of the job at work."""
    return summary_of(work.job, work.ledger, run_id)


def summary_of(job: Job, ledger: Ledger, run_id: str) -> Summary:
    """A run in figures. Complete once it has balanced; before that, as far as it is known."""
    with ledger.begin() as connection:
        run = runs.row_of(connection, run_id)
        used = runs.tokens(connection, run_id).values()
        known = bool(run.cost_known)
        return Summary(
            job=run.job,
            noun=job.settings.noun,
            run=run_id,
            rows=run.rows,
            counts=runs.counts(connection, run_id),
            skipped_in_flight=run.skipped_in_flight,
            skipped_failed=run.skipped_failed,
            errors=runs.common_errors(connection, run_id),
            batch_usd=Decimal(str(run.cost_usd)) if known else None,
            realtime_usd=Decimal(str(run.realtime_usd)) if known else None,
            month_usd=budget.month_cost(connection, run.job, run.created_at[:7]) if known else None,
            year_usd=per_year(Decimal(str(run.cost_usd))) if known else None,
            cache_read_tokens=sum(tokens[2] for tokens in used),
            cache_write_tokens=sum(tokens[3] for tokens in used),
            batches=[batch.batch_id for batch in batches.of_run(connection, run_id) if batch.batch_id],
            duration_s=(instant_ms(run.ended_at or run.created_at) - instant_ms(run.created_at)) / 1000,
        )


def lines(work: Work, run_id: str) -> Iterator[str]:
    """The report of a run."""
    return report(work.job.settings.report, summary(work, run_id), writing.all_answers(work, run_id))


def notify_all(work: Work, run_id: str) -> None:
    """Tell everybody who has not been told. ServerTrouble if an address refused: the same call tries it again.

    The intent to send is written first: if the process ends in between, nobody knows whether the message went out,
    and it is not sent twice.
    """
    found = notify.messages(
        work.job.settings.notify,
        summary(work, run_id),
        lambda: writing.all_answers(work, run_id),
        work.job.settings.report,
    )
    with work.begin() as connection:
        rows = connection.execute(select(notices).where(notices.c.run_id == run_id))
        known = {(row.block, row.address): row.status for row in rows}
    troubles = []
    for message in found:
        for at, url in enumerate(message.urls):
            status = known.get((message.block, at))
            if status == "sending":
                what = f"message {message.block + 1} to address {at + 1}"
                work.tell("note", run_id, text=f"nobody knows whether {what} was delivered; it is not sent again")
            elif status is None and (trouble := _sent_once(work, run_id, at, message._replace(urls=(url,)))):
                troubles.append(trouble)
    if troubles:
        raise ServerTrouble("; ".join(troubles))


def _sent_once(work: Work, run_id: str, address: int, message: Message) -> str:
    """Send one message; what went wrong, if something did."""
    mine = (notices.c.run_id == run_id) & (notices.c.block == message.block) & (notices.c.address == address)
    with work.begin() as connection:
        connection.execute(
            insert(notices).values(
                run_id=run_id, block=message.block, address=address, status="sending", at=work.instant
            )
        )
    work.reach("job.notice-intended")
    try:
        notify.send(message, work.environment)
    except ServerTrouble as error:
        with work.begin() as connection:
            connection.execute(notices.delete().where(mine))
        return str(error)
    work.reach("job.notice-sent")
    with work.begin() as connection:
        connection.execute(update(notices).where(mine).values(status="sent"))
    return ""
