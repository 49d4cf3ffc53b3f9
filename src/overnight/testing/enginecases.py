"""The steps that the cases of the engine suite are made of, and what a server may be allowed to do otherwise.

Cases look at form: types, counts, order. A model may be as silly as it likes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, TypeAlias

import msgspec
import pytest

from overnight.core.retry import Answered, Outcome
from overnight.engines.engine import Call, Engine, Load
from overnight.wire import message

CASE_S: Final = 120.0  # A hang fails; the slowest case takes a few seconds on an idle machine.
ENDLESS_TOKENS: Final = 400  # Of the answers that are given up on the way.

SYSTEM: Final = 'Extract the invoice line as JSON with the keys "department", "amount" and "description".'
LINE: Final = "Marketing - printer paper - Rs 640"
SIZE: Final = {
    "type": "object",
    "properties": {"size": {"enum": ["S", "XL"]}},
    "required": ["size"],
    "additionalProperties": False,
}
TOOL: Final = {"name": "choose", "description": "Choose a size.", "input_schema": SIZE, "strict": True}
ENDLESS: Final = {
    "type": "object",
    "properties": {"said": {"const": "all work and no play makes jack a dull boy " * 100}},
    "required": ["said"],
    "additionalProperties": False,
}

Departure: TypeAlias = Literal[
    "any_model",
    "cached_tokens",
    "cancel",
    "count_tokens",
    "echoes_prefill",
    "forced_tool",
    "image",
    "load",
    "odd_content",
    "own_errors",
    "priority",
    "schema",
    "stop_sequence",
    "tool_input",
    "tool_result",
]
DEPARTURES: Final[Mapping[Departure, str]] = {
    "any_model": "answers to any model name",
    "cached_tokens": "`usage` does not tell what came from the cache",
    "cancel": "goes on with a whole answer that nobody waits for any more",
    "count_tokens": "`count_tokens` is not what `usage` counts",
    "echoes_prefill": "a final assistant message is repeated in the answer",
    "forced_tool": "`tool_choice` is not enforced",
    "image": "an image is a failure of the engine, not of the request",
    "load": "does not tell how many requests run and wait",
    "odd_content": "empty or odd content is a failure of the engine, not of the request",
    "own_errors": "names its errors in words of its own",
    "priority": "interactive requests do not overtake batches",
    "schema": "`output_config.format` is not enforced",
    "stop_sequence": "`stop_reason` does not tell that a stop sequence matched",
    "tool_input": "the schema of a tool that is `strict` is not enforced",
    "tool_result": "the results of tools are not shown to the model",
}

Case = Callable[[Any, Engine], Awaitable[None]]
Test = Callable[["EngineCases"], None]


class EngineCases:
    """Test methods about one thing. What each attribute and method means is told in `enginesuite`."""

    model = "overnight-tiny"
    words_too_many = 300_000
    allows: frozenset[Departure] = frozenset()

    def engine(self) -> Engine:
        """What is tested, new and not started."""
        raise NotImplementedError

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` to its end; another event loop's `run` may stand here."""
        asyncio.run(main)

    def call(
        self,
        text: str | list[Any] = LINE,
        *,
        tier: Literal["batch", "standard"] = "standard",
        timeout_s: float = CASE_S,
        on_first_token: Callable[[], None] | None = None,
        **params: Any,
    ) -> Call:
        """A greedy call that says `text`; `params` replace or add to its body."""
        turns = [{"role": "user", "content": text}]
        body = {"model": self.model, "max_tokens": 24, "messages": turns, "temperature": 0, **params}
        return Call(
            params=msgspec.json.encode(body),
            model=body["model"],
            api_version="2023-06-01",
            service_tier=tier,
            timeout_s=timeout_s,
            on_first_token=on_first_token,
        )

    def endless(self, *, tokens: int = ENDLESS_TOKENS, **params: Any) -> Call:
        """A call whose answer has so many tokens: the schema allows no early end."""
        wanted = {"format": {"type": "json_schema", "schema": ENDLESS}}
        return self.call("Count to 9000.", max_tokens=tokens, output_config=wanted, **params)


def case(body: Case) -> Test:
    """Make a test method of an async function that wants a started engine."""

    def test(suite: EngineCases) -> None:
        async def hold() -> None:
            async with asyncio.timeout(CASE_S):
                engine = suite.engine()
                await engine.start()
                try:
                    await body(suite, engine)
                finally:
                    await engine.close()

        suite.run(hold())

    return _named_as(body, test)


def may_depart(departure: Departure) -> Callable[[Test], Test]:
    """Let a suite that `allows` this departure fail the test, and only fail it."""

    def decorated(promise: Test) -> Test:
        def test(suite: EngineCases) -> None:
            if departure not in suite.allows:
                return promise(suite)
            try:
                promise(suite)
            except AssertionError:
                pytest.xfail(f"{departure} is allowed: {DEPARTURES[departure]}")
            pytest.fail(f"this promise is kept: take {departure!r} out of `allows`")

        return _named_as(promise, test)

    return decorated


def _named_as(original: Callable[..., Any], test: Test) -> Test:
    test.__name__, test.__doc__ = getattr(original, "__name__", "case"), original.__doc__
    return test


# --- Steps -------------------------------------------------------------------------------------------------------


def read(outcome: Outcome) -> dict[str, Any]:
    """The Message that must be in `outcome`."""
    assert isinstance(outcome, Answered), outcome
    message.as_batch(outcome.message)
    whole: dict[str, Any] = msgspec.json.decode(outcome.message)
    return whole


async def asked(engine: Engine, call: Call) -> dict[str, Any]:
    """The Message that `call` must be answered with."""
    return read(await engine.answer(call))


def text_of(whole: dict[str, Any]) -> str:
    """All of its text."""
    return "".join(block["text"] for block in whole["content"] if block["type"] == "text")


def prompt_tokens(whole: dict[str, Any]) -> int:
    """Of the prompt, cached or not."""
    usage = whole["usage"]
    cached = ("cache_read_input_tokens", "cache_creation_input_tokens")
    return int(usage["input_tokens"] + sum(usage.get(name) or 0 for name in cached))


async def events_of(engine: Engine, call: Call) -> list[dict[str, Any]]:
    """The events of the stream, without pings. Each must be named as its data says."""
    async with aclosing(engine.stream(call)) as pieces:
        whole = b"".join([piece async for piece in pieces])
    found = []
    for event in whole.decode().replace("\r\n", "\n").strip("\n").split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in event.split("\n"))
        found.append(msgspec.json.decode(fields["data"]))
        assert found[-1]["type"] == fields["event"]
    return [event for event in found if event["type"] != "ping"]


async def load_of(engine: Engine) -> Load:
    """What an engine that tells its load must say."""
    await asyncio.sleep(0)  # An engine of this process may answer without letting others run.
    load = await engine.load()
    assert load is not None, "it claims to tell its load, and does not"
    return load


async def becomes(engine: Engine, inside: int) -> None:
    """Ask for the load until it says that so many requests are inside."""
    while (load := await load_of(engine)).running + load.waiting != inside:
        pass
