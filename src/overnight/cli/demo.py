"""`overnight demo`."""

import click


@click.command()
def demo() -> None:
    """Placeholder until the engines are in."""
    raise click.ClickException("soon")
