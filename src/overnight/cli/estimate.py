"""`overnight estimate`."""

import os
from pathlib import Path

import click

from overnight.cli.joboptions import DONE, ends_with_code, loaded
from overnight.jobs.cost import money
from overnight.jobs.estimate import Estimate, Scenario, by_scenario, by_volume, compare, table
from overnight.jobs.foresee import foresee, try_out
from overnight.jobs.job import Job
from overnight.jobs.jobfile import Currency
from overnight.jobs.prices import rate_at
from overnight.jobs.runs import encode
from overnight.ports.world import World


@click.command(
    epilog="""\b
Examples:
  overnight estimate tickets.toml                     rows, batches, tokens, and what they cost
  overnight estimate tickets.toml --try 3             … after three rows were asked in real time, which is paid
  overnight estimate tickets.toml --models claude-haiku-4-5,claude-sonnet-4-5
  overnight estimate tickets.toml --table             what 10,000, 100,000 and a million such rows cost
  overnight estimate tickets.toml invoices.toml       jobs beside each other
"""
)
@click.argument(
    "jobs", metavar="JOB.toml...", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False)
)
@click.option(
    "--try", "tried", type=click.IntRange(1, 20), help="Ask this many rows in real time first, and show them."
)
@click.option("--models", metavar="A,B", help="Compare models.")
@click.option("--table", "as_table", is_flag=True, help="By volume.")
@click.option("--json", "is_json", is_flag=True, help="JSON instead of text.")
@ends_with_code
def estimate(jobs: tuple[Path, ...], tried: int | None, models: str | None, as_table: bool, is_json: bool) -> int:
    """What a run would be and cost now. Reads the source; sends nothing unless told to try. Several jobs: a table."""
    world = World()
    if len(jobs) > 1:
        click.echo(table(by_scenario(_scenario(loaded(job), world) for job in jobs)))
        return DONE
    plan = loaded(jobs[0])
    answers = try_out(plan, tried, environment=os.environ) if tried else []
    for row in answers:
        click.echo(f"{row.custom_id}: {row.text or row.error}")
    found = foresee(plan, environment=os.environ, world=world, outputs=[row.output_tokens for row in answers])
    now = world.clock.now_ms()
    if is_json:
        click.echo(encode({name: _number(value) for name, value in found._asdict().items()}))
    elif models:
        rates = {name: rate_at(plan.settings, now, name) for name in models.split(",")}
        click.echo(table(compare(found.tokens, rates), plan.settings.report.currency))
    elif as_table:
        rate = rate_at(plan.settings, now)
        click.echo(table(by_volume(found.tokens, rate, rows=max(1, found.rows)), plan.settings.report.currency))
    else:
        _print(plan, found)
    return DONE


def _scenario(plan: Job, world: World) -> Scenario:
    found = foresee(plan, environment=os.environ, world=world)
    return Scenario(plan.settings.name, found.rows, found.tokens, rate_at(plan.settings, world.clock.now_ms()))


def _number(value: object) -> object:
    return value if value is None or isinstance(value, int) else float(str(value))


def _print(job: Job, found: Estimate) -> None:
    settings = job.settings
    click.echo(f"{found.rows:,} {settings.noun} in {found.batches:,} batches, {found.bytes:,} bytes")
    click.echo(f"Input:  about {found.input_tokens:,} tokens")
    click.echo(f"Output: about {found.output_likely:,} tokens, {found.output_low:,} to {found.output_high:,}")
    if found.usd_likely is None:
        click.echo(f'Cost:   unknown; set [prices."{settings.model}"] input and output')
        return
    currency = settings.report.currency
    click.echo(f"Cost:   {_both(found, currency)}")
    budget = settings.limits.budget_usd
    if budget is not None:
        is_over = float(found.usd_likely) > budget
        click.echo(f"Budget: ${budget:g}, which is {'not enough: the rest is held' if is_over else 'enough'}")


def _both(found: Estimate, currency: Currency | None) -> str:
    assert found.usd_likely is not None
    assert found.usd_low is not None
    assert found.usd_high is not None
    assert found.usd_realtime is not None
    shown = [money(usd, currency) for usd in (found.usd_likely, found.usd_low, found.usd_high, found.usd_realtime)]
    return f"about {shown[0]} in batches, {shown[1]} to {shown[2]}; {shown[3]} in real time"
