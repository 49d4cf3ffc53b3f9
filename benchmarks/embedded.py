"""Requests a second of the embedded model, against llama.cpp alone with the same bodies on the same threads.

Two kinds of short requests: a review that is answered with one word, and an invoice line that is answered with JSON.
Every text is new; the instruction is the same, as in a batch. Wants idle cores.

    python benchmarks/embedded.py [--requests 300] [--threads 2] [--rounds 5]
"""

import asyncio
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import measure
from overnight.core.retry import Answered
from overnight.engines import chat, conversation
from overnight.engines.embedded import OUTPUT_TOKENS_MAX, Embedded, tiny_weights
from overnight.engines.engine import Call
from overnight.engines.llama import Llama
from overnight.ports.entropy import SystemEntropy

REVIEW = "Classify the sentiment of the product review. Answer with one word: positive, negative or neutral."
INVOICE = 'Extract the invoice line as JSON with the keys "department", "amount" and "description".'
THINGS = ("kettle", "lamp", "chair", "printer", "desk", "phone")
TEAMS = ("Marketing", "HR", "Finance", "Legal", "Sales")
GOAL = 100  # One-word answers a second on two idle cores.
SLOTS = 5


def bodies(kind: str, count: int, seed: str) -> list[bytes]:
    """Messages bodies, no two alike."""
    dice = random.Random(seed)
    found = []
    for number in range(count):
        thing, team, amount = dice.choice(THINGS), dice.choice(TEAMS), dice.randint(1_000, 999_999)
        if kind == "word":
            system, text = REVIEW, f"Order {number}: the {thing} broke after {amount % 90} days and nobody answers."
        else:
            system, text = INVOICE, f"{team} - {thing} stand {number} - Rs {amount:,}"
        body = {"model": "m", "max_tokens": 60, "system": system, "messages": [{"role": "user", "content": text}]}
        found.append(json.dumps(body).encode())
    return found


async def through_engine(requests: list[bytes], threads: int) -> tuple[float, int]:
    """Seconds, and tokens that were written."""
    engine = Embedded(tiny_weights(), entropy=SystemEntropy(), threads=threads)
    await engine.start()
    gate = asyncio.Semaphore(engine.in_flight_max)

    async def ask(body: bytes) -> int:
        async with gate:
            call = Call(params=body, model="m", api_version="2023-06-01", timeout_s=60.0)
            outcome = await engine.answer(call)
            assert isinstance(outcome, Answered), outcome
            return int(json.loads(outcome.message)["usage"]["output_tokens"])

    try:
        await ask(requests[0])
        begin = time.perf_counter()
        written = await asyncio.gather(*map(ask, requests))
        return time.perf_counter() - begin, sum(written)
    finally:
        await engine.close()


def alone(requests: list[bytes], threads: int) -> float:
    """Seconds that llama.cpp takes for the same chats, translated before."""
    llama = Llama(tiny_weights(), slots=SLOTS, context_tokens=4_096, threads=threads, key="k", chat_template="")
    plans = [
        chat.plan(conversation.read(body), output_tokens_max=OUTPUT_TOKENS_MAX, knows_tools=llama.knows_tools)
        for body in requests
    ]
    try:
        with ThreadPoolExecutor(SLOTS - 1) as pool:
            llama.chat(plans[0].body, lambda _: False)
            begin = time.perf_counter()
            list(pool.map(lambda plan: llama.chat(plan.body, lambda _: False), plans))
            return time.perf_counter() - begin
    finally:
        llama.close()


def main() -> None:
    """Measure both kinds, in rounds that alternate."""
    options = measure.parser(__doc__, rounds=5)
    options.add_argument("--requests", type=int, default=300)
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()
    figures = {}
    for kind in ("word", "json"):
        ours, limit, written = [], [], 0
        for number in range(arguments.rounds):
            requests = bodies(kind, arguments.requests, f"{arguments.seed}/{kind}/{number}")
            seconds, written = asyncio.run(through_engine(requests, arguments.threads))
            ours.append(seconds)
            limit.append(alone(requests, arguments.threads))
        figures[kind] = {
            "requests_per_s": measure.spread([arguments.requests / seconds for seconds in ours], 1),
            "llama_cpp_alone_per_s": measure.spread([arguments.requests / seconds for seconds in limit], 1),
            "time_against_alone": measure.ratios(ours, limit),
            "tokens_an_answer": round(written / arguments.requests, 1),
        }
    goals = {"one-word answers a second": measure.goal(figures["word"]["requests_per_s"]["median"], at_least=GOAL)}
    workload = {"requests": arguments.requests, "threads": arguments.threads, "rounds": arguments.rounds}
    measure.report("embedded", seed=arguments.seed, workload=workload, goals=goals, **figures)


if __name__ == "__main__":
    main()
