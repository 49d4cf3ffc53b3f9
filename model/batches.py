"""From families of conversations to tensors of equal shape."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model import prompts
from model.network import Tree
from model.texts import Dice
from model.tokenizer import END

SHARES = {"invoice": 44, "ticket": 19, "sentiment": 13, "moderation": 13, "language": 6, "outside": 5}
BRANCHES = 8  # In a row; a family fills several rows, of branches of like length.
_FAMILY = 24
_POOL = 320  # Families that are sorted into batches at once.
_TOKENS_MAX = 700  # Of a prefix or branch; longer ones are left out.


class Batch(NamedTuple):
    """A tree, and what each branch should have said."""

    tree: Tree
    targets: Tensor  # int64 like tree.branches: the next token where it belongs to the answer, else -1.
    weights: Tensor  # float32 like tree.branches: a token of a short answer counts 2.5 times.
    tasks: list[str]  # Of each row: task/form.


class _Row(NamedTuple):
    prefix: list[int]
    branches: list[tuple[list[int], list[int]]]
    task: str


def batches(
    dice: Dice, tokenizer: Tokenizer, build: Path, *, split: str, tokens: int, plain: float
) -> Iterator[Batch]:
    """Endless batches of about `tokens` tokens, padding included."""
    while True:
        rows = _rows(dice, tokenizer, build, split, plain)
        rows.sort(
            key=lambda row: (len(row.prefix) // 20, max(len(asked) + len(said) for asked, said in row.branches))
        )
        found, group = [], []
        for row in rows:
            if group and _size([*group, row]) > tokens:
                found.append(group)
                group = []
            group.append(row)
        dice.shuffle(found)  # The last group is small and left out.
        yield from (collate(group) for group in found)


def _rows(dice: Dice, tokenizer: Tokenizer, build: Path, split: str, plain: float) -> list[_Row]:
    rows = []
    for task in dice.choices(list(SHARES), list(SHARES.values()), k=_POOL):
        family = prompts.family(dice, task, split, build, size=_FAMILY, plain=plain)
        rows += rows_of(tokenizer, family)
    return rows


def rows_of(tokenizer: Tokenizer, family: prompts.Family) -> list[_Row]:
    """The family as rows of BRANCHES branches."""
    asked = tokenizer.encode_batch_fast([branch.asked for branch in family.branches])
    said = tokenizer.encode_batch_fast([branch.answer + END for branch in family.branches])
    prefix = tokenizer.encode(family.prefix).ids
    branches = sorted(
        ((one.ids, two.ids) for one, two in zip(asked, said, strict=True)), key=lambda b: len(b[0]) + len(b[1])
    )
    branches = [branch for branch in branches if len(branch[0]) + len(branch[1]) <= _TOKENS_MAX]
    if len(prefix) > _TOKENS_MAX:
        return []
    starts = range(0, len(branches) - BRANCHES + 1, BRANCHES)
    return [_Row(prefix, branches[start : start + BRANCHES], f"{family.task}/{family.form}") for start in starts]


def _size(rows: list[_Row]) -> int:
    prefix = max(len(row.prefix) for row in rows)
    branch = max(len(asked) + len(said) for row in rows for asked, said in row.branches)
    return len(rows) * (prefix + BRANCHES * branch)


def collate(rows: list[_Row]) -> Batch:
    """Rows of any lengths, padded."""
    longest = max(len(row.prefix) for row in rows)
    branch = max(len(asked) + len(said) for row in rows for asked, said in row.branches)
    prefix = torch.zeros(len(rows), longest, dtype=torch.long)
    branches = torch.zeros(len(rows), BRANCHES, branch, dtype=torch.long)
    targets = torch.full(branches.shape, -1)
    weights = torch.zeros(branches.shape)
    for number, row in enumerate(rows):
        prefix[number, : len(row.prefix)] = torch.tensor(row.prefix)
        for place, (asked, said) in enumerate(row.branches):
            end = len(asked) + len(said)
            branches[number, place, :end] = torch.tensor(asked + said)
            targets[number, place, len(asked) - 1 : end - 1] = torch.tensor(said)
            weights[number, place, len(asked) - 1 : end - 1] = 1.0 if len(said) > 12 else 2.5
    lengths = torch.tensor([len(row.prefix) for row in rows])
    return Batch(Tree(prefix, lengths, branches), targets, weights, [row.task for row in rows])
