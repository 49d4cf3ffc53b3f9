"""Every claim of fuzz/targets.py over its seeds, what was found once, and a fixed run of random changes to them.

`OVERNIGHT_LONG=1` makes ten times as many. Coverage-guided runs are described in fuzz/README.md.
"""

import os
import random

import pytest
from seeds import FOUND, SEEDS
from targets import TARGETS

_CHANGED_INPUTS = 1_500 * (10 if os.environ.get("OVERNIGHT_LONG") else 1)
_LURES = (b'"', b"{}", b"[", b"\n", b"\\u", b"\xff", b"\x00", b"0", b",", b'"usage":', b"\r\n", b"\r", b"e", b"-")


def test_every_target_has_seeds() -> None:
    assert set(SEEDS) == set(TARGETS)
    assert all(SEEDS.values())


@pytest.mark.parametrize("target", TARGETS)
def test_a_claim_holds_for_its_seeds_and_whatever_was_found(target: str) -> None:
    for data in (*SEEDS[target], *FOUND.get(target, {}).values()):
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_a_claim_holds_for_every_beginning_of_its_seeds(target: str) -> None:
    for seed in SEEDS[target]:
        for length in range(min(len(seed), 400)):
            TARGETS[target](seed[:length])


def test_any_flipped_bit_of_a_log_is_seen() -> None:
    for place in range(100):
        for bit in range(8):
            TARGETS["damaged_log"](bytes([1, 0, 0, 0, place, 0, bit, 0]))


@pytest.mark.parametrize("target", TARGETS)
def test_a_claim_holds_for_changed_seeds(target: str) -> None:
    dice = random.Random(target)
    for _ in range(_CHANGED_INPUTS):
        data = _changed(dice.choice(SEEDS[target]), dice)
        try:
            TARGETS[target](data)
        except BaseException as error:
            error.add_note(f"{target} with {data!r}")
            raise


def _changed(seed: bytes, dice: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(dice.randrange(1, 5)):
        start = dice.randrange(len(data) + 1)
        stop = min(len(data), start + dice.choice((0, 1, 1, 2, 9)))
        match dice.randrange(4):
            case 0:
                data[start:stop] = dice.choice(_LURES)
            case 1:
                data[start:stop] = dice.randbytes(stop - start)
            case 2:
                data[start:start] = data[start:stop]
            case _:
                data[start:stop] = bytes(byte ^ (1 << dice.randrange(8)) for byte in data[start:stop])
    return bytes(data)
