"""A real server tells real receivers that a batch has ended, whatever happens to it meanwhile."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from overnight.core import hook as hooks
from overnight.core.workspace import Rules
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.store.store import open_beside
from overnight.testing.hookcases import SECRET, new_hook
from overnight.testing.hookreceiver import Got, Reply, running_receiver
from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess, running_server
from overnight.testing.wireclient import WireClient, request

_PRIVATE = {"OVERNIGHT_HOOKS_TO_PRIVATE_ADDRESSES": "true"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with upstream_process() as url:
        yield url


async def _hooked(data: Path, url: str) -> None:
    """Add a hook while the server runs, as the command does."""
    async with open_beside(data, World()) as store:
        await store.hooks.add(new_hook("a", "batch.ended", workspace=DEFAULT_WORKSPACE, url=url), SECRET)


def _ended_batch(url: str) -> str:
    with closing(WireClient(url)) as client:
        return str(client.create([request("a"), request("b")])["id"])


def test_the_end_of_a_batch_is_told_with_where_its_results_are(tmp_path: Path, upstream: str) -> None:
    flags = ("--engine", upstream, "--public-url", "https://batches.example.com")
    with running_receiver() as receiver, running_server(tmp_path / "data", *flags, environment=_PRIVATE) as server:
        asyncio.run(_hooked(tmp_path / "data", receiver.url))
        batch_id = _ended_batch(server.url)
        got = receiver.next()
        with closing(WireClient(server.url)) as client:
            batch = client.retrieve(batch_id)
    told = Webhook(hooks.secret_text(SECRET)).verify(got.body, got.headers)
    extra = told["data"].pop("overnight")
    assert told["type"] == "batch.ended"
    assert told["data"] == batch
    assert extra["usage"]["output_tokens"] > 0


def test_a_server_that_dies_before_it_notes_a_delivery_delivers_it_again(tmp_path: Path, upstream: str) -> None:
    may_answer = threading.Event()

    def answer(_: Got) -> Reply:
        may_answer.wait(60)
        return Reply(200)

    with running_receiver(answer) as receiver:
        server = ServerProcess(tmp_path / "data", "--engine", upstream, environment=_PRIVATE)
        asyncio.run(_hooked(tmp_path / "data", receiver.url))
        batch_id = _ended_batch(server.url)
        first = receiver.next()
        server.kill()
        may_answer.set()
        with running_server(tmp_path / "data", "--engine", upstream, environment=_PRIVATE):
            second = receiver.next()
    assert json.loads(first.body)["data"]["id"] == batch_id
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


def test_a_budget_that_is_spent_is_told_once_with_its_limit(tmp_path: Path, upstream: str) -> None:
    data, config = tmp_path / "data", tmp_path / "overnight.toml"
    prices = "[engines.prices]\nclaude-test = { input = 0, output = 250_000 }\n"  # An answer of 4 tokens: 1.00 USD.
    config.write_text(f'[[engines]]\nspec = "{upstream}"\nin_flight_max = 1\n{prices}')
    with running_receiver() as receiver:
        asyncio.run(_limited(data, receiver.url))
        with running_server(data, "--config", str(config), environment=_PRIVATE) as server:
            with closing(WireClient(server.url)) as client:
                client.create([request(name, "hello!") for name in "abcde"])
            got = receiver.next()
    told = Webhook(hooks.secret_text(SECRET)).verify(got.body, got.headers)
    assert told["type"] == "budget.reached"
    assert (told["data"]["which"], told["data"]["limit_usd"]) == ("day", 2.0)
    assert told["data"]["workspace_id"] == DEFAULT_WORKSPACE
    assert told["data"]["spent_usd"] >= 2.0


async def _limited(data: Path, url: str) -> None:
    async with open_beside(data, World()) as store:
        await store.hooks.add(new_hook("a", "budget.reached", workspace=DEFAULT_WORKSPACE, url=url), SECRET)
        await store.access.set_rules(DEFAULT_WORKSPACE, Rules(usd_per_day=2.0))


def test_a_server_sends_nothing_to_itself_unless_it_is_told_so(tmp_path: Path, upstream: str) -> None:
    data = tmp_path / "data"
    with running_receiver() as receiver:
        with running_server(data, "--engine", upstream) as server:
            asyncio.run(_hooked(data, receiver.url))
            batch_id = _ended_batch(server.url)
            _wait_until(data, lambda trouble: "not a public address" in trouble)
        assert receiver.got == []
    assert batch_id


def _wait_until(data: Path, is_so: Callable[[str], bool]) -> None:
    """Look at the outbox from another process, as the command does, until a delivery has such trouble."""

    async def look() -> None:
        async with asyncio.timeout(60), open_beside(data, World()) as store:
            while not any(  # noqa: ASYNC110  Another process writes it, and rings no bell.
                is_so(item.trouble) for item in await store.hooks.deliveries(limit=1)
            ):
                await asyncio.sleep(0)

    asyncio.run(look())
