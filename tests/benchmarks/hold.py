"""What `engine.hold` does to closed loops, open ones and a mix, on a virtual clock.

    python -m tests.benchmarks.hold [--seeds 5] [--seconds 3]

Without and with holding, the same clients each time. `x` is the rate of closed loops and the mean
latency of open ones, with by against without, as mean ± twice its standard error over the seeds.
Under `size` is the mean batch: half batches that take turns are half of the connections.
"""

import argparse
from collections.abc import Callable
from math import sqrt
from statistics import mean, stdev

from tests.loops import MODELS, Machine, World, both, exponential, steady, uniform


def mixed(world: World) -> None:
    world.closed(16, steady(0.2))
    world.opened(0.3 * 32_000 / world.machine.service(32))


def loads() -> dict[str, tuple[Callable[[World], None], tuple[str, ...]]]:
    found: dict[str, tuple[Callable[[World], None], tuple[str, ...]]] = {}
    thinks = {"0.1 ms": steady(0.1), "0.1-1 ms": uniform(0.1, 1), "exp. 0.3 ms": exponential(0.3)}
    for number in (1, 2, 8, 32, 64, 128):
        for name, think in thinks.items():
            found[f"{number} closed, {name}"] = (
                lambda w, n=number, t=think: w.closed(n, t), ("closed",)
            )  # fmt: skip
    for load in (0.1, 0.3, 0.6, 0.85):
        found[f"open, load {load}"] = (
            lambda w, x=load: w.opened(x * 32_000 / w.machine.service(32)), ("open",)
        )  # fmt: skip
    return found | {"16 closed and open, load 0.3": (mixed, ("closed", "open"))}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=3.0)
    given = arguments.parse_args()
    for model, service in MODELS.items():
        for shared in (False, True):
            print(f"\n{model}, {'one core for all' if shared else 'a core for the front end'}")
            for name, (clients, kinds) in loads().items():
                runs = [
                    both(Machine(service, seed=seed, shared=shared), clients, kinds, given.seconds)
                    for seed in range(1, given.seeds + 1)
                ]
                for kind in kinds:
                    pairs = [run[kind] for run in runs]
                    ratios = [
                        on.rate / off.rate if kind == "closed" else on.mean_ms / off.mean_ms
                        for off, on in pairs
                    ]
                    error = 2 * stdev(ratios) / sqrt(len(ratios)) if len(ratios) > 1 else 0.0
                    off_size, on_size = (mean(pair[i].size for pair in pairs) for i in (0, 1))
                    held = mean(on.held for _, on in pairs)
                    print(f"  {name:30} {kind:6} x{mean(ratios):.3f} ± {error:.3f}", end="")
                    print(f"  size {off_size:.1f} -> {on_size:.1f}  held {held:.2f}", flush=True)


if __name__ == "__main__":
    main()
