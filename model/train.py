"""Training: from nothing, or from the last checkpoint, to a step count.

Repeatable for a seed, a number of workers and a version of PyTorch on one kind of processor, however often it was
stopped. Workers are processes with one thread each; they average their gradients after every step. On two idle cores
that is nearly as fast as one process with two threads, and it does not fall behind when one core is busy with
something else.
"""

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from tokenizers import Tokenizer
from torch import Tensor, multiprocessing

from model import batches, network, prompts, tokenizer, words
from model.batches import Batch
from model.muon import Muon
from model.network import SCALE, Embedding, Network, Shape

_OTHERS = 4_000  # Random tokens among which, beside those of the batch, the right one must stand out …
_LIKE = 6  # … and so many that mean nearly the same, for each right one.
_READING = 1.0  # Weight of what the reader has to say …
_ANSWER = 5.0  # … against answers, each divided by this.
_WARM_UP = 60  # Steps.
_FIRST = 0.12  # The share of the steps in which texts are read and tokens repeated, more than answers given.
_DECAY = 0.55  # The last share of the steps, in which the rate falls to nothing.
_MUON_RATE = 0.01
_ADAM_RATE = 3e-3
_EVERY = 50  # Steps between lines of the log.
_CHECKPOINT_EVERY = 250
_VALIDATE_EVERY = 1_000  # The other worker waits meanwhile.


class Plan(NamedTuple):
    """How to train. `tokens` per part, padding included; a step of a worker has `parts`, of several tasks."""

    build: Path
    steps: int
    tokens: int = 1_280
    parts: int = 4
    seed: int = 1
    workers: int = 2
    until: int | None = None  # Stop early, to go on later.


def untrained(build: Path, seed: int) -> tuple[Network, Tokenizer]:
    """The network as training begins, and its tokenizer."""
    shape = Shape()
    vocabulary = tokenizer.load(build / "tokenizer.json")
    lexicon = words.lexicon(build)
    torch.manual_seed(seed)
    meaning, code, free = _tables(vocabulary, lexicon, shape)
    judgements = sum(len(labels) for labels in prompts.ATTRIBUTES.values())
    made = Network(shape, Embedding(meaning, code, free, _alike(meaning, _LIKE), shape.width), judgements)
    network.start(made)
    return made, vocabulary


def _tables(vocabulary: Tokenizer, lexicon: words.Lexicon, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """For each token its meaning, its code, and whether its vector is learnt freely."""
    size = vocabulary.get_vocab_size()
    rows = {word: row for row, word in enumerate(lexicon.words)}
    meaning, free = torch.zeros(size, words.MEANING), torch.ones(size, dtype=torch.bool)
    code = torch.randn(size, shape.head_width)
    capital, space = torch.randn(2, shape.head_width) / shape.head_width**0.5
    function = {tokenizer.SPACE + word for word in tokenizer.FUNCTION_WORDS} | set(tokenizer.FUNCTION_WORDS)
    numbers = vocabulary.get_vocab()
    for token, number in numbers.items():
        word = token.removeprefix(tokenizer.SPACE).lower()
        if word not in rows or (len(word) == 1 and token != word):
            continue
        meaning[number] = torch.from_numpy(lexicon.meaning[rows[word]])
        free[number] = token in function
        code[number] = code[numbers[word]]
    code = F.normalize(code, dim=1)
    for token, number in numbers.items():
        if not free[number] or token in function:
            code[number] += capital * (token[0].isupper()) + space * token.startswith(tokenizer.SPACE)
    meaning = F.pad(meaning, (0, shape.width - shape.head_width - words.MEANING))
    return SCALE * meaning, SCALE * F.pad(code, (shape.width - shape.head_width, 0)), free


@torch.no_grad()
def _alike(meaning: Tensor, count: int) -> Tensor:
    """For each token the `count` that are nearest in meaning, int64 [tokens, count]; itself if it has no meaning."""
    found = torch.arange(len(meaning))[:, None].repeat(1, count)
    having = meaning.abs().sum(1).nonzero()[:, 0]
    known = F.normalize(meaning[having], dim=1)
    for part in torch.arange(len(having)).split(2_000):
        near = known[part] @ known.T
        near[torch.arange(len(part)), part] = -1.0
        found[having[part]] = having[near.topk(count).indices]
    return found


def train(plan: Plan) -> None:
    """Until `plan.until`, with checkpoints in `plan.build` every 250 steps; returns when all workers have ended."""
    (plan.build / "meeting").unlink(missing_ok=True)  # Of a run that was killed: the workers would wait there.
    multiprocessing.spawn(_work, args=(plan,), nprocs=plan.workers)


def trained(build: Path, seed: int) -> tuple[Network, Tokenizer, int]:
    """The network of the last checkpoint, its tokenizer, and how many steps it has behind it."""
    net, vocabulary = untrained(build, seed)
    state = torch.load(build / "checkpoint-0.pt", weights_only=False)
    net.load_state_dict(state["net"])
    return net, vocabulary, state["step"]


def _work(rank: int, plan: Plan) -> None:
    """One worker; rank 0 writes the log and the checkpoints."""
    torch.set_num_threads(1)
    if plan.workers > 1:
        meeting = f"file://{(plan.build / 'meeting').resolve()}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=plan.workers)
    net, vocabulary = untrained(plan.build, plan.seed)
    optimizers = _optimizers(net)
    step, feeds = _restore(plan, rank, net, optimizers, vocabulary)
    log = _Log(plan, vocabulary)
    while step < (plan.until or plan.steps):
        is_first = step < _FIRST * plan.steps
        torch.manual_seed((plan.seed * 1_000_003 + step) * plan.workers + rank)
        _rate(optimizers, step, plan.steps)
        for number in range(plan.parts):
            batch = next(feeds["readings" if number < (2 if is_first else 1) else "first" if is_first else "then"])
            log.take(batch, _learn(net, batch))
        _agree(net, plan.workers)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        if rank == 0 and step % _EVERY == 0:
            log.write(step)
        if step % _CHECKPOINT_EVERY == 0 or step == (plan.until or plan.steps):
            _save(plan, rank, step, net, optimizers, feeds)
            if rank == 0 and step % _VALIDATE_EVERY == 0:
                log.validate(step, net)
    if plan.workers > 1:
        dist.destroy_process_group()


def _feeds(
    plan: Plan, rank: int, vocabulary: Tokenizer, places: Mapping[str, tuple[int, int]]
) -> dict[str, batches.Feed]:
    common = {"tokenizer": vocabulary, "build": plan.build, "tokens": plan.tokens}
    pools = {
        "readings": partial(batches.readings, **common),
        "first": partial(batches.answers, split="train", plain=0.8, shares=batches.FIRST_SHARES, **common),
        "then": partial(batches.answers, split="train", plain=0.4, shares=batches.SHARES, **common),
    }
    return {name: batches.Feed(pool, f"{plan.seed}/{rank}/{name}", places.get(name)) for name, pool in pools.items()}


class _Losses(NamedTuple):
    answers: Tensor  # Of every token of the answers.
    judgements: dict[str, Tensor]  # Of every reading token, by attribute.


def _learn(net: Network, batch: Batch) -> _Losses:
    """Add the gradients of a batch."""
    if not (batch.targets >= 0).any():
        judgements = _judgements(batch, net.read(batch.tree, batch.read))
        (_READING * torch.cat(list(judgements.values())).mean()).backward()
        return _Losses(torch.zeros(0), {name: found.detach() for name, found in judgements.items()})
    vocabulary = len(net.embedding.code)
    others = torch.randint(vocabulary, (_OTHERS,))
    asked = batch.targets >= 0
    near = net.embedding.alike[torch.unique(batch.targets[asked])].flatten()
    candidates = torch.unique(torch.cat([batch.tree.prefix.flatten(), batch.tree.branches.flatten(), others, near]))
    place = torch.full((vocabulary,), -1)
    place[candidates] = torch.arange(len(candidates))
    hidden, judged = net(batch.tree, asked, batch.read)
    losses = F.cross_entropy(net.logits(hidden, candidates), place[batch.targets[asked]], reduction="none")
    weights = batch.weights[asked]
    judgements = _judgements(batch, judged)
    answers = asked.any(2).sum()  # Not by token: most tokens of a long answer are sure, and would hide the others.
    total = (losses * weights).sum() / (answers * _ANSWER)
    if judgements:
        total = total + _READING * torch.cat(list(judgements.values())).mean()
    total.backward()
    return _Losses(losses.detach(), {name: found.detach() for name, found in judgements.items()})


def _judgements(batch: Batch, judged: Tensor) -> dict[str, Tensor]:
    known = batch.labels[batch.read]
    found, begin = {}, 0
    for number, (name, labels) in enumerate(prompts.ATTRIBUTES.items()):
        right = known[:, number]
        if (right >= 0).any():
            scores = judged[right >= 0, begin : begin + len(labels)]
            found[name] = F.cross_entropy(scores, right[right >= 0], reduction="none")
        begin += len(labels)
    return found


def _agree(net: Network, workers: int) -> None:
    """Gradients become their mean over all workers, and not too long."""
    for parameter in net.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    parameters = list(net.parameters())
    if workers > 1:
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        dist.all_reduce(flat)
        flat /= workers
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)


def _optimizers(net: Network) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in net.named_parameters() if p.dim() == 2 and not name.startswith("embedding")]
    rest = [p for name, p in net.named_parameters() if p.dim() != 2 or name.startswith("embedding")]
    return [
        Muon(matrices, lr=_MUON_RATE, momentum=0.95, weight_decay=0.02),
        torch.optim.AdamW(rest, lr=_ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _rate(optimizers: list[torch.optim.Optimizer], step: int, steps: int) -> None:
    left = (steps - step) / (steps * _DECAY)
    factor = min(1.0, (step + 1) / _WARM_UP, left)
    for optimizer, rate in zip(optimizers, (_MUON_RATE, _ADAM_RATE), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor


def _save(
    plan: Plan, rank: int, step: int, net: Network, optimizers: list, feeds: Mapping[str, batches.Feed]
) -> None:
    state = {
        "step": step,
        "net": net.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "places": {name: feed.place for name, feed in feeds.items()},
    }
    partly = plan.build / f"checkpoint-{rank}.partial"
    torch.save(state, partly)
    partly.replace(plan.build / f"checkpoint-{rank}.pt")


def _restore(
    plan: Plan, rank: int, net: Network, optimizers: list, vocabulary: Tokenizer
) -> tuple[int, dict[str, batches.Feed]]:
    """The step to go on from, and the feeds as they were there."""
    path = plan.build / f"checkpoint-{rank}.pt"
    if not path.exists():
        return 0, _feeds(plan, rank, vocabulary, {})
    state = torch.load(path, weights_only=False)
    net.load_state_dict(state["net"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return state["step"], _feeds(plan, rank, vocabulary, state["places"])


class _Log:
    """Lines of JSON in `train.jsonl`, also on the terminal."""

    def __init__(self, plan: Plan, vocabulary: Tokenizer) -> None:
        self._plan, self._vocabulary = plan, vocabulary
        self._begin, self._tokens = time.perf_counter(), 0
        self._losses: dict[str, list[float]] = defaultdict(list)

    def take(self, batch: Batch, losses: _Losses) -> None:
        names = [task.partition("/")[0] for task in batch.tasks for _ in range(batches.BRANCHES)]
        counts = (batch.targets >= 0).sum(2).flatten().tolist()
        for name, part in zip(names, losses.answers.split(counts), strict=True) if len(losses.answers) else ():
            self._losses[name].append(part.sum().item())
        for name, part in losses.judgements.items():
            self._losses[f"read {name}"].append(part.mean().item())
        self._tokens += batch.tree.prefix.numel() + batch.tree.branches.numel()

    def write(self, step: int) -> None:
        means = {name: round(sum(found) / len(found), 3) for name, found in sorted(self._losses.items())}
        pace = self._tokens * self._plan.workers / (time.perf_counter() - self._begin)
        self._write({"step": step, "tokens_per_s": round(pace), "losses": means})
        self._losses.clear()
        self._begin, self._tokens = time.perf_counter(), 0

    @torch.no_grad()
    def validate(self, step: int, net: Network) -> None:
        """Share of held-out answers that greedy decoding would give word for word."""
        net.eval()
        right, asked = defaultdict(int), defaultdict(int)
        common = {"tokenizer": self._vocabulary, "build": self._plan.build, "shares": batches.SHARES}
        feed = batches.Feed(partial(batches.answers, split="held_out", tokens=4_096, plain=0.5, **common), f"{step}")
        everything = torch.arange(len(net.embedding.code))
        for _ in range(24):
            batch = next(feed)
            wanted = batch.targets >= 0
            is_right = net.logits(net(batch.tree, wanted)[0], everything).argmax(-1) == batch.targets[wanted]
            counts = wanted.sum(2).flatten().tolist()
            names = [name for name in batch.tasks for _ in range(batches.BRANCHES)]
            for name, part in zip(names, is_right.split(counts), strict=True):
                right[name] += bool(part.all())
                asked[name] += 1
        net.train()
        shares = {name: round(right[name] / asked[name], 3) for name in sorted(asked)}
        self._write({"step": step, "held_out_exact": shares})

    def _write(self, line: dict) -> None:
        text = json.dumps(line)
        print(text, flush=True)
        with (self._plan.build / "train.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")
