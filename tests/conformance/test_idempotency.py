"""`Idempotency-Key` on create: a create whose answer was lost can be sent again, and makes no second batch.

The hosted API has no such header, and its SDKs retry a create that timed out: so people pay twice there.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest
from anthropic import Anthropic
from reverseproxy import reverse_proxy

from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import BATCHES, Answer, WireClient, request

_CALLERS = 8
_numbers = count()


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """A server with keys `key-0` and so on, each for a workspace of its own."""
    keys = "".join(
        f'[[keys]]\nsha256 = "{sha256(f"key-{number}".encode()).hexdigest()}"\nworkspace = "wrkspc_{number:02}"\n'
        for number in range(30)
    )
    config = tmp_path_factory.mktemp("config") / "overnight.toml"
    with upstream_process() as engine_url:
        config.write_text(
            f'[[engines]]\nspec = "{engine_url}"\nmodels = ["claude-*"]\n'
            f'[[engines]]\nspec = "http://127.0.0.1:9"\nmodels = ["held-*"]\n{keys}'
        )
        yield ("--config", str(config))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idempotency") / "data"


@pytest.fixture(scope="module")
def server(data: Path, flags: tuple[str, ...]) -> Iterator[ObservedServer]:
    with observed_server(data, *flags) as found:
        yield found


@pytest.fixture
def client(server: ObservedServer) -> Iterator[WireClient]:
    with closing(WireClient(server.url, api_key=f"key-{next(_numbers)}")) as found:
        yield found


def _create(client: WireClient, body: object, key: str = "tickets-2026-11-21") -> Answer:
    return client.call("POST", BATCHES, body, headers={"idempotency-key": key})


def _body(text: str = "hello", requests: int = 1) -> dict[str, object]:
    return {"requests": [request(f"row-{number}", f"{text} {number}") for number in range(requests)]}


def test_the_same_key_and_body_name_the_same_batch(server: ObservedServer, client: WireClient) -> None:
    """Also when it has ended meanwhile."""
    first = _create(client, _body())
    again = _create(client, _body())
    assert (first.status, again.status) == (200, 200)
    assert again.json["id"] == first.json["id"]
    ended = server.wait_ended(client, first.json["id"])
    assert _create(client, _body()).json == ended
    assert client.ids() == [first.json["id"]]


def test_a_repeated_create_shows_the_batch_as_it_is_now(server: ObservedServer, client: WireClient) -> None:
    """Counts included: they never go back."""
    body = {"requests": [request("done"), request("held", model="held-model")]}
    batch_id = _create(client, body).json["id"]
    now = server.wait_counted(client, batch_id, succeeded=1)
    assert _create(client, body).json == now


def test_the_same_key_with_another_body_is_a_conflict(client: WireClient) -> None:
    """And it tells the SDKs not to try again, which they would after a 409. Nothing is created."""
    batch_id = _create(client, _body()).json["id"]
    for other in (_body("other"), _body(requests=2), b" " + str(_body()).replace("'", '"').encode()):
        answer = _create(client, other)
        status, kind, said = answer.error
        assert (status, kind) == (409, "conflict_error")
        assert batch_id in said
        assert answer.headers["x-should-retry"] == "false"
    assert client.ids() == [batch_id]


def test_another_key_makes_another_batch(client: WireClient) -> None:
    """As does no key, every time."""
    ids = [_create(client, _body(), key).json["id"] for key in ("one", "two", "Two")]
    ids += [client.call("POST", BATCHES, _body()).json["id"] for _ in range(2)]
    assert client.ids() == ids[::-1]
    assert len(set(ids)) == 5


@pytest.mark.parametrize("requests", [1, 3000], ids=["small", "large"])
def test_creates_at_the_same_moment_make_one_batch(
    server: ObservedServer, client: WireClient, data: Path, requests: int
) -> None:
    """Whoever comes first makes it, the others get it; what they had written to disk for it is gone."""
    before = len(list((data / "objects").rglob("requests/*")))
    ready, body = Barrier(_CALLERS), _body("at once", requests)

    def create(_: int) -> tuple[int, str]:
        with closing(WireClient(server.url, api_key=client.api_key)) as own:
            ready.wait(timeout=30)
            answer = _create(own, body)
            return answer.status, answer.json["id"]

    with ThreadPoolExecutor(_CALLERS) as callers:
        answers = list(callers.map(create, range(_CALLERS)))
    (batch_id,) = client.ids()
    assert answers == [(200, batch_id)] * _CALLERS
    assert len(list((data / "objects").rglob("requests/*"))) - before == (1 if requests > 1 else 0)


def test_workspaces_do_not_share_keys(server: ObservedServer, client: WireClient) -> None:
    with closing(WireClient(server.url, api_key=f"key-{next(_numbers)}")) as other:
        mine, theirs = _create(client, _body()), _create(other, _body("theirs"))
        assert (mine.status, theirs.status) == (200, 200)
        assert mine.json["id"] != theirs.json["id"]
        assert (client.ids(), other.ids()) == ([mine.json["id"]], [theirs.json["id"]])


@pytest.mark.parametrize(("key", "status"), [("k", 200), ("k" * 255, 200), ("k" * 256, 400), ("", 400)])
def test_how_long_a_key_may_be(client: WireClient, key: str, status: int) -> None:
    assert _create(client, _body(), key).status == status


def test_a_rejected_create_leaves_its_key_free(client: WireClient) -> None:
    assert _create(client, {"requests": []}).status == 400
    assert _create(client, _body()).status == 200


def test_a_key_outlives_a_crash(tmp_path: Path, flags: tuple[str, ...]) -> None:
    ids = []
    for _ in range(2):
        with (
            observed_server(tmp_path / "data", *flags) as server,
            closing(WireClient(server.url, api_key="key-0")) as client,
        ):
            ids.append(_create(client, _body()).json["id"])
    assert ids[0] == ids[1]


def test_a_create_whose_answer_was_lost_is_not_made_twice(server: ObservedServer, client: WireClient) -> None:
    """The official SDK tries again by itself; with the header, that is safe. Without it there are two batches."""

    def create(url: str, headers: dict[str, str]) -> str:
        with Anthropic(base_url=url, api_key=client.api_key, max_retries=1) as sdk:
            return sdk.messages.batches.create(**_body(), extra_headers=headers).id  # type: ignore[arg-type]

    async def case(headers: dict[str, str]) -> str:
        async with reverse_proxy(server.url, "") as proxy:
            proxy.answers_to_lose = 1
            batch_id = await asyncio.to_thread(create, proxy.url, headers)
            assert proxy.lost == 1
            return batch_id

    batch_id = asyncio.run(case({"Idempotency-Key": "nightly"}))
    assert client.ids() == [batch_id]
    asyncio.run(case({}))
    assert len(client.ids()) == 3
