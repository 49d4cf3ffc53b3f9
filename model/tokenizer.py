"""The vocabulary: byte-level BPE whose merges are built so that copying is easy.

- A space is a token of its own, except before the most common function words and the quote of JSON. So a word looks
  the same behind a dash in an invoice line and behind a quote in the answer, and copying it is repeating tokens.
- Every word of the lexicon is one token; so is its capitalised form, if it is common. Other words fall into pieces.
- Digits stand alone, so that a number is copied digit by digit and any grouping can be skipped.

llama.cpp's pre-tokenizer `qwen2` splits as `SPLIT` does; the merges only ever join inside its chunks.
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from model.chat import SPECIALS

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PIECES = 3_000  # Merges learnt from text, for what is no word of the lexicon.
CAPITALISED = 10_000  # The most common words are known with a capital letter too.
SPACE = "Ġ"  # How byte-level BPE writes a space.
FUNCTION_WORDS = (
    "the of to and in for that is it with on as was at by from an be has are have but were not this who they had "
    "which will their or its one been also we would if no you your my me our i a so do does did can could should "
    "there all any them than then when what how very just only out up about after before he she his her"
).split()
_PUNCTUATION = (
    ("{", '"'),
    ('"', ":"),
    ('"', ","),
    ('"', "}"),
    (SPACE, '"'),
    ("}", "}"),
    ("Ċ", "Ċ"),
    ("'", "s"),
    ("'", "t"),
)

Merge = tuple[str, str]


def build(words: Sequence[str], texts: Iterable[str]) -> Tokenizer:
    """`words` by falling frequency become single tokens; pieces are learnt from them and from `texts`."""
    learnt = _learnt(words, texts)
    merges = {pair: rank for rank, pair in enumerate(learnt)}
    capitalised = [word.capitalize() for word in words[:CAPITALISED] if len(word) > 1]
    for word in [*words, *capitalised]:
        _chain(word, merges)
    for pair in [*((SPACE, word) for word in FUNCTION_WORDS), *_PUNCTUATION]:
        merges.setdefault(pair, len(merges))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*SPECIALS, *alphabet, *("".join(pair) for pair in merges)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def load(path: Path) -> Tokenizer:
    """The tokenizer that `build` made and `save` wrote."""
    return Tokenizer.from_file(str(path))


def _learnt(words: Sequence[str], texts: Iterable[str]) -> list[Merge]:
    trainer = trainers.BpeTrainer(vocab_size=PIECES + 256, show_progress=False)
    scratch = Tokenizer(models.BPE())
    scratch.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    runs = (run for text in texts for run in re.findall(r"[^\W\d_]+", text))
    often = (word for rank, word in enumerate(words, start=1) for _ in range(max(1, 2_000 // rank)))
    scratch.train_from_iterator((*often, *runs), trainer)
    model = json.loads(scratch.to_str())["model"]
    return [tuple(pair) for pair in model["merges"]]


def _chain(word: str, merges: dict[Merge, int]) -> None:
    """Add what is missing to make `word` one token: its pieces are joined from the left."""
    pieces = _split(word, merges)
    while len(pieces) > 1:
        merges[pieces[0], pieces[1]] = len(merges)
        pieces = _split(word, merges)


def _split(word: str, merges: dict[Merge, int]) -> list[str]:
    pieces = list(word)
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: merges.get(pair, len(merges)))
        if best not in merges:
            break
        joined, place = [], 0
        while place < len(pieces):
            if tuple(pieces[place : place + 2]) == best:
                joined.append("".join(best))
                place += 2
            else:
                joined.append(pieces[place])
                place += 1
        pieces = joined
    return pieces
