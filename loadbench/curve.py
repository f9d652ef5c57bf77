"""What a batch of each size takes, from what was measured at some sizes: curves that never fall."""

from itertools import pairwise


def isotonic(values: list[float], weights: list[int]) -> list[float]:
    """The nearest non-decreasing values (least squares; pool adjacent violators)."""
    pools: list[tuple[float, int, int]] = []  # value, weight, how many it stands for
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m, i), (b, n, j) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n, i + j)]
    return [value for value, _, number in pools for _ in range(number)]


def interpolated(known: list[int], values: list[float], largest: int) -> tuple[int, ...]:
    """Straight lines between known sizes, flat before the first, in proportion after the last."""
    table = [values[0]] * known[0]
    for (low, start), (high, end) in pairwise(zip(known, values, strict=True)):
        table.append(start)
        if high > low + 1:
            table += [start + (end - start) * n / (high - low) for n in range(1, high - low)]
    table += [values[-1] * rows / known[-1] for rows in range(known[-1], largest + 1)]
    return tuple([round(value) for value in table[: largest + 1]])
