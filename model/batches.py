"""From families of conversations to tensors of equal shape."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model import prompts
from model.chat import ASSISTANT, END, SPECIALS, USER
from model.network import Tree
from model.texts import Dice

ECHO = "echo"
SHARES = {"invoice": 46, "ticket": 19, "sentiment": 12, "moderation": 12, "language": 6, "outside": 5}
FIRST_SHARES = {"invoice": 15, "ticket": 26, "sentiment": 18, "moderation": 16, "language": 7, "outside": 3, ECHO: 15}
READING_SHARES = {"ticket": 24, "sentiment": 26, "moderation": 20, "language": 6, "invoice": 24}
_READ_AT_ONCE = 64  # Texts behind one prefix.
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
    labels: Tensor  # int64 [rows, branches, tokens, attributes]: what the reader has to say there, else -1.
    read: Tensor  # bool like tree.branches: where it has to say something.


class _Tokens(NamedTuple):
    asked: list[int]
    said: list[int]
    known: list[int]  # The label of each attribute, or -1.
    parts: list[int]  # For each token of `asked` its label of PART, or -1.

    @property
    def length(self) -> int:
        return len(self.asked) + len(self.said)


class _Row(NamedTuple):
    prefix: list[int]
    branches: list[_Tokens]
    task: str


class Feed(Iterator[Batch]):
    """Endless batches out of pools. A pool is decided by `seed` and its number alone, so a feed that begins at the
    `place` of another goes on exactly as that one would have."""

    def __init__(
        self, pool: Callable[[Dice], Iterator[Batch]], seed: str, place: tuple[int, int] | None = None
    ) -> None:
        self.place = place or (0, 0)  # The number of the pool, and how many of its batches have been taken.
        self._pool, self._seed = pool, seed
        self._left: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        while True:
            number, taken = self.place
            if self._left is None:
                self._left = islice(self._pool(Dice(f"{self._seed}/{number}")), taken, None)
            if (batch := next(self._left, None)) is not None:
                self.place = (number, taken + 1)
                return batch
            self._left, self.place = None, (number + 1, 0)


def answers(
    dice: Dice, tokenizer: Tokenizer, build: Path, *, split: str, tokens: int, plain: float, shares: Mapping[str, int]
) -> Iterator[Batch]:
    """A pool of batches of about `tokens` tokens, padding included; neighbours are of any tasks and lengths."""
    rows = _rows(dice, tokenizer, build, split, plain, shares)
    rows.sort(key=lambda row: (len(row.prefix) // 20, max(branch.length for branch in row.branches)))
    found, group = [], []
    for row in rows:
        if group and _size([*group, row]) > tokens:
            found.append(group)
            group = []
        group.append(row)
    dice.shuffle(found)  # The last group is small and left out.
    return (collate(group) for group in found)


def readings(dice: Dice, tokenizer: Tokenizer, build: Path, *, tokens: int) -> Iterator[Batch]:
    """A pool of texts without answers, of all tasks, behind instructions that need not be about them."""
    prefixes, texts = [], []
    for task in dice.choices(list(READING_SHARES), list(READING_SHARES.values()), k=_POOL):
        family = prompts.family(dice, task, "train", build, size=_FAMILY, plain=0.4)
        for row in rows_of(tokenizer, family):
            prefixes.append(row.prefix)
            texts += [branch._replace(said=[]) for branch in row.branches]
    texts.sort(key=lambda branch: branch.length)
    prefixes.sort(key=len)
    rows = [_Row([], texts[at : at + _READ_AT_ONCE], "reading") for at in range(0, len(texts), _READ_AT_ONCE)]
    dice.shuffle(rows)
    short = prefixes[: len(prefixes) * 3 // 4]  # The long ones would be most of the work.
    for row in rows:
        if len(row.branches) == _READ_AT_ONCE:
            yield from _cut(row._replace(prefix=dice.choice(short)), tokens)


def _cut(row: _Row, tokens: int) -> Iterator[Batch]:
    """Batches of the row's prefix and some of its branches each."""
    count = max(1, tokens // row.branches[-1].length)
    for at in range(0, len(row.branches), count):
        yield collate([row._replace(branches=row.branches[at : at + count])])


def _rows(
    dice: Dice, tokenizer: Tokenizer, build: Path, split: str, plain: float, shares: Mapping[str, int]
) -> list[_Row]:
    rows = []
    for task in dice.choices(list(shares), list(shares.values()), k=_POOL):
        if task == ECHO:
            rows += [_echo(dice, tokenizer) for _ in range(_FAMILY // BRANCHES)]
            continue
        family = prompts.family(dice, task, split, build, size=_FAMILY, plain=plain)
        rows += rows_of(tokenizer, family)
    return rows


def _echo(dice: Dice, tokenizer: Tokenizer) -> _Row:
    """Random tokens to be said again: the drill for copying."""
    size, control = tokenizer.get_vocab_size(), len(SPECIALS)
    end, user, assistant = (tokenizer.token_to_id(token) for token in (END, USER, ASSISTANT))
    length = dice.randint(3, 14)
    branches = []
    for _ in range(BRANCHES):
        said = [dice.randrange(control, size) for _ in range(length)]
        unknown = [-1] * len(prompts.ATTRIBUTES)
        branches.append(_Tokens([*said, end, assistant], [*said, end], unknown, [-1] * (length + 2)))
    return _Row([user], branches, ECHO)


def rows_of(tokenizer: Tokenizer, family: prompts.Family) -> list[_Row]:
    """The family as rows of BRANCHES branches."""
    asked = tokenizer.encode_batch(
        [branch.asked for branch in family.branches]
    )  # Not the fast one: offsets are needed.
    said = tokenizer.encode_batch_fast([branch.answer + END for branch in family.branches])
    prefix = tokenizer.encode(family.prefix).ids
    branches = [
        _Tokens(one.ids, two.ids, _known(branch.known), _parts(branch, one.offsets))
        for one, two, branch in zip(asked, said, family.branches, strict=True)
    ]
    branches = sorted((b for b in branches if b.length <= _TOKENS_MAX), key=lambda b: b.length)
    if len(prefix) > _TOKENS_MAX:
        return []
    starts = range(0, len(branches) - BRANCHES + 1, BRANCHES)
    return [_Row(prefix, branches[start : start + BRANCHES], f"{family.task}/{family.form}") for start in starts]


def _known(labels: Mapping[str, str]) -> list[int]:
    return [list(of).index(labels[name]) if name in labels else -1 for name, of in prompts.ATTRIBUTES.items()]


def _parts(branch: prompts.Branch, offsets: list[tuple[int, int]]) -> list[int]:
    """The label of PART of each token, given where in `asked` it stands."""
    if not branch.fields:
        return [-1] * len(offsets)
    start = branch.asked.index(branch.text)
    found = [0 if start <= begin < start + len(branch.text) else -1 for begin, _ in offsets]
    for field, (first, rest) in zip(branch.fields, ((1, 2), (3, 3), (4, 5)), strict=True):
        begin = branch.asked.index(field, start)
        inside = [place for place, (at, _) in enumerate(offsets) if begin <= at < begin + len(field)]
        for place in inside:
            found[place] = first if place == inside[0] else rest
    return found


def _size(rows: list[_Row]) -> int:
    prefix = max(len(row.prefix) for row in rows)
    branch = max(branch.length for row in rows for branch in row.branches)
    return len(rows) * (prefix + BRANCHES * branch)


def collate(rows: list[_Row]) -> Batch:
    """Rows of any lengths, padded."""
    longest = max(len(row.prefix) for row in rows)
    branch = max(branch.length for row in rows for branch in row.branches)
    prefix = torch.zeros(len(rows), longest, dtype=torch.long)
    branches = torch.zeros(len(rows), len(rows[0].branches), branch, dtype=torch.long)
    targets = torch.full(branches.shape, -1)
    weights = torch.zeros(branches.shape)
    labels = torch.full((*branches.shape, len(prompts.ATTRIBUTES)), -1)
    for number, row in enumerate(rows):
        prefix[number, : len(row.prefix)] = torch.tensor(row.prefix)
        for place, (asked, said, known, parts) in enumerate(row.branches):
            end = len(asked) + len(said)
            branches[number, place, :end] = torch.tensor(asked + said)
            targets[number, place, len(asked) - 1 : end - 1] = torch.tensor(said, dtype=torch.long)
            weights[number, place, len(asked) - 1 : end - 1] = 1.0 if len(said) > 12 else 2.5
            labels[number, place, len(asked) - max(2, len(asked) // 3) : len(asked)] = torch.tensor(known)
            labels[number, place, : len(asked), -1] = torch.tensor(parts)
    return Batch(
        tree=Tree(prefix, torch.tensor([len(row.prefix) for row in rows]), branches),
        targets=targets,
        weights=weights,
        tasks=[row.task for row in rows],
        labels=labels,
        read=(labels >= 0).any(-1),
    )
