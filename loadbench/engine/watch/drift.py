"""Do inputs and outputs still look like those of a reference?

A sample of rows is kept of each tensor (every row that came had the same chance to be in it), of
each row up to 64 values at even distances. The two-sample test of Kolmogorov and Smirnov compares
each value's distribution with the reference's. A difference is told when it is certain at 1 % over
all values and all the looks of a run, and more than a tenth of the distribution is elsewhere: with
enough rows anything is certain.
"""

import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.engine import datatypes
from loadbench.engine.backends import Arrays, Model
from loadbench.errors import RunError, SpecError
from loadbench.model import Note, Tensor

FEATURES = 64
ROWS = 2000
ENOUGH = 100  # rows on both sides
ALPHA = 0.01
APART = 0.1  # the largest distance of the two distributions that is not worth a word
MOST_BYTES = 64 << 20

Rows = NDArray[np.float64]


class Sample:
    """Rows of a model's tensors. `add` is for the instances' threads."""

    def __init__(self, model: Model, seed: int = 1) -> None:
        self._tensors = {
            **{f"input {t.name}": t for t in _numeric(model.inputs)},
            **{f"output {t.name}": t for t in _numeric(model.outputs)},
        }
        self._batched = model.batched
        self._lock = threading.Lock()
        self._random = np.random.default_rng(seed)
        self._seen = 0
        self._rows: dict[str, list[Rows]] = {name: [] for name in self._tensors}

    @property
    def names(self) -> Sequence[str]:
        """Of the tensors, as they are called in a reference."""
        return tuple(self._tensors)

    def add(self, inputs: Arrays, outputs: Mapping[str, NDArray[Any]]) -> None:
        """A batch that ran."""
        found = {
            name: self._features((inputs if name.startswith("input ") else outputs)[t.name], t)
            for name, t in self._tensors.items()
        }
        number = min((len(rows) for rows in found.values()), default=0)
        with self._lock:
            for row in range(number):
                self._seen += 1
                at = self._seen - 1
                if at >= ROWS:
                    at = int(self._random.integers(self._seen))
                    if at >= ROWS:
                        continue
                for name, kept in self._rows.items():
                    kept[at : at + 1] = [found[name][row]]

    def _features(self, array: NDArray[Any], tensor: Tensor) -> Rows:
        flat = array.reshape(len(array), -1) if self._batched else array.reshape(1, -1)
        size = flat.shape[1]
        if size > FEATURES:
            flat = flat[:, np.linspace(0, size - 1, FEATURES).astype(int)]
        return datatypes.wide(np.ascontiguousarray(flat), tensor.datatype)

    def rows(self) -> dict[str, Rows]:
        """By tensor, [rows, values]; rows of another length than most are left out."""
        with self._lock:
            kept = {name: list(rows) for name, rows in self._rows.items()}
        return {name: _even(rows) for name, rows in kept.items() if rows}

    def write(self, path: Path) -> None:
        """Saves the sample as a reference, unless nothing ran. RunError if that cannot be done."""
        rows = self.rows()
        if not rows:  # what is there already is worth more
            return
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **rows)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise RunError(f"cannot write {path}: {error.strerror}") from error


def read(path: Path, model: Model) -> dict[str, Rows]:
    """A reference for this model; SpecError if the file is none."""
    hint = f'engine.watch.record = "{path.name}" writes one'
    try:
        with zipfile.ZipFile(path) as archive:  # a small file may unpack to a huge one
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise SpecError(f"{path} is too large for a reference", hint)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files[: 2 * FEATURES]}
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError) as error:
        raise SpecError(f"{path} is no reference: {error}", hint) from error
    found = {n: rows for n, rows in arrays.items() if rows.ndim == 2 and rows.dtype == np.float64}
    if not found or (unknown := found.keys() - set(Sample(model).names)):
        why = f": it has no {min(unknown)}" if found else ""
        raise SpecError(f"{path} is no reference of {model.name}{why}", hint)
    return found


class Drift:
    """The sample against the reference, looked at now and then."""

    def __init__(self, sample: Sample, reference: dict[str, Rows]) -> None:
        self._sample = sample
        self._reference = reference
        self._looks = 0
        self._told: set[str] = set()

    def look(self) -> Iterator[Note]:
        """A note for each tensor that no longer looks like the reference, once."""
        self._looks += 1
        share = ALPHA / (self._looks * (self._looks + 1))  # over all looks it adds up to ALPHA
        now = self._sample.rows()
        both = [name for name in self._reference if name in now and name not in self._told]
        values = sum(self._reference[name].shape[1] for name in both)
        for name in both:
            note = compared(name, now[name], self._reference[name], share / max(1, values))
            if note is not None:
                self._told.add(name)
                yield note


def compared(name: str, now: Rows, before: Rows, alpha: float) -> Note | None:
    """A note if the two differ at this level for one of their values."""
    from scipy.stats import ks_2samp

    if min(len(now), len(before)) < ENOUGH:
        return None
    if now.shape[1] != before.shape[1]:
        text = f"{name} has {now.shape[1]} values a row, the reference {before.shape[1]}"
        return Note("drift", text)
    tests = [ks_2samp(now[:, k], before[:, k]) for k in range(now.shape[1])]
    apart = [(float(t.statistic), k) for k, t in enumerate(tests)
             if t.pvalue < alpha and t.statistic > APART]  # fmt: skip
    if not apart:
        return None
    distance, value = max(apart)
    text = (
        f"{name} no longer looks like the reference: {len(apart)} of {len(tests)} values differ,"
        f" most number {value}: {distance:.0%} of its distribution lies elsewhere"
        f" ({len(now):,} rows against {len(before):,}, Kolmogorov–Smirnov)"
    )
    return Note("drift", text, "what is served is not what the reference was made of")


def _numeric(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.datatype != "BYTES"]


def _even(rows: list[Rows]) -> Rows:
    lengths = [len(row) for row in rows]
    usual = max(set(lengths), key=lengths.count)
    return np.stack([row for row in rows if len(row) == usual])
