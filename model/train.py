"""Training: from nothing, or from the last checkpoint, to a step count.

Repeatable for a seed, a number of workers, the steps at which it was stopped, and a version of PyTorch on one kind of
processor: a run that goes on from a checkpoint draws new texts, so it is not the run that never stopped. Workers are
processes with one thread each; they average their gradients after every step. On two idle cores that is nearly as
fast as one process with two threads, and it does not fall behind when one core is busy with something else.
"""

import json
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from tokenizers import Tokenizer
from torch import Tensor, multiprocessing

from model import batches, network, tokenizer, words
from model.batches import Batch
from model.muon import Muon
from model.network import Embedding, Network, Shape

_OTHERS = 1_500  # Random tokens among which, beside those of the batch, the right one must stand out.
_WARM_UP = 60  # Steps.
_DECAY = 0.4  # The last share of the steps, in which the rate falls to nothing.
_MUON_RATE = 0.02
_ADAM_RATE = 3e-3
_EVERY = 50  # Steps between lines of the log.
_CHECKPOINT_EVERY = 500


class Plan(NamedTuple):
    """How to train. `tokens` per step and worker, padding included."""

    build: Path
    steps: int
    tokens: int = 3_072
    seed: int = 1
    workers: int = 2
    until: int | None = None  # Stop early, to go on later.


def untrained(build: Path, seed: int, shape: Shape | None = None) -> tuple[Network, Tokenizer]:
    """The network as training begins, and its tokenizer."""
    shape = shape or Shape()
    vocabulary = tokenizer.load(build / "tokenizer.json")
    lexicon = words.lexicon(build)
    torch.manual_seed(seed)
    meaning, code, free = _tables(vocabulary, lexicon, shape)
    made = Network(shape, Embedding(meaning, code, free, shape.width))
    network.start(made)
    return made, vocabulary


def _tables(vocabulary: Tokenizer, lexicon: words.Lexicon, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """For each token its meaning, its code, and whether its vector is learnt freely."""
    size = vocabulary.get_vocab_size()
    rows = {word: row for row, word in enumerate(lexicon.words)}
    meaning, free = torch.zeros(size, words.MEANING), torch.ones(size, dtype=torch.bool)
    code = torch.randn(size, shape.width)
    code[:, : words.MEANING] *= 0.25  # Most of the code lies beside the meaning.
    capital, space = torch.randn(2, shape.width) / shape.width**0.5
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
    return meaning, code, free


def train(plan: Plan) -> None:
    """Until `plan.until`, with checkpoints in `plan.build` every 500 steps; returns when all workers have ended."""
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
    dice = random.Random(f"{plan.seed}/{rank}")
    step = _restore(plan, rank, net, optimizers, dice)
    generator = torch.Generator().manual_seed(plan.seed * 1000 + rank + step * 7919)
    log = _Log(plan, vocabulary)
    feed, stage = None, -1.0
    while step < (plan.until or plan.steps):
        plain = 0.8 if step < 0.1 * plan.steps else 0.3
        if plain != stage:
            stage, feed = (
                plain,
                batches.batches(dice, vocabulary, plan.build, split="train", tokens=plan.tokens, plain=plain),
            )
        batch = next(feed)
        _rate(optimizers, step, plan.steps)
        losses = _learn(net, batch, generator, plan.workers)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        if rank == 0:
            log.take(step, batch, losses)
        if step % _CHECKPOINT_EVERY == 0 or step == (plan.until or plan.steps):
            _save(plan, rank, step, net, optimizers, dice)
            if rank == 0:
                log.validate(step, net)
    if plan.workers > 1:
        dist.destroy_process_group()


def _learn(net: Network, batch: Batch, generator: torch.Generator, workers: int) -> Tensor:
    """Gradients of the mean weighted loss over all workers; the loss of every answer token."""
    vocabulary = len(net.embedding.code)
    others = torch.randint(vocabulary, (_OTHERS,), generator=generator)
    candidates = torch.unique(torch.cat([batch.tree.prefix.flatten(), batch.tree.branches.flatten(), others]))
    place = torch.full((vocabulary,), -1)
    place[candidates] = torch.arange(len(candidates))
    asked = batch.targets >= 0
    hidden = net(batch.tree, asked)
    losses = F.cross_entropy(net.logits(hidden, candidates), place[batch.targets[asked]], reduction="none")
    weights = batch.weights[asked]
    ((losses * weights).sum() / weights.sum()).backward()
    parameters = [parameter for parameter in net.parameters() if parameter.grad is not None]
    if workers > 1:
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        dist.all_reduce(flat)
        flat /= workers
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    return losses.detach()


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


def _save(plan: Plan, rank: int, step: int, net: Network, optimizers: list, dice: random.Random) -> None:
    state = {
        "step": step,
        "net": net.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "dice": dice.getstate(),
    }
    partial = plan.build / f"checkpoint-{rank}.partial"
    torch.save(state, partial)
    partial.replace(plan.build / f"checkpoint-{rank}.pt")


def _restore(plan: Plan, rank: int, net: Network, optimizers: list, dice: random.Random) -> int:
    path = plan.build / f"checkpoint-{rank}.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=False)
    net.load_state_dict(state["net"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    dice.setstate(state["dice"])
    return state["step"]


class _Log:
    """Lines of JSON in `train.jsonl`, also on the terminal."""

    def __init__(self, plan: Plan, vocabulary: Tokenizer) -> None:
        self._plan, self._vocabulary = plan, vocabulary
        self._begin, self._tokens = time.perf_counter(), 0
        self._losses: dict[str, list[float]] = defaultdict(list)

    def take(self, step: int, batch: Batch, losses: Tensor) -> None:
        names = [task.partition("/")[0] for task in batch.tasks for _ in range(batches.BRANCHES)]
        counts = (batch.targets >= 0).sum(2).flatten().tolist()
        for name, part in zip(names, losses.split(counts), strict=True):
            self._losses[name].append(part.sum().item())
        self._tokens += batch.tree.prefix.numel() + batch.tree.branches.numel()
        if step % _EVERY == 0:
            means = {name: round(sum(found) / len(found), 4) for name, found in sorted(self._losses.items())}
            pace = self._tokens * self._plan.workers / (time.perf_counter() - self._begin)
            self._write({"step": step, "tokens_per_s": round(pace), "loss_per_answer": means})
            self._losses.clear()
            self._begin, self._tokens = time.perf_counter(), 0

    @torch.no_grad()
    def validate(self, step: int, net: Network) -> None:
        """Share of held-out answers that greedy decoding would give word for word."""
        dice, right, asked = random.Random(step), defaultdict(int), defaultdict(int)
        feed = batches.batches(dice, self._vocabulary, self._plan.build, split="held_out", tokens=4_096, plain=0.5)
        everything = torch.arange(len(net.embedding.code))
        for _ in range(24):
            batch = next(feed)
            wanted = batch.targets >= 0
            is_right = net.logits(net(batch.tree, wanted), everything).argmax(-1) == batch.targets[wanted]
            counts = wanted.sum(2).flatten().tolist()
            names = [name for name in batch.tasks for _ in range(batches.BRANCHES)]
            for name, part in zip(names, is_right.split(counts), strict=True):
                right[name] += bool(part.all())
                asked[name] += 1
        shares = {name: round(right[name] / asked[name], 3) for name in sorted(asked)}
        self._write({"step": step, "held_out_exact": shares})

    def _write(self, line: dict) -> None:
        text = json.dumps(line)
        print(text, flush=True)
        with (self._plan.build / "train.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")
