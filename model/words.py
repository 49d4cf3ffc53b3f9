"""Which words the model knows as one token each, and a vector of meaning for every one of them.

A model trained for two hours on generated text cannot learn what "shoddy" means; the vectors bring that, from GloVe
and from a sentence encoder that has read "The quality is shoddy." They are frozen, so a word that no training text
holds is treated exactly like its neighbours that do. Which words are known is decided by their frequency in general
English and by nothing of ours: whether a word is held out cannot matter here.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from model import sources

COMMON_WORDS = 25_000  # By frequency.
ADJECTIVES_AMONG = 50_000  # … and the adjectives among so many: people judge in adjectives that news rarely uses.
MEANING = 128  # Numbers of a vector. For unseen sentiment words 96 tell as much as all 484.
_BATCH = 256
_CLIP = 4.0  # In standard deviations: a few dimensions of the encoder explode for single words.


class Lexicon(NamedTuple):
    """`words` by falling frequency, lower case; `meaning` float32 [words, MEANING], each row of length 1."""

    words: list[str]
    meaning: np.ndarray


def lexicon(folder: Path) -> Lexicon:
    """Made on the first call (about two minutes), then read from `folder`."""
    cached = folder / "lexicon.npz"
    if cached.exists():
        with np.load(cached) as stored:
            return Lexicon(list(stored["words"]), stored["meaning"])
    english = sources.english_words(folder / "sources")
    by_frequency, glove = sources.glove(folder / "sources")
    words = [word for word in by_frequency if word in english and re.fullmatch("[a-z]{2,}|a|i", word)]
    adjectives = sources.adjectives(folder / "sources")
    words = words[:COMMON_WORDS] + [word for word in words[COMMON_WORDS:ADJECTIVES_AMONG] if word in adjectives]
    encoder = sources.minilm(folder / "sources")
    seen = np.hstack(
        [
            _standard(_encoded(encoder, words)),
            _standard(_encoded(encoder, [f"The quality is {word}." for word in words])),
            2.0 * _standard(np.array([glove[word][:100] for word in words], dtype=np.float32)),
        ]
    )
    meaning = _principal(seen, MEANING)
    meaning /= np.linalg.norm(meaning, axis=1, keepdims=True)
    np.savez(cached, words=np.array(words), meaning=meaning.astype(np.float32))
    return Lexicon(words, meaning.astype(np.float32))


@torch.no_grad()
def _encoded(encoder: Path, texts: list[str]) -> np.ndarray:
    """Mean-pooled last hidden states, float32 [texts, 384]."""
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415  Slow to import, needed once.

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    network = AutoModel.from_pretrained(encoder).eval()
    pooled = []
    for start in range(0, len(texts), _BATCH):
        batch = tokenizer(texts[start : start + _BATCH], padding=True, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled.append((network(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.cat(pooled).numpy()


def _standard(vectors: np.ndarray) -> np.ndarray:
    spread = vectors.std(0)
    usable = np.isfinite(spread) & (spread > 1e-3)
    vectors = vectors[:, usable]
    return np.clip((vectors - vectors.mean(0)) / vectors.std(0), -_CLIP, _CLIP)


def _principal(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """Principal components, half whitened: the first few would else drown the rest."""
    centred = vectors - vectors.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    best = np.argsort(values)[::-1][:dimensions]
    axes = axes[:, best] * np.sign(axes[np.abs(axes[:, best]).argmax(0), range(dimensions)])
    return centred @ axes / values[best] ** 0.25
