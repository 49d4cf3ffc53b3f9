"""Table `fairness`: a small batch beside a whale, and two whales of unlike requests, by whose turn it is."""

from overnight.testing.backlogdrive import BY_BATCH, EDF, FIFO, IN_REQUESTS, OURS, Drive, Replica, Rule, Submitted
from overnight.testing.backlogscenes import A, B, Beside, around, took_s
from overnight.testing.stepengine import MEDIUM, SLOTS, Sizes

RULES = (OURS, IN_REQUESTS, BY_BATCH, EDF, FIFO)
LARGE = Sizes(4_000, 300)


def scenes(*, seed: int, is_full: bool) -> dict[str, Beside]:
    """By name."""
    whale = 100_000 if is_full else 8_000
    return {
        "8B-like, 128 in flight": Beside(profile=MEDIUM, window=128, whale=whale, at_s=20, lasts_s=30, seed=seed),
        "llama.cpp, 8 slots": Beside(profile=SLOTS, window=8, whale=3_000, at_s=200, lasts_s=120, seed=seed),
        "llama.cpp, small batch of large requests": Beside(
            profile=SLOTS, window=8, whale=3_000, at_s=200, lasts_s=900, typical=LARGE, seed=seed
        ),
    }


def table(*, seed: int, is_full: bool) -> None:
    """Print it. `is_full`: the whale on the GPU has 100,000 requests instead of 8,000."""
    for name, scene in scenes(seed=seed, is_full=is_full).items():
        oracle_s, bound, all_s = scene.oracle_s(), scene.bound(), scene.run(FIFO).took_s
        print(f"\n{name}: 100 requests beside {scene.whale:,}; half of the tokens for them: {oracle_s:.1f} s")
        print(f"  {'':22} {'small':>9} {'of oracle':>9} {'gap of bound':>12} {'idle loss':>9} {'holes':>5}")
        for rule in RULES:
            drive = scene.run(rule)
            small_s = took_s(drive, "small")
            gap = "" if rule.is_in_requests else f"{drive.gap_max / bound:.2f}x"  # It counts no tokens.
            print(
                f"  {rule.name:22} {small_s:7.1f} s {small_s / oracle_s:8.2f}x {gap:>12}"
                f" {drive.took_s / all_s - 1:9.2%} {drive.holes:5}",
                flush=True,
            )
    print("\ntwo whales, requests of 400/30 and of 2,000/100 tokens: the share of work (tokens) that the first gets")
    for rule, weights, wanted in ((OURS, (1, 1), 1 / 2), (OURS, (1, 2), 1 / 3), (IN_REQUESTS, (1, 1), 1 / 2)):
        share = share_of_first(rule, weights, seed=seed)
        print(f"  {rule.name:22} weights {weights[0]}:{weights[1]} {share:6.1%} of {wanted:6.1%}", flush=True)


def share_of_first(rule: Rule, weights: tuple[float, float], *, seed: int) -> float:
    """As long as both wait."""
    batches = [
        Submitted(name="short", workspace=A, requests=4_000, sizes=around(Sizes(400, 30), seed)),
        Submitted(name="long", workspace=B, requests=1_500, sizes=around(Sizes(2_000, 100), seed + 1)),
    ]
    drive = Drive([Replica(MEDIUM, window=64)], batches, rule=rule, weights={A: weights[0], B: weights[1]}, seed=seed)
    drive.run()
    return drive.cost_of[A] / drive.cost_of.total()
