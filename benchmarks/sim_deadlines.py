"""Table `deadlines`: a day of whales, small batches and urgent ones, by whose turn it is."""

from statistics import median

from overnight.testing import daydrive
from overnight.testing.backlogdrive import EDF, FIFO, IN_REQUESTS, OURS, PLAIN
from overnight.testing.backlogscenes import afternoon, spent

POLICIES = {
    "ours": daydrive.ours,
    "fair, no guard": daydrive.fair,
    "round robin": daydrive.round_robin,
    "EDF": daydrive.edf,
    "FIFO": daydrive.fifo,
    "oracle": daydrive.oracle,
}


def table(*, seed: int, is_full: bool) -> None:
    """Print it. `is_full`: afternoons of six hours instead of two."""
    for title, pieces in (
        ("three whales, load 0.90", daydrive.mixed(load=0.9, seed=seed)),
        ("ten whales, urgent ones need 35 %, load 0.90", daydrive.crowded(load=0.9, seed=seed)),
        ("three whales, load 1.20", daydrive.mixed(load=1.2, seed=seed)),
    ):
        units = sum(piece.units for piece in pieces)
        print(f"\n{title}: {len(pieces)} batches, {units:,} units of a second")
        print(f"  {'':16} {'small wait':>10} {'small':>6} {'urgent':>6} {'whales':>6} {'in time of EDF':>14}")
        in_time = daydrive.live(pieces, daydrive.edf).in_time
        for name, policy in POLICIES.items():
            day = daydrive.live(pieces, policy)
            missed = " ".join(f"{day.missed.get(kind, 0):6}" for kind in ("small", "urgent", "whale"))
            print(f"  {name:16} {day.wait_min:6.1f} min {missed} {day.in_time / in_time:14.1%}", flush=True)
    for load in (0.9, 1.2):
        _afternoon(load, seed=seed, hours=6 if is_full else 2)


def _afternoon(load: float, *, seed: int, hours: int) -> None:
    batches = afternoon(whales=10, load=load, seed=seed, hours=hours)
    asked = sum(item.requests for item in batches)
    drives = {rule.name: spent(batches, rule, seed=seed) for rule in (OURS, PLAIN, IN_REQUESTS, EDF, FIFO)}
    missed = {name: sum(item.missed for item in drive.ended) for name, drive in drives.items()}
    print(f"\nreal pools, {hours} h, ten whales, load {load:.2f} of three requests a second: {asked:,} requests")
    print(
        f"  {'':16} {'small wait':>10} {'missed: small':>13} {'urgent':>6} {'whales':>6}"
        f" {'in time of EDF':>14} {'holes':>5}"
    )
    for name, drive in drives.items():
        of = {
            kind: sum(item.missed for item in drive.ended if item.submitted.name.startswith(kind))
            for kind in ("small", "urgent", "whale")
        }
        wait_min = median(item.took_s for item in drive.ended if item.submitted.name.startswith("small")) / 60
        print(
            f"  {name:16} {wait_min:6.1f} min {of['small']:13} {of['urgent']:6} {of['whale']:6}"
            f" {(asked - missed[name]) / (asked - missed['EDF']):14.1%} {drive.holes:5}",
            flush=True,
        )
