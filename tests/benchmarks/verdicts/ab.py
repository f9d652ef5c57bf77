"""`loadbench ab --margin "2 %"` against known truth: 0 and 5 % in the service time of `local:fake`.

    python -m tests.benchmarks.verdicts.ab       # [--quick] [--sessions 20] [--kept FILE]

Real sessions first, at 30 % load, where the latency moves by the same share as the service time:
what each said is told as it was. Their pairs are drawn from again and again for 10,000 sessions,
looked at after each pair as a session is; of sessions without a difference the sides are exchanged
by chance. Beside it the same by two separate runs, one of each, of as many blocks as a session has:
all runs of one setting against each other, and against those of the other. And sessions of noise
whose law is known, on a machine that drifts: is a verdict false in more than 1 % of them?
`--kept` is where what was recorded goes, and is read from if it is there.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench import runlog
from loadbench.judge import shift
from loadbench.judge.paired import fewest, judge, limits
from loadbench.merge import merge
from loadbench.model import Window
from loadbench.units import MS
from tests.benchmarks.verdicts.told import result

A_MS, SLOWER, RATE = 80.0, 1.05, 3  # 1 ms of the machine is little beside it
MARGIN = 0.02
BLOCK_S, PAIRS = 3, 9  # of the default budget at this rate
AT_ONCE = 4  # real sessions
_SCENARIO = """
[target]
url = "local:fake"
[engine]
max_batch = 1
fake = { a = "%g us" }
[load]
arrivals = "poisson"
phases = [{ rate = %d, for = "%ds" }]
"""

Floats = NDArray[np.float64]


def scenario(folder: Path, name: str, service_ms: float) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(_SCENARIO % (service_ms * 1000, RATE, PAIRS * BLOCK_S))
    return path


def called(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "loadbench", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def sessions(folder: Path, number: int) -> dict[str, list[dict[str, Any]]]:
    """So many real ones without and with a difference, in turns, some at a time: each takes little
    of a core."""
    same, other = (scenario(folder, *one) for one in (("same", A_MS), ("other", A_MS * SLOWER)))
    found: dict[str, list[dict[str, Any]]] = {"0 %": [], "5 %": []}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [
            (name, pool.submit(session, same, b, folder / f"{index}{name[0]}"))
            for index in range(number)
            for name, b in (("0 %", same), ("5 %", other))
        ]
        for name, told in asked:
            found[name].append(kept := told.result())
            print(f"  {name}: {kept['word']} after {kept['n']} pairs,"
                  f" {kept['shift']:+.2%}, {', '.join(kept['trust'])}", flush=True)  # fmt: skip
    return found


def session(a: Path, b: Path, out: Path) -> dict[str, Any]:
    """What it says of P50."""
    told = called("ab", a, b, "--out", out, "--budget", "60s", "--margin", "2 %")
    p50 = told["rows"][0]
    kept = {key: p50[key] for key in ("word", "shift", "low", "high", "n", "values")}
    return {**kept, "trust": sorted(told["trust"].values())}


def separate(folder: Path, number: int) -> dict[str, list[list[float]]]:
    """So many separate runs of each setting, in turns: the P50 (ms) of each second but a block's
    first."""
    files = [scenario(folder, *one) for one in (("alone", A_MS), ("slower", A_MS * SLOWER))]
    found: dict[str, list[list[float]]] = {"0 %": [], "5 %": []}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [
            (name, pool.submit(alone, file, folder / f"{index}{name[0]}-alone"))
            for index in range(number)
            for name, file in zip(found, files, strict=True)
        ]
        for name, told in asked:
            found[name].append(told.result())
    return found


def alone(file: Path, out: Path) -> list[float]:
    told = called("run", file, "--out", out, "--on-no-verdict", "warn")
    path = runlog.find(told["run"], out)
    load = [w for w in runlog.read(path) if isinstance(w, Window) and w.stage == "load"]
    p50 = (merge([w]).latency.quantile(0.5) for w in load[1::BLOCK_S])
    return [ns / MS for ns in p50 if ns is not None]


def by_separate_runs(kept: dict[str, list[list[float]]]) -> dict[str, Counter[str]]:
    """What blocks of single runs say when they are taken for repeats, which they are not."""
    allowed = shift.Limits(math.log1p(MARGIN), math.log1p(MARGIN))
    words: dict[str, Counter[str]] = {"0 %": Counter(), "5 %": Counter()}
    for name in words:
        for i, a in enumerate(kept["0 %"]):
            for j, b in enumerate(kept[name]):
                if name != "0 %" or i != j:
                    found = shift.between(a, b)
                    words[name][shift.word(found, allowed, 0.005, 0.005)] += 1
    return words


def look(pairs: Sequence[tuple[float | None, float | None]]) -> tuple[str, int]:
    """What a session says, and after how many pairs, that is looked at after each of them."""
    allowed = limits(PAIRS)
    for n in range(fewest() - 2, PAIRS + 1):
        found = judge("p50", pairs[:n], MARGIN, allowed)
        if found.decided:
            return found.word, n
    return found.word, PAIRS


def resampled(
    recorded: list[dict[str, Any]], number: int, exchange: bool
) -> Iterator[tuple[str, int]]:
    """Sessions whose pairs are drawn from those of one recorded session each."""
    draw = np.random.Generator(np.random.PCG64(6))
    for index in range(number):
        pairs = recorded[index % len(recorded)]["values"]
        chosen = [tuple(pairs[at]) for at in draw.integers(len(pairs), size=PAIRS)]
        if exchange:
            turned = draw.random(PAIRS) < 0.5
            chosen = [(b, a) if t else (a, b) for (a, b), t in zip(chosen, turned, strict=True)]
        yield look([(a, b) for a, b in chosen])


NOISE: dict[str, Callable[[np.random.Generator, float], Floats]] = {
    "normal": lambda draw, sd: draw.normal(0, sd, 2 * PAIRS),
    "heavy tails (Student, 3)": lambda draw, sd: draw.standard_t(3, 2 * PAIRS) * sd / math.sqrt(3),
    "one block in ten disturbed": lambda draw, sd: (
        draw.normal(0, sd, 2 * PAIRS)
        + (draw.random(2 * PAIRS) < 0.1) * draw.exponential(10 * sd, 2 * PAIRS)
    ),
    "a steady drift of 20 %": lambda draw, sd: (
        draw.normal(0, sd, 2 * PAIRS) + np.linspace(0, 0.2, 2 * PAIRS)
    ),
    "slow waves of 10 %": lambda draw, sd: (
        draw.normal(0, sd, 2 * PAIRS)
        + 0.05 * np.sin(np.arange(2 * PAIRS) / draw.uniform(2, 8) + draw.uniform(0, 7))
    ),
}  # fmt: skip


def known_noise(number: int, sd: float, ratio: float) -> Iterator[tuple[str, Counter[str], float]]:
    """Of each law of noise: what sessions with so much of it in each block said, and how many
    pairs they took on average."""
    turns = np.array([(block + 1) // 2 % 2 for block in range(2 * PAIRS)])
    for name, noise in NOISE.items():
        draw = np.random.Generator(np.random.PCG64(9))
        words: Counter[str] = Counter()
        taken = 0
        for _ in range(number):
            value = np.exp(noise(draw, sd) + turns * math.log(ratio))
            two = value.reshape(PAIRS, 2)
            first = turns.reshape(PAIRS, 2)[:, 0] == 0
            pairs = np.where(first[:, None], two, two[:, ::-1]).tolist()
            word, n = look([(a, b) for a, b in pairs])
            words[word] += 1
            taken += n
        yield name, words, taken / number


def said(words: Counter[str]) -> str:
    total = sum(words.values())
    order = ("worse", "better", "same", "ruled out", "inconclusive")
    return ", ".join(f"{word} {words[word] / total:.2%}" for word in order if words[word])


def wrong(words: Counter[str], truth: str) -> float:
    """The share of false verdicts."""
    false = ("worse", "better") if truth == "0 %" else ("better", "same", "ruled out")
    return sum(words[word] for word in false) / sum(words.values())


def recorded(kept: Path | None, number: int, alone: int) -> dict[str, Any]:
    if kept and kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    with tempfile.TemporaryDirectory(prefix="loadbench-ab-") as place:
        print(f"{number} + {number} real sessions of up to a minute:")
        made = {"sessions": sessions(Path(place), number), "runs": separate(Path(place), alone)}
    if kept:
        kept.write_text(json.dumps(made))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one session of each, 500 drawn")
    parser.add_argument("--sessions", type=int, default=20, help="real ones of each kind")
    parser.add_argument("--runs", type=int, default=4, help="separate ones of each setting")
    parser.add_argument("--kept", type=Path, help="where what was recorded is kept")
    given = parser.parse_args(arguments)
    real, alone, drawn = (1, 2, 500) if given.quick else (given.sessions, given.runs, 10_000)
    made = recorded(given.kept, real, alone)
    good = True
    for name, told in made["sessions"].items():
        words = Counter(one["word"] for one in told)
        pairs = sorted(one["n"] for one in told)
        result(f"{name}: {len(told)} real: {said(words)}; pairs {pairs[0]}–{pairs[-1]}")
        again = list(resampled(told, drawn, exchange=name == "0 %"))
        words = Counter(word for word, _ in again)
        mean = sum(n for _, n in again) / drawn
        result(f"{name}: {drawn:,} from their pairs: {said(words)}; {mean:.1f} pairs on average")
        good &= wrong(words, name) <= 0.01
        good &= name == "0 %" or words["worse"] >= 0.95 * drawn
    for name, words in by_separate_runs(made["runs"]).items():
        result(f"{name}: {sum(words.values())} of two separate runs: {said(words)}")
    for sd in (0.01, 0.03):
        for ratio, truth in ((1.0, "0 %"), (SLOWER, "5 %")):
            for name, words, mean in known_noise(drawn // 5, sd, ratio):
                print(f"{truth}, {name}, {sd:.0%}: {said(words)}; {mean:.1f} pairs on average")
                good &= truth != "0 %" or wrong(words, truth) <= 0.015  # of 2,000
    print("as it should be" if good else "NOT as it should be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
