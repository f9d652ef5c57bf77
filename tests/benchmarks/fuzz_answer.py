"""Takes answers apart byte by byte: does what was learned ever say otherwise than the parser?

    python -m tests.benchmarks.fuzz_answer [--for 5m] [--seed N]

Changes answers at random, keeps what led to something new and changes that further. Each case in
which the fast way and httptools differ is printed as tests/test_answer_fuzz.py takes it. Exits
with 1 when there was one.
"""

import argparse
import random
import sys
import time

from loadbench.units import SECOND, parse_duration
from tests.answers import GOOD, Case, both, made

KEPT = 2000  # cases in the corpus
SHOWN = 20


def shorter(case: Case) -> Case:
    """The same difference with fewer bytes taught and fewer cuts, where that is possible."""
    for taught in [(one,) for one in case.taught]:
        fewer = case._replace(taught=taught)
        seen = both(fewer)
        if seen[0] != seen[1]:
            case = fewer
            break
    for cut in case.cuts:
        fewer = case._replace(cuts=tuple(other for other in case.cuts if other != cut))
        seen = both(fewer)
        if seen[0] != seen[1]:
            case = fewer
    return case


def fuzz(length_s: float, seed: int) -> int:
    """The number of differences."""
    draw = random.Random(seed)
    corpus: list[bytes] = [data for good in GOOD.values() for data in good]
    known: set[tuple[object, ...]] = set()
    differences: dict[tuple[object, ...], Case] = {}
    cases, end = 0, time.monotonic() + length_s
    while time.monotonic() < end and len(differences) < SHOWN:
        case = made(draw, corpus)
        fast, slow = both(case)
        cases += 1
        if fast != slow:
            sign = (case.check, *fast, *slow)
            if sign not in differences:
                differences[sign] = shorter(case)
                print(f"{fast}\n{slow}\n    {differences[sign]!r},\n", flush=True)
        sign = (case.check, fast.failure, fast.pieces, fast.reusable, len(case.data).bit_length())
        if sign not in known:
            known.add(sign)
            corpus.append(case.data)
        elif draw.random() < 0.01 and fast.failure == "":
            corpus[draw.randrange(len(corpus))] = case.data
        if len(corpus) > KEPT:
            del corpus[draw.randrange(len(corpus))]
    print(f"{cases:,} cases from seed {seed}, {len(corpus):,} kept: {len(differences)} differ")
    return len(differences)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="length", default="5m")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args()
    return int(fuzz(parse_duration(given.length) / SECOND, given.seed) > 0)


if __name__ == "__main__":
    sys.exit(main())
