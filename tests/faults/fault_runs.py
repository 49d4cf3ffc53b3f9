"""Batches on a real server above engines that fail, and what is to be said about them afterwards."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from overnight.testing.faultyengine import FaultyEngine
from overnight.testing.observed import ObservedServer, Patience, observed_server
from overnight.testing.processes import ServerProcess
from overnight.testing.wireclient import WireClient, request

BACK_SHARE = 0.8  # Of the speed before the fault.
BACK_S = 60.0  # The longest it may take from the end of the fault until that is reached.
BEFORE_S = 2.0  # Over which the speed before the fault is taken,
WINDOW_S = 1.0  # and after it.


class Group(NamedTuple):
    """One [[engines]] entry: replicas that are asked for one model."""

    model: str
    engines: Sequence[FaultyEngine]
    in_flight_max: int = 8


@contextmanager
def serving(folder: Path, *groups: Group) -> Iterator[ObservedServer]:
    """`overnight serve` above these engines."""
    config = folder / "overnight.toml"
    config.write_text("".join(map(_entry, groups)))
    with observed_server(folder / "data", "--config", str(config)) as server:
        yield server


def _entry(group: Group) -> str:
    first, *replicas = (engine.url for engine in group.engines)
    return (
        f'[[engines]]\nspec = "{first}"\nreplicas = {replicas}\nmodels = ["{group.model}"]\n'
        f"in_flight_max = {group.in_flight_max}\n"
    )


def created(server: ServerProcess, model: str, texts: Sequence[str]) -> str:
    """The id of a batch of these texts; its custom_ids are `r0`, `r1`, …"""
    with closing(WireClient(server.url)) as client:
        requests = [request(custom_id, text, model=model) for custom_id, text in by_id(texts).items()]
        return str(client.create(requests)["id"])


def texts(model: str, count: int) -> list[str]:
    """Prompts that occur nowhere else."""
    return [f"{model} {index}" for index in range(count)]


def rows(server: ObservedServer, batch_id: str, count: int) -> dict[str, Any]:
    """The results of a batch once it has ended. Every request has one row, and the counts are of the rows."""
    with closing(WireClient(server.url)) as client:
        try:
            batch = server.wait_ended(client, batch_id)
        except Patience:
            health = client.call("GET", "/health").json
            metrics = client.call("GET", "/metrics").body.decode()
            print(health, client.retrieve(batch_id)["request_counts"], metrics)
            raise
        found = client.results(batch_id)
    assert found.keys() == {f"r{index}" for index in range(count)}
    kinds = Counter(row["type"] for row in found.values())
    assert +Counter(batch["request_counts"]) == kinds
    return found


def by_id(asked: Sequence[str]) -> dict[str, str]:
    """The custom_id of each prompt of a batch."""
    return {f"r{index}": text for index, text in enumerate(asked)}


def check_answers(found: Mapping[str, Any], asked: Mapping[str, str]) -> None:
    """Every request succeeded, with the answer to its own prompt."""
    wrong = {name: row for name, row in found.items() if row["type"] != "succeeded"}
    assert not wrong, f"{len(wrong)} of {len(found)}, such as {next(iter(wrong.items()))}"
    said = {name: row["message"]["content"][0]["text"] for name, row in found.items()}
    assert said == {name: f"echo: {text}" for name, text in asked.items()}


def speed_before(engines: Sequence[FaultyEngine], began_s: float) -> float:
    """Answers a second of all together, in the last seconds before a fault."""
    return _answers(engines, began_s - BEFORE_S, began_s) / BEFORE_S


def back_after_s(engines: Sequence[FaultyEngine], ended_s: float, *, per_s: float) -> float:
    """How long after the end of a fault a second began in which it went at BACK_SHARE of `per_s` again; infinite if
    none did."""
    starts = sorted(time_s for engine in engines for time_s in engine.answered_s if time_s >= ended_s)
    wanted = BACK_SHARE * per_s * WINDOW_S
    return next(
        (start - ended_s for start in starts if _answers(engines, start, start + WINDOW_S) >= wanted), float("inf")
    )


def _answers(engines: Sequence[FaultyEngine], from_s: float, to_s: float) -> int:
    return sum(bisect_left(one.answered_s, to_s) - bisect_left(one.answered_s, from_s) for one in engines)
