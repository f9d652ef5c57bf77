"""Latency histograms: HdrHistogram's buckets, filled from arrays, kept sparse.

One layout for the whole project, 1 µs to 1 h at three significant digits, values in nanoseconds,
so any two histograms merge exactly. In the log they are HdrHistogram's own V2 encoding (base64),
made and read by the `hdrhistogram` package, so that its tools read our files. That package records
one value at a time; here whole arrays are counted at once, and what is held in memory is only the
buckets in use: a dense array of counts takes 196 kB, a second of requests some hundred buckets. Of
its decoder only the part in C is used, which reads the counts: a long run has thousands.
"""

import binascii
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray
from pyhdrh import decode as unpack

LOWEST_NS = 1_000
HIGHEST_NS = 3_600_000_000_000
DIGITS = 3

_UNIT = 9  # floor(log2(LOWEST_NS)): the smallest bucket is 512 ns wide
_HALF_BITS = 10  # sub-buckets per power of two: 2 ** 10
_HALF = 1 << _HALF_BITS
_DENSE = 24 << _HALF_BITS  # buckets of this layout, as HdrHistogram counts them
_SMALL = (1 << 32) - 1
_MOST_BYTES = _DENSE * 9 + 100  # unpacked
_LONGEST = 2 * _MOST_BYTES  # characters of a text
_AT_ONCE = 1 << 16  # counts, of 8 bytes: more memory the system would give anew each time
_MASK = ((_HALF << 1) - 1) << _UNIT

Ints = NDArray[np.int64]

_OUTER, _INNER = struct.Struct(">II"), struct.Struct(">IIIIQQd")
_PACKED, _COOKIE, _WORD = 0x1C849304, 0x1C849303, 0xF0  # the last: bits that say nothing in V2
_NONE = np.empty(0, np.int64)
# what is decoded passes through these: to have 200 kB for each takes longer than all of the rest
_counts = np.zeros(_DENSE, np.int64)
_ADDRESS = _counts.ctypes.data
_decoding = Lock()


def _indices(values: Ints) -> Ints:
    """The bucket of each value; values outside the range go to its ends."""
    clipped = np.clip(values, 0, HIGHEST_NS)
    # frexp of an int below 2 ** 53 is exact: its exponent is the number of bits
    bits = np.frexp((clipped | _MASK).astype(np.float64))[1].astype(np.int64)
    bucket = bits - (_UNIT + _HALF_BITS + 1)
    return ((bucket + 1) << _HALF_BITS) + (clipped >> (bucket + _UNIT)) - _HALF


def _lower(indices: NDArray[Any]) -> tuple[Ints, Ints]:
    """The smallest value of each bucket and the bucket's width, in ns."""
    indices = indices.astype(np.int64)
    bucket = (indices >> _HALF_BITS) - 1
    sub = (indices & (_HALF - 1)) + _HALF
    sub = np.where(bucket < 0, sub - _HALF, sub)
    shift = np.maximum(bucket, 0) + _UNIT
    return sub << shift, np.left_shift(np.int64(1), shift)


def _release(dense: HdrHistogram) -> None:
    """The package's histogram and its encoder hold each other, so that the 200 kB of each would
    wait for Python's collector of cycles: megabytes a minute, which a long run would be blamed for.
    """
    dense.encoder.histogram = None


def _unpacked(text: str) -> bytes:
    """The payload of HdrHistogram's V2 encoding. ValueError for what is none, and for what would be
    larger than this layout can be: a few bytes of zeros compressed stand for gigabytes."""
    packed = binascii.a2b_base64(text)
    cookie, length = _OUTER.unpack_from(packed)
    if cookie & ~_WORD != _PACKED or length != len(packed) - _OUTER.size:
        raise ValueError("its beginning is another's")
    unpacking = zlib.decompressobj()
    found = unpacking.decompress(packed[_OUTER.size :], _MOST_BYTES)
    if len(found) == _MOST_BYTES:
        raise ValueError("it unpacks to more than a histogram")
    if not unpacking.eof:
        raise ValueError("it is cut off")
    return found


def _counted(payload: bytes) -> tuple[Ints, Ints]:
    """(indices, counts) of the buckets in use. ValueError for another layout."""
    cookie, _, shifted, digits, lowest, highest, _ = _INNER.unpack_from(payload)
    if cookie & ~_WORD != _COOKIE:
        raise ValueError("its payload is another's")
    if (lowest, highest, digits, shifted) != (LOWEST_NS, HIGHEST_NS, DIGITS, 0):
        raise ValueError(f"another layout: {lowest} to {highest} at {digits} digits")
    with _decoding:
        try:
            told = unpack(payload, _INNER.size, _ADDRESS, _DENSE, 8)
            # only where there are any: to look through all takes longer than all of the rest
            low = 0 if _counts[0] else told["min_nonzero_index"]
            used = _counts[low : told["max_nonzero_index"] + 1]
            places = np.flatnonzero(used) if told["total"] else _NONE
            counts = used[places]
            used[:] = 0
        except Exception as error:  # the package's own kinds
            _counts[:] = 0
            raise ValueError(str(error)) from error
    return places + low, counts


def _quantiles(
    groups: Sequence[Sequence["Histogram"]],
    shares: Sequence[float],
    beyond: Sequence[int],
    start: int,
    width: int,
) -> list[tuple[float | None, ...]]:
    """Of groups whose buckets all lie in [start, start + width): each group a row of counts, all
    rows one behind the other, so that one search finds every rank."""
    parts = [part for group in groups for part in group]
    totals = np.array([sum(part.count for part in group) for group in groups], np.int64)
    asked = (totals + np.array(beyond, np.int64))[:, None] * np.array(shares)[None, :]
    ranks = np.maximum(1, (asked + 0.5).astype(np.int64))
    if not parts:
        return [(math.inf if more else None,) * len(shares) for more in beyond]
    rows = np.arange(len(groups)) * width - start
    places = np.repeat(rows, [sum(part._indices.size for part in group) for group in groups])
    places += np.concatenate([part._indices for part in parts])
    counted = np.concatenate([part._counts for part in parts])
    # sums of doubles: exact to 2 ** 53
    dense = np.bincount(places, weights=counted, minlength=len(groups) * width)
    before = (totals.cumsum() - totals)[:, None]
    found = np.searchsorted(dense.cumsum(), ranks + before)
    low, size = _lower(found % width + start)
    told: list[tuple[float | None, ...]] = []
    for total, more, rank, edge in zip(totals, beyond, ranks, low + size - 1, strict=True):
        if not total:
            told.append((math.inf if more else None,) * len(shares))
        else:
            told.append(tuple(
                math.inf if one > total else int(at) for one, at in zip(rank, edge, strict=True)
            ))  # fmt: skip
    return told


class Histogram:
    """Counts of values (ns) in HdrHistogram buckets. Immutable: operations give new ones."""

    __slots__ = ("_counts", "_indices", "count")

    def __init__(self, indices: Ints, counts: Ints) -> None:
        # a long run is thousands of these: 6 bytes a bucket instead of 16
        self._indices = indices.astype(np.int16)
        self._counts: NDArray[Any] = counts
        if not counts.size or int(counts.max()) <= _SMALL:
            self._counts = counts.astype(np.uint32)
        self.count = int(counts.sum(dtype=np.int64))

    @classmethod
    def of(cls, values: Iterable[int] | Ints) -> "Histogram":
        """Counts an iterable or an int64 array of nanoseconds."""
        array = values if isinstance(values, np.ndarray) else np.array(list(values), np.int64)
        return cls(*np.unique(_indices(array.astype(np.int64, copy=False)), return_counts=True))

    @classmethod
    def merged(cls, parts: Iterable["Histogram"]) -> "Histogram":
        """The histogram of all values of all parts together."""
        found = [part for part in parts if part.count]
        if len(found) < 2:
            return found[0] if found else EMPTY
        indices = np.concatenate([part._indices for part in found])
        low = int(indices.min())
        counted = np.concatenate([part._counts for part in found])
        # sums of doubles: exact to 2 ** 53
        dense = np.bincount(indices - low, weights=counted).astype(np.int64)
        places = np.flatnonzero(dense)
        return cls(places + low, dense[places])

    @classmethod
    def later(cls, parts: Iterable["Histogram"]) -> "Histogram":
        """The same, made when somebody looks: a picture merges more than it shows. Until then it
        holds the parts, so it is not for what is kept."""
        found = tuple(part for part in parts if part.count)
        return _Sum(found) if len(found) > 1 else found[0] if found else EMPTY

    @staticmethod
    def quantiles(
        groups: Sequence[Sequence["Histogram"]], shares: Sequence[float], beyond: Sequence[int]
    ) -> list[tuple[float | None, ...]]:
        """`quantile_of_asked` of each group's parts together, without making their histograms: all
        groups at once, since a picture has hundreds. `beyond` is that of each group."""
        found = [[part for part in group if part.count] for group in groups]
        parts = [part for group in found for part in group]
        if not parts:
            return [(math.inf if more else None,) * len(shares) for more in beyond]
        low = min(int(part._indices[0]) for part in parts)
        width = max(int(part._indices[-1]) for part in parts) - low + 1
        told: list[tuple[float | None, ...]] = []
        begin = used = 0
        for at, group in enumerate(found):
            size = width + sum(part._indices.size for part in group)
            if used and used + size > _AT_ONCE:
                told += _quantiles(found[begin:at], shares, beyond[begin:at], low, width)
                begin = at
                used = 0
            used += size
        return told + _quantiles(found[begin:], shares, beyond[begin:], low, width)

    def rough(self) -> "Histogram":
        """The same in a fifth of the buckets or fewer, for pictures: each eight as the middle one
        of them, so that values are known to half a per cent."""
        if not self.count:
            return self
        middles = (self._indices & ~7) | 3
        firsts = np.flatnonzero(np.diff(middles, prepend=-1))
        return Histogram(middles[firsts], np.add.reduceat(self._counts.astype(np.int64), firsts))

    def minus(self, earlier: "Histogram") -> "Histogram":
        """What came since `earlier`, a former reading of the same cumulative histogram.

        If the counter was set back in between (a server restarted) all of `self` is new.
        """
        dense = np.zeros(_DENSE, np.int64)
        dense[self._indices] = self._counts
        dense[earlier._indices] -= earlier._counts
        if (dense < 0).any():
            return self
        indices = np.flatnonzero(dense)
        return Histogram(indices, dense[indices])

    def quantile(self, share: float) -> int | None:
        """The value (ns) that `share` of all values do not exceed; None when empty.

        HdrHistogram's definition: the highest value that falls into the bucket of that rank.
        """
        if not self.count:
            return None
        rank = max(1, int(share * self.count + 0.5))
        at = int(np.searchsorted(np.cumsum(self._counts), rank))
        low, width = _lower(self._indices[at : at + 1])
        return int(low[0] + width[0] - 1)

    def quantile_of_asked(self, share: float, beyond: int) -> float | None:
        """The quantile when `beyond` further requests failed: those lie above every number.

        Infinity when the rank falls among them, so that whoever refuses most does not win.
        """
        total = self.count + beyond
        rank = max(1, int(share * total + 0.5))
        if not total or rank > self.count:
            return math.inf if total else None
        return self.quantile(rank / self.count)

    @property
    def maximum(self) -> int | None:
        """The largest value to three digits, in ns."""
        return self.quantile(1.0)

    @property
    def total(self) -> float:
        """The sum of all values in ns, from the middles of the buckets (within 0.05 %)."""
        low, width = _lower(self._indices)
        return float(((low + width / 2) * self._counts).sum())

    @property
    def mean(self) -> float | None:
        """The mean in ns, from the middles of the buckets (within 0.05 %)."""
        return self.total / self.count if self.count else None

    def over(self, limit_ns: int) -> int:
        """How many values exceed the limit (to the bucket's precision)."""
        at = _indices(np.array([limit_ns], np.int64))[0]
        return int(self._counts[self._indices > at].sum())

    def buckets(self) -> tuple[Ints, Ints]:
        """(upper edges in ns, counts) of the buckets in use, rising."""
        low, width = _lower(self._indices)
        return low + width - 1, self._counts.astype(np.int64)

    def encode(self) -> str:
        """HdrHistogram V2, compressed, base64."""
        dense = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
        if self.count:
            counts: Any = np.frombuffer(dense.counts, np.int64)
            counts[self._indices] = self._counts
            low, width = _lower(self._indices)
            dense.total_count = self.count
            dense.min_value, dense.max_value = int(low[0]), int(low[-1] + width[-1] - 1)
        text = bytes(dense.encode()).decode("ascii")
        _release(dense)
        return text

    @classmethod
    def decode(cls, text: str) -> "Histogram":
        """Reads what `encode` or any HdrHistogram tool with the same layout wrote.

        Raises ValueError for another layout or text that is no histogram.
        """
        if len(text) > _LONGEST:
            raise ValueError("not an HdrHistogram: the text is too long")
        try:
            indices, counts = _counted(_unpacked(text))
        except (ValueError, struct.error, zlib.error) as error:
            raise ValueError(f"not an HdrHistogram: {error}") from error
        return cls(indices, counts) if counts.size else EMPTY

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Histogram)
            and np.array_equal(self._indices, other._indices)
            and np.array_equal(self._counts, other._counts)
        )

    def __hash__(self) -> int:
        return hash((self.count, self._indices.tobytes()))

    def __repr__(self) -> str:
        return f"Histogram(count={self.count}, p50={self.quantile(0.5)}, max={self.maximum})"


class _Sum(Histogram):
    """Of parts, added up only when its buckets are asked for."""

    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[Histogram, ...]) -> None:
        self._parts = parts
        self.count = sum(part.count for part in parts)

    def __getattr__(self, name: str) -> Any:  # of slots that are empty still
        if name not in ("_indices", "_counts"):
            raise AttributeError(name)
        found = Histogram.merged(self._parts)
        self._indices, self._counts, self._parts = found._indices, found._counts, ()
        return getattr(self, name)


EMPTY = Histogram(np.empty(0, np.int64), np.empty(0, np.int64))
