"""`python fuzz/corpus.py FOLDER` writes the seeds of every target into a folder of its own, for libFuzzer."""

import sys
from pathlib import Path

from seeds import FOUND, SEEDS


def main() -> None:
    """Write them."""
    for target, seeds in SEEDS.items():
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate((*seeds, *FOUND.get(target, {}).values())):
            (folder / f"seed-{number}").write_bytes(seed)


if __name__ == "__main__":
    main()
