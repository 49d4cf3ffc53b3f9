"""Tables out of simulated engines: ratios and shapes, not speeds. Any seed replays.

The engine is `overnight.testing.stepengine` under virtual time; docs/explanation/scheduling.md has its parameters.
Each table is a module `sim_NAME` with a function `table(*, seed, is_full)`.

    python benchmarks/simulate.py window|beside|prefix|fairness|deadlines [--full] [--seed N]
"""

import argparse
import importlib
import time
from pathlib import Path

import measure


def main() -> None:
    """Print one table."""
    found = sorted(path.stem.removeprefix("sim_") for path in Path(__file__).parent.glob("sim_*.py"))
    tables = [name for name in found if hasattr(importlib.import_module(f"sim_{name}"), "table")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tables)
    parser.add_argument("--full", action="store_true", help="longer runs, less noise")
    parser.add_argument("--seed", type=int, default=measure.SEED)
    options = parser.parse_args()
    began_s = time.process_time()
    importlib.import_module(f"sim_{options.table}").table(seed=options.seed, is_full=options.full)
    print(f"\nseed {options.seed}, {time.process_time() - began_s:.0f} s of CPU")


if __name__ == "__main__":
    main()
