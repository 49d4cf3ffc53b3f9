"""A process that hands one batch over, or finishes what an earlier one began, and prints the results as JSON.

`python handoff_process.py DATA UPSTREAM-URL`; where it dies comes from the environment (`testing.crashpoint`).
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from overnight.testing.crashpoint import CrashingFiles, CrashingMarks, change_limits

COUNT, BATCH_REQUESTS = 50, 20


def params(text: str) -> dict[str, object]:
    return {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": text}]}


async def main(data: Path, url: str) -> None:
    from overnight.engines.claudebatch import ClaudeBatch  # After the limits were changed.
    from overnight.ids import DEFAULT_WORKSPACE
    from overnight.ports.world import World
    from overnight.store.store import open_directory
    from overnight.testing.handingover import Night
    from overnight.testing.hosted import HostedApi

    marks = CrashingMarks(
        crash_at=os.environ.get("OVERNIGHT_CRASH_AT", ""), log=os.environ.get("OVERNIGHT_MARKS_LOG", "")
    )
    world = World(marks=marks, files=CrashingFiles(marks, full_flag=""))
    engine = ClaudeBatch(url, api_key=HostedApi.key, requests_max=BATCH_REQUESTS)
    async with open_directory(data, world) as store:
        night = Night(store, engine, world)
        async with night.working():
            page = await store.control.page(DEFAULT_WORKSPACE, limit=1)
            assert page is not None
            if page.batches:
                batch = page.batches[0]
            else:
                batch = await night.create([(f"r{index}", params(f"r{index}")) for index in range(COUNT)])
            await night.until_ended(batch)
            await night.until_nothing_is_left()
            print(json.dumps(await night.results(batch)))
    await engine.close()
    world.offload.close()


if __name__ == "__main__":
    change_limits(os.environ.get("OVERNIGHT_LIMITS", ""))
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
