"""Chunks as they come become the server-sent events of an interactive answer."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

from overnight.core.retry import Broken, Busy, Refused
from overnight.engines import answer
from overnight.engines.answer import Tier
from overnight.engines.chat import Plan
from overnight.engines.completion import Chunk, Completion, Reading
from overnight.engines.interactive import api_error
from overnight.ports.entropy import Entropy
from overnight.wire import problem

Trouble: TypeAlias = Refused | Busy | Broken


async def events(
    chunks: AsyncGenerator[Chunk | Trouble, None], plan: Plan, *, tier: Tier, name: str, entropy: Entropy
) -> AsyncGenerator[bytes, None]:
    """The events of `chunks`, which end with a trouble if there is one; `name` is the engine's.

    Raises and ends as `engine.Engine.stream` says. Closing it closes `chunks`.
    """
    reading, said = Reading(plan), answer.Events(plan, tier=tier, entropy=entropy)
    trouble: Trouble | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            if not isinstance(chunk, Chunk):
                trouble = chunk
                break
            reading.take(chunk)
            if reading.failure is None and (piece := said.take(chunk)):
                yield piece
    end = trouble or reading.outcome()
    if isinstance(end, Completion):
        yield said.finish(end)
        return
    error = api_error(end, name=name)
    if not said.has_begun:
        raise error
    yield answer.error_event(problem.encode(error.type, str(error), request_id=None))
