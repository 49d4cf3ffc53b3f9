"""`overnight serve`."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click
import uvloop

from overnight.cli.settings import settings_from, settings_options
from overnight.core import offpeak
from overnight.ports.world import World
from overnight.server import logs
from overnight.server.config import Settings
from overnight.server.serve import serve as serve_forever
from overnight.server.traces import tracer_from


@click.command(
    epilog="""\b
Examples:
  overnight serve
  overnight serve --engine http://127.0.0.1:8000 --data /var/lib/overnight
  overnight serve --engine models/qwen3-8b.gguf --listen 127.0.0.1:9000
  OVERNIGHT_API_KEY=secret overnight serve --listen 0.0.0.0:8642 --public-url https://batches.example.com
"""
)
@settings_options
def serve(file: Path | None, **flags: Any) -> None:
    """Start a server: the Message Batches API, durable, on the engines you name.

    With nothing configured it listens on 127.0.0.1:8642, keeps its data in ./overnight-data and answers every
    claude-* model with a small model of its own. SIGTERM or Ctrl-C finishes what is in flight and exits; nothing that
    was accepted is lost, whatever way it ends.
    """
    run(settings_from(file, flags).settings, World(tracer=tracer_from(os.environ)))


def run(settings: Settings, world: World) -> None:
    """Serve in this process until a signal."""
    logs.set_up(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_forever(settings, world, on_ready=lambda url: _announce(url, settings, world)))


def _announce(url: str, settings: Settings, world: World) -> None:
    engines = ", ".join(engine.spec for engine in settings.engines)
    click.echo(f"overnight is ready on {url} (engines: {engines}; data: {Path(settings.data).absolute()})")
    for engine in settings.engines:
        if engine.hours:
            hours = offpeak.parse(engine.hours, engine.time_zone)
            click.echo(f"engine {engine.spec} {offpeak.shown(hours, world.clock.now_ms())}")
    if [engine.spec for engine in settings.engines] == ["embedded"]:
        click.echo(
            "The embedded model answers every claude-* name. It is very small: good for trying things out, "
            "not for real answers. Use --engine for those."
        )
