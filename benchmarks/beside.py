"""How long people wait for their first token beside a batch on the embedded engine, and what that costs the batch.

A real server in a process of its own. People come at random (Poisson, from the seed), send a short request to POST
/v1/messages and read the stream; the batch is long prompts with one-word answers. In each round, in turn: people
alone, the batch alone, both under our rules (`core.beside`), and both without them: the same server, to which nobody
ever seems to be there, so that the batch keeps its window. One slot of the engine is people's either way.

Judged by medians over rounds of ratios within a round; a p99 wants `--seconds` times `--per-s` of a few hundred.

    python benchmarks/beside.py [--seconds 20] [--per-s 2] [--rounds 5]
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

import embedded
import measure
import prose
from overnight.core import beside
from overnight.testing.processes import ServerProcess

P99_RATIO_MAX = 1.5  # Of people alone,
BATCH_SHARE_MIN = 0.5  # while the batch keeps so much of what it does without our rules.
_HEADERS = {"anthropic-version": "2023-06-01", "x-api-key": "any"}
_MODEL = "overnight-tiny"
_PROMPT_BYTES = 550  # About 400 tokens.
_BATCH_PER_S = 60  # More than the engine can do: the batch must not end before its phase.
_PAUSE_S = 0.05


class Seen(NamedTuple):
    """Of one phase."""

    ttft_ms: list[float]
    batch_per_s: float


def batch(requests: int, seed: int) -> bytes:
    """A create body whose prompts share nothing."""
    text = prose.Prose(seed, corpus_bytes=200_000)
    entries = [
        {"custom_id": str(number), "params": _params(f"{number}. {text.passage(_PROMPT_BYTES)}")}
        for number in range(requests)
    ]
    return json.dumps({"requests": entries}).encode()


def _params(content: str) -> dict[str, Any]:
    return {"model": _MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": content}]}


async def first_token_ms(session: aiohttp.ClientSession, body: bytes) -> float:
    """From the sending to the first text, as the client sees it. The stream is read to its end."""
    begun_s, first_ms = time.perf_counter(), None
    async with session.post("/v1/messages", data=body, headers={"content-type": "application/json"}) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if first_ms is None and line.startswith(b"event: content_block_delta"):
                first_ms = (time.perf_counter() - begun_s) * 1000
    assert first_ms is not None, "an answer has text"
    return first_ms


async def people(session: aiohttp.ClientSession, per_s: float, seconds: float, dice: random.Random) -> list[float]:
    """All who come within so many seconds, whenever they are done."""
    tasks, loop = [], asyncio.get_running_loop()
    end_s = loop.time() + seconds
    while True:
        pause_s = dice.expovariate(per_s)
        if loop.time() + pause_s >= end_s:
            break
        await asyncio.sleep(pause_s)
        thing = dice.choice(embedded.THINGS)
        params = _params(f"The {thing} of order {dice.randrange(10**6)} broke.")
        body = json.dumps(params | {"system": embedded.REVIEW, "stream": True}).encode()
        tasks.append(asyncio.create_task(first_token_ms(session, body)))
    await asyncio.sleep(max(0.0, end_s - loop.time()))
    return await asyncio.gather(*tasks)


async def counts(session: aiohttp.ClientSession, path: str) -> tuple[str, int]:
    """The status of a batch, and how many of its requests are done."""
    async with session.get(path) as response:
        shown = await response.json()
    assert shown["request_counts"]["errored"] == 0, shown
    return shown["processing_status"], shown["request_counts"]["succeeded"]


@asynccontextmanager
async def working(session: aiohttp.ClientSession, body: bytes) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """A batch that is worked on; gives how to ask what is done of it. Canceled in the end, and waited for."""
    async with session.post("/v1/messages/batches", data=body) as response:
        assert response.status == 200, await response.text()
        path = f"/v1/messages/batches/{(await response.json())['id']}"
    while (await counts(session, path))[1] == 0:  # noqa: ASYNC110  A server is asked, over HTTP.
        await asyncio.sleep(_PAUSE_S)

    async def done() -> int:
        status, succeeded = await counts(session, path)
        assert status == "in_progress", "the batch is too small for this machine"
        return succeeded

    yield done
    async with session.post(f"{path}/cancel") as response:
        assert response.status == 200, await response.text()
    while (await counts(session, path))[0] != "ended":  # noqa: ASYNC110  As above.
        await asyncio.sleep(_PAUSE_S)


async def phase(url: str, per_s: float, seconds: float, dice: random.Random, body: bytes | None) -> Seen:
    """People who come `per_s` (0: nobody) beside a batch (None: no batch)."""

    async def came() -> list[float]:
        if per_s:
            return await people(session, per_s, seconds, dice)
        await asyncio.sleep(seconds)
        return []

    async with aiohttp.ClientSession(url, headers=_HEADERS) as session:
        if body is None:
            return Seen(await came(), 0.0)
        async with working(session, body) as done:
            begun_s, before = time.perf_counter(), await done()
            ttft_ms = await came()
            return Seen(ttft_ms, (await done() - before) / (time.perf_counter() - begun_s))


def one_round(ours: str, flood: str, per_s: float, seconds: float, seed: int) -> dict[str, Seen]:
    """All phases; the same people come in each."""
    body = batch(int(_BATCH_PER_S * seconds) + 100, seed)
    plans = {
        "alone": (ours, per_s, None),
        "batch": (ours, 0.0, body),
        "ours": (ours, per_s, body),
        "flood": (flood, per_s, body),
    }
    return {
        name: asyncio.run(phase(url, rate, seconds, random.Random(seed), sent))
        for name, (url, rate, sent) in plans.items()
    }


def serving(data: Path, module: str) -> ServerProcess:
    here = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    return ServerProcess(data, "--engine", "embedded", module=module, environment={"PYTHONPATH": here})


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def serve_without_rules() -> None:
    """`overnight serve`, for which nobody is ever there."""
    from overnight.cli.main import main as overnight  # noqa: PLC0415  Only here: it reads the arguments.

    beside.is_idle = lambda _state, *, now_ms: True
    overnight()


def shown(rounds: list[dict[str, Seen]]) -> dict[str, Any]:
    """The figures of each phase."""
    found: dict[str, Any] = {}
    for name in rounds[0]:
        pooled = [ttft for one in rounds for ttft in one[name].ttft_ms]
        found[name] = {"batch_per_s": measure.spread([one[name].batch_per_s for one in rounds], 1)}
        if pooled:
            found[name] |= {"people": len(pooled), "ttft_p50_ms": round(quantile(pooled, 0.5), 1)}
            found[name]["ttft_p99_ms"] = round(quantile(pooled, 0.99), 1)
            for label, share in (("p50", 0.5), ("p99", 0.99)):
                found[name][f"{label}_over_alone"] = measure.ratios(
                    [quantile(one[name].ttft_ms, share) for one in rounds],
                    [quantile(one["alone"].ttft_ms, share) for one in rounds],
                )
    return found


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--per-s", type=float, default=2.0, help="people who come in a second")
    options = parser.parse_args()
    rounds = []
    with measure.scratch(options.on) as root:
        ours, flood = serving(root / "ours", "overnight.cli.main"), serving(root / "flood", "beside")
        try:
            for number in range(options.rounds):
                rounds.append(one_round(ours.url, flood.url, options.per_s, options.seconds, options.seed + number))
        finally:
            ours.stop()
            flood.stop()
    figures = shown(rounds)
    kept = measure.ratios([one["ours"].batch_per_s for one in rounds], [one["flood"].batch_per_s for one in rounds])
    measure.report(
        "beside",
        seed=options.seed,
        workload={"seconds": options.seconds, "people_per_s": options.per_s, "rounds": options.rounds},
        goals={
            "p99_over_alone": measure.goal(figures["ours"]["p99_over_alone"]["median"], at_most=P99_RATIO_MAX),
            "batch_over_flood": measure.goal(kept["median"], at_least=BATCH_SHARE_MIN),
        },
        batch_over_flood=kept,
        **figures,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_without_rules()
    else:
        main()
