"""The progress panel of a terminal."""

import time
from collections.abc import Callable

from rich.console import Console

from overnight.jobs.panel import Panel


def panel(job: str, noun: str) -> tuple[Callable[[str], None], Panel]:
    """How to print a line above a panel on stdout, and the panel."""
    console = Console(highlight=False, markup=False)
    return console.print, Panel(job, noun, console=console, now_s=time.monotonic)
