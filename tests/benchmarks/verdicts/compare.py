"""How often `loadbench compare` is wrong, and how often it finds what is there.

    python -m tests.benchmarks.verdicts.compare            # [--quick] [--repeats 60] [--out DIR]

First the rule alone, on runs whose figures are drawn with a known run-to-run spread: how often it
says "worse" of two sides that are alike, how often it finds a difference, and whether the smallest
difference that it says it would find is that. Then real runs: the known-answer engine with a
service time drawn anew for each batch (lognormal, cv 0.3) at two settings 10 % apart, in random
order, with a busy process beside half of them. Pairs of 6 + 6 are drawn from these, and all that
are disjoint are told as they came. The two settings are not exactly 10 % apart in their figures, so
runs of one setting are also held against others of it whose latencies are taken as longer by just
10 and 15 %: a difference that is known, in noise that is real.

The smallest regression that a comparison tells is of that comparison: with the spread of its own
runs, most of which have no bad one among them, and some do. So each pair is made longer by what it
tells itself, and by a fifth more and less: 95 % must be found with a fifth more, in noise of
whatever kind. Exits with 1 if it is wrong more often than it may be.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loadbench import runlog
from loadbench.judge.comparison import Terms, compare
from loadbench.judge.shift import LEVEL, Limits, between, least_found, spread, word
from loadbench.judge.side import Side
from tests.benchmarks.verdicts.told import result

SIDE = 6  # repeats
LIMITS = Limits(math.log1p(0.05), -math.log1p(-0.05))
GATED = ("p50", "p95", "p99")  # all together where false alarms are counted
FALSE, FOUND, OFF = 0.01, 0.95, 0.2  # what is promised
OWN = (1 - OFF, 1.0, 1 + OFF)
_SERVICE_MS = {"a": 5.0, "b": 5.5}
_SCENARIO = """
[target]
url = "local:fake"
[engine]
max_batch = 1
[engine.fake]
a = "{a} ms"
service = "lognormal(0.3)"
[load]
arrivals = "constant"
warmup = "0s"
phases = [{{ rate = 100, for = "{seconds}s" }}]
"""


Runs = tuple[dict[str, Any], ...]
Pairs = list[tuple[Runs, Runs]]


class Rule(NamedTuple):
    """What the rule did at one run-to-run spread: shares, and the true over the told difference."""

    sd: float
    false: float
    found: dict[float, float]
    told: float
    true: float
    own: tuple[float, ...]  # found of those made longer by OWN × what each tells


def rule(sd: float, draws: int, seed: int) -> Rule:
    """On figures that are drawn: the logarithms normal, 6 a side, one gated metric."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, sd, (draws, 2, SIDE))
    found = {by: _said(noise, math.log1p(by)) / draws for by in (0.10, 0.15)}
    few = noise[:2000]
    told = np.array([_told(a, b) for a, b in few])
    own = tuple(_said(few, np.log1p(times * np.expm1(told))) / len(few) for times in OWN)
    middle = math.expm1(float(np.median(told)))
    return Rule(sd, _said(noise, 0.0) / draws, found, middle, _true(noise), own)


def _told(a: Any, b: Any) -> float:
    """The smallest regression that the rule tells of such a pair, as a logarithm."""
    return least_found(np.exp(a).tolist(), np.exp(b).tolist(), LIMITS.bad, LEVEL) or 0.0


def _said(noise: Any, log: Any) -> int:
    """How many of the pairs are called worse if B is larger by that, of all or of each."""
    logs = np.broadcast_to(log, len(noise))
    return sum(
        word(between(np.exp(a), np.exp(b + one)), LIMITS, LEVEL, LEVEL) == "worse"
        for (a, b), one in zip(noise, logs, strict=True)
    )


def _true(noise: Any) -> float:
    """The difference that is found in 95 % of the pairs, by trying."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        if _said(noise[:3000], middle) < FOUND * len(noise[:3000]):
            low = middle
        else:
            high = middle
    return math.expm1(high)


@contextmanager
def disturbance(wanted: bool) -> Iterator[None]:
    """A process that keeps a core busy, or none."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            yield
        finally:
            busy.kill()


def record(folder: Path, repeats: int, seconds: int) -> dict[str, list[dict[str, Any]]]:
    """The snapshots of so many runs at each setting; those that are there already are kept."""
    for name, ms in _SERVICE_MS.items():
        (folder / f"{name}.toml").write_text(_SCENARIO.format(a=ms, seconds=seconds))
    order = [(name, n % 2 == 0) for name in _SERVICE_MS for n in range(repeats)]
    random.Random(9).shuffle(order)
    for number, (name, disturbed) in enumerate(order):
        made = folder / f"{number:03}-{name}"
        if any((made / path.name / runlog.SNAPSHOT).exists() for path in runlog.runs(made)):
            continue
        with disturbance(disturbed):
            subprocess.run(
                [sys.executable, "-m", "loadbench", "run", f"{folder / name}.toml",
                 "--out", str(made), "--on-no-verdict", "warn"],
                capture_output=True, check=True,
            )  # fmt: skip
        if number % 10 == 9:
            print(f"  {number + 1} of {len(order)} runs", file=sys.stderr, flush=True)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _SERVICE_MS}
    for number, (name, disturbed) in enumerate(order):
        (run,) = runlog.runs(folder / f"{number:03}-{name}")
        found[name].append({**runlog.read_snapshot(run), "disturbed": disturbed})
    return found


def verdicts(
    a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]], metrics: Sequence[str]
) -> dict[str, str]:
    """Metric → word."""
    found = compare(Side("A", tuple(a)), Side("B", tuple(b)), Terms(tuple(metrics)))
    return {row.metric: row.word for row in found.gated}


def pairs(
    pool: dict[str, list[dict[str, Any]]], many: int
) -> tuple[float, dict[str, float], Counter[str]]:
    """Of pairs drawn from the runs: how often one side is called worse though alike, how often the
    slower is found by one gated metric, and by which words."""
    draw = random.Random(10)
    false = 0
    for number in range(many):
        alike = draw.sample(pool["ab"[number % 2]], 2 * SIDE)
        false += "worse" in verdicts(alike[:SIDE], alike[SIDE:], GATED).values()
    found: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for _ in range(many):
        a, b = (draw.sample(pool[name], SIDE) for name in "ab")
        for metric in ("p50", "p99"):
            said = verdicts(a, b, (metric,))[metric]
            found[metric] += said == "worse"
            words[f"{metric} {said}"] += 1
    return false / many, {name: count / many for name, count in found.items()}, words


def longer(run: dict[str, Any], by: float) -> dict[str, Any]:
    """As if each of its latencies had been longer by that share."""
    told = run["summary"]["latency_ms"]
    changed = {name: None if ms is None else ms * (1 + by) for name, ms in told.items()}
    return {**run, "summary": {**run["summary"], "latency_ms": changed}}


def found_longer(drawn: Pairs, metric: str, by: Sequence[float]) -> tuple[float, list[float]]:
    """Of such pairs, one side of each made longer by its share: how many are called worse, and the
    smallest regression that each tells."""
    worse, least = 0, []
    for (a, b), share in zip(drawn, by, strict=True):
        sides = Side("A", a), Side("B", tuple(longer(run, share) for run in b))
        (row,) = compare(*sides, Terms((metric,))).gated
        worse += row.word == "worse"
        least.append(math.inf if row.mde is None else row.mde)
    return worse / len(drawn), least


def known(runs: Sequence[dict[str, Any]], many: int) -> list[str]:
    """Of pairs drawn from the runs of one setting, one side longer by a share that is known: how
    often that is found, and how often what each of them tells would be. What does not hold."""
    draw, wrong = random.Random(11), []
    drawn: Pairs = []
    for _ in range(many):
        both = draw.sample(runs, 2 * SIDE)
        drawn.append((tuple(both[:SIDE]), tuple(both[SIDE:])))
    for metric, by, quiet in (("p50", 0.10, 0.03), ("p99", 0.15, 0.04)):
        sd = spread([run["summary"]["latency_ms"][metric] for run in runs]) or 0.0
        found, least = found_longer(drawn, metric, [by] * many)
        result(
            f"{metric} longer by just {by:.0%}, run-to-run sd {sd:.1%}: {found:.1%} called worse"
        )
        own = [found_longer(drawn, metric, [times * one for one in least])[0] for times in OWN]
        told = ", ".join(
            f"× {times:.2g}: {share:.1%}" for times, share in zip(OWN, own, strict=True)
        )
        result(
            f"{metric} longer by what each pair tells (median {statistics.median(least):+.1%}): "
            f"found {told}"
        )
        if sd <= quiet and found < FOUND:
            wrong.append(f"+{by:.0%} of {metric} was found in {found:.1%}")
        if own[-1] < FOUND:
            wrong.append(f"{1 + OFF:.0%} of what is told of {metric} is found in {own[-1]:.1%}")
    return wrong


def simulated(draws: int) -> list[str]:
    """Prints the rule's table; what does not hold."""
    heads = ("run-to-run sd", "false worse", "+10 % found", "+15 % found", "told to be found",
             "truly", *(f"× {times:.2g} of what each tells" for times in OWN))  # fmt: skip
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    wrong = []
    for sd in (0.02, 0.03, 0.04, 0.05, 0.06):
        one = rule(sd, draws, seed=round(sd * 1000))
        cells = (
            f"{sd:.0%}", f"{one.false:.2%}", f"{one.found[0.10]:.1%}", f"{one.found[0.15]:.1%}",
            f"{one.told:+.1%}", f"{one.true:+.1%}", *(f"{own:.1%}" for own in one.own),
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)
        wrong += [f"{one.false:.2%} false at sd {sd}"] if one.false > FALSE else []
        off = abs(one.told / one.true - 1)
        wrong += [f"told {one.told:.1%}, true {one.true:.1%} at sd {sd}"] if off > OFF else []
        if one.own[-1] < FOUND:
            wrong.append(f"a fifth more than told is found in {one.own[-1]:.1%} at sd {sd}")
        if sd <= 0.03 and one.found[0.10] < FOUND:
            wrong.append(f"+10 % found in {one.found[0.10]:.1%} at sd {sd}")
        if sd <= 0.04 and one.found[0.15] < FOUND:
            wrong.append(f"+15 % found in {one.found[0.15]:.1%} at sd {sd}")
    return wrong


def real(folder: Path, repeats: int, seconds: int, many: int) -> list[str]:
    """Prints what came of real runs; what does not hold."""
    begun = time.monotonic()
    pool = record(folder, repeats, seconds)
    for name in list(pool):
        fit = [one for one in pool[name] if one["summary"]["trust"] != "invalid"]
        print(f"setting {name} ({_SERVICE_MS[name]} ms): {len(fit)} of {len(pool[name])} runs fit")
        if len(fit) < 2 * SIDE:
            return [f"of setting {name} {len(fit)} runs can be trusted: pairs take {2 * SIDE}"]
        pool[name] = fit
        for metric in ("p50", "p99"):
            values = [one["summary"]["latency_ms"][metric] for one in fit]
            said = f"{statistics.median(values):.2f} ms, run-to-run sd {spread(values):.1%}"
            result(f"{_SERVICE_MS[name]} ms: {metric} {said}")
    print(f"recorded in {time.monotonic() - begun:,.0f} s")
    false, found, words = pairs(pool, many)
    result(f"{many} drawn pairs alike, {', '.join(GATED)} gated: {false:.2%} called worse")
    for metric, share in found.items():
        result(f"{many} drawn pairs 10 % apart, {metric} gated: {share:.1%} called worse")
    print(f"  words: {json.dumps(dict(sorted(words.items())))}")
    disjoint(pool)
    p50 = [one["summary"]["latency_ms"]["p50"] for one in pool["a"]]
    wrong = [f"{false:.2%} of pairs alike were called worse"] if false > FALSE else []
    if (spread(p50) or 1.0) <= 0.03 and found["p50"] < FOUND:
        wrong.append(f"+10 % of p50 was found in {found['p50']:.1%}")
    return wrong + known(pool["a"], many // 5)


def disjoint(pool: dict[str, list[dict[str, Any]]]) -> None:
    """Pairs that share no run, as they came."""
    for left, right, metrics in (("a", "b", ("p50",)), ("a", "a", GATED), ("b", "b", GATED)):
        first, second = pool[left], pool[right]
        if left == right:
            first, second = first[::2], second[1::2]
        starts = range(0, min(len(first), len(second)) - SIDE + 1, SIDE)
        found = [verdicts(first[at : at + SIDE], second[at : at + SIDE], metrics) for at in starts]
        told = "; ".join(", ".join(one.values()) for one in found)
        result(f"{len(found)} disjoint pairs {left}{right}, {', '.join(metrics)} gated: {told}")


def main() -> None:
    """Prints all of it; exits with 1 if it does not hold what is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short runs")
    parser.add_argument("--repeats", type=int, help="at each of the two settings; 60")
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--out", type=Path, help="where the runs lie, to go on there")
    parser.add_argument("--rule-only", action="store_true", help="no real runs")
    asked = parser.parse_args()
    wrong = simulated(2000 if asked.quick else 10_000)
    if not asked.rule_only:
        repeats = asked.repeats or (14 if asked.quick else 60)
        with tempfile.TemporaryDirectory() as scratch:
            folder = asked.out or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            wrong += real(folder, repeats, asked.seconds, 1000 if asked.quick else 5000)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
