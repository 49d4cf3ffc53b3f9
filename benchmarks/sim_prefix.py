"""Table `prefix`: how much of what could come from prefix caches does, by order and by placing."""

from overnight.testing import backlogscenes as scenes
from overnight.testing.backlogdrive import OURS, Rule
from overnight.testing.backlogscenes import Computed, Placing, Prompts

BY_TURNS = Rule(name="round robin", deal=scenes.by_turns)
BY_HASH = Rule(name="hash", deal=scenes.by_hash)


def orders(prompts: Prompts, seed: int) -> list[tuple[str, Placing, Rule]]:
    """Name, order, and rule."""
    return [
        ("ours", scenes.in_order, OURS),
        ("submission order", scenes.submitted(prompts), OURS),
        ("shuffled", scenes.shuffled(prompts, seed), OURS),
        ("sorted, round robin", scenes.in_order, BY_TURNS),
        ("sorted, hash", scenes.in_order, BY_HASH),
    ]


def table(*, seed: int, is_full: bool) -> None:
    """Print it. `is_full`: five times the requests."""
    times = 5 if is_full else 1
    for replicas, prompts in (
        (1, Prompts(requests=4_000 * times)),
        (8, Prompts(requests=16_000 * times)),
        (8, Prompts(requests=16_000 * times, uses=4)),
        (8, Prompts(requests=16_000 * times, shared=320, own=80)),
    ):
        print(
            f"\n{replicas} replicas, {prompts.requests:,} requests of {prompts.shared} + {prompts.own} tokens, each"
            f" prefix used {prompts.uses} times: one miss per prefix is {prompts.ideal:,} tokens"
        )
        print(f"  {'':20} {'of ideal hits':>13} {'prefilled':>11} {'of ours':>7} {'spread':>6} {'took':>8}")
        ours = 0
        for name, placing, rule in orders(prompts, seed):
            found = scenes.computed(prompts, placing, rule, replicas=replicas, seed=seed)
            ours = ours or found.prefilled_tokens
            _print(name, found, ours)
    _odd(seed)


def _odd(seed: int) -> None:
    small = Prompts(requests=1_000, shared=320, own=80)
    print("\none segment of 1,000 requests over 8 replicas (8 in flight each), by stealing halves")
    found = scenes.computed(small, scenes.in_order, OURS, replicas=8, window=8, seed=seed)
    _print("ours", found, found.prefilled_tokens)
    print("\ntwo replicas, one 10 times slower: its part should be 1 / 11")
    for name, rule in (("ours", OURS), ("sorted, hash", BY_HASH)):
        found = scenes.computed(Prompts(requests=8_000), scenes.in_order, rule, replicas=2, slow=10, seed=seed)
        _print(name, found, found.prefilled_tokens)
    print("\n8 replicas, nothing is shared")
    alone = Prompts(requests=16_000, uses=1, shared=0, own=400)
    for name, rule in (("ours", OURS), ("round robin", BY_TURNS)):
        found = scenes.computed(alone, scenes.in_order, rule, replicas=8, seed=seed)
        _print(name, found, found.prefilled_tokens)


def _print(name: str, found: Computed, ours: int) -> None:
    print(
        f"  {name:20} {found.hit_share:13.1%} {found.prefilled_tokens:11,} {found.prefilled_tokens / ours:6.2f}x"
        f" {found.spread:6.1%} {found.took_s:6.1f} s",
        flush=True,
    )
