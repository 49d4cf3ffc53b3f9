"""`python fuzz/run.py TARGET [libFuzzer options] [corpus folder]`: coverage-guided runs of `targets.py` by atheris.

Needs atheris, which is not part of the development environment: see the README beside this file.
"""

import sys

import atheris

with atheris.instrument_imports(include=["overnight", "choices"]):
    from targets import TARGETS


def main() -> None:
    """Run the target named by the first argument until libFuzzer has had enough."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"which one? {', '.join(TARGETS)}")
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
