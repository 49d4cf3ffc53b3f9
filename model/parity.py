"""Whether the exported file is the network that was trained: both answer the same requests, greedily."""

import asyncio
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer

from model import evaluate, prompts
from model.chat import END
from model.network import Network, Tree

_TASKS = ("sentiment", "ticket", "moderation", "invoice", "language")
_EACH = 4
_ANSWER_TOKENS = 60


def differences(network: Network, vocabulary: Tokenizer, weights: Path, build: Path) -> list[tuple[str, str, str]]:
    """Text, the network's answer and the file's, where they differ. Rounding to 8 bits may change one of twenty."""
    dice, cases, said = random.Random("parity"), [], []
    for task in _TASKS * _EACH:
        family = prompts.family(dice, task, "held_out", build, size=1, only="json" if task == "invoice" else "")
        [branch] = family.branches
        case = evaluate.case(family, branch)
        said.append(_answer(network, vocabulary, family.prefix, branch.asked))
        cases.append(case._replace(wanted=said[-1], is_json=False))  # Compared as text.
    [score] = asyncio.run(evaluate.run(weights, [evaluate.Cell("parity | all", cases)]))
    return score.mistakes


@torch.no_grad()
def _answer(network: Network, vocabulary: Tokenizer, prefix: str, asked: str) -> str:
    """One token after the other, each from the whole text before it."""
    network.eval()
    before, ids, said = vocabulary.encode(prefix).ids, vocabulary.encode(asked).ids, list[int]()
    everything, end = torch.arange(vocabulary.get_vocab_size()), vocabulary.token_to_id(END)
    while len(said) < _ANSWER_TOKENS:
        branch = torch.tensor([[ids + said]])
        last = torch.zeros(branch.shape, dtype=torch.bool)
        last[0, 0, -1] = True
        hidden, _ = network(Tree(torch.tensor([before]), torch.tensor([len(before)]), branch), last)
        token = int(network.logits(hidden, everything).argmax())
        if token == end:
            break
        said.append(token)
    return str(vocabulary.decode(said)).strip()
