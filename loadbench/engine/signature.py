"""What goes in and out of a model, found by running it.

Files say little, or say it wrongly: an axis declared open may be baked in, the first axis may be a
sequence and not a batch. Batching such a model would give wrong answers, so whether rows can be run
together is tried here, with three rows against one, and not believed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.engine import datatypes
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor, Value

Sizes = Mapping[
    str, tuple[int, ...]
]  # dimensions without the batch, for inputs that leave some open
Run = Callable[[dict[str, NDArray[Any]]], Mapping[str, tuple[str, NDArray[Any]]]]

_ROWS = 3
_SAME = 1e-3  # of the largest value: fp32 kernels differ between batch sizes by far less


class Signature(Value, frozen=True):
    """As model.Tensor says: no batch axis where `batched`, else the whole shape."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool
    notes: tuple[Note, ...] = ()


def example(
    inputs: Sequence[Tensor], rows: int | None, sizes: Sizes | None = None, seed: int = 1
) -> dict[str, NDArray[Any]]:
    """Seeded inputs: floats are normal, whole numbers 0 or 1, so that they index any table.

    With `rows` the shapes get a batch axis in front, and row i is the same for any number of rows.
    """
    sizes = sizes or {}
    random = np.random.default_rng(seed)
    found: dict[str, NDArray[Any]] = {}
    for tensor in inputs:
        shape = _closed(tensor.shape, sizes.get(tensor.name), spread=1)
        shape = shape if rows is None else (rows, *shape)
        found[tensor.name] = _draw(np.random.default_rng(random.integers(2**32)), tensor, shape)
    return found


def probe(run: Run, inputs: Sequence[Tensor], sizes: Sizes) -> Signature:
    """`inputs` have their whole shapes, with −1 in front where the caller thinks of a batch axis.

    SpecError if the model refuses even the plainest input.
    """
    notes: list[Note] = []
    leads = [tensor.shape[0] if tensor.shape else 1 for tensor in inputs]
    if inputs and all(lead == -1 for lead in leads):
        rows = tuple(Tensor(t.name, t.datatype, t.shape[1:]) for t in inputs)
        outputs, doubt = _try_batch(run, rows, sizes)
        if outputs is not None:
            shaped = _open_axes(run, rows, outputs, sizes, 1)
            return Signature(rows, shaped, True, (doubt,) if doubt else ())
        assert doubt is not None
        notes.append(doubt)
        if all(t.shape[1:] and -1 not in t.shape[1:] for t in inputs):  # only the batch was open
            inputs = [Tensor(t.name, t.datatype, (1, *t.shape[1:])) for t in inputs]
    else:
        what = "fixes the batch at 1" if leads and set(leads) == {1} else "has no batch axis"
        hint = "export it with an open first axis, or declare it with --input NAME:DTYPE:-1,…"
        notes.append(Note("unbatched", f"the model {what}: requests run one at a time", hint))
    whole = tuple(inputs)
    outputs = _tensors(run(example(whole, None, sizes)))
    return Signature(whole, _open_axes(run, whole, outputs, sizes, None), False, tuple(notes))


def _try_batch(
    run: Run, rows: tuple[Tensor, ...], sizes: Sizes
) -> tuple[tuple[Tensor, ...] | None, Note | None]:
    """Outputs without batch axis, or None and why rows cannot be run together."""
    one = run(example(rows, 1, sizes))
    hint = "if it should batch: check that no layer mixes rows or bakes in the size of the batch"
    try:
        many = run(example(rows, _ROWS, sizes))
    except SpecError as error:
        text = f"the model refuses {_ROWS} rows ({error.message}): requests run one at a time"
        return None, Note("unbatched", text, hint)
    for name, (_, array) in many.items():
        single = one[name][1]
        if array.shape[:1] != (_ROWS,) or single.shape[:1] != (1,):
            text = f"output {name!r} does not follow the batch: requests run one at a time"
            return None, Note("unbatched", text, hint)
    if not _alike(many, one, 1):
        if not _alike(one, run(example(rows, 1, sizes)), 1):
            text = "the same input gives another output each time"
            return _tensors(many, batch=True), Note("random", text, "is a dropout forced on?")
        text = "a row's answer depends on the rows beside it: requests run one at a time"
        return None, Note("unbatched", text, hint)
    return _tensors(many, batch=True), None


def _open_axes(
    run: Run, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], sizes: Sizes,
    rows: int | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Outputs with −1 where their size follows an open axis of the inputs."""
    if not any(-1 in tensor.shape for tensor in inputs):
        return outputs
    wider = {t.name: _closed(t.shape, sizes.get(t.name), spread=2) for t in inputs}
    try:
        found = run(example(inputs, rows, wider))
    except SpecError:  # open on paper only; what was measured is all that can be said
        return outputs
    cut = 0 if rows is None else 1
    return tuple(
        Tensor(
            tensor.name,
            tensor.datatype,
            tuple(
                size if size == other else -1
                for size, other in zip(tensor.shape, found[tensor.name][1].shape[cut:], strict=True)
            ),
        )
        for tensor in outputs
    )


def _alike(
    some: Mapping[str, tuple[str, NDArray[Any]]],
    other: Mapping[str, tuple[str, NDArray[Any]]],
    rows: int,
) -> bool:
    for name, (datatype, array) in some.items():
        if datatype == "BYTES":
            if not np.array_equal(array[:rows], other[name][1][:rows]):
                return False
            continue
        first = datatypes.wide(array[:rows], datatype)
        second = datatypes.wide(other[name][1][:rows], datatype)
        scale = np.abs(second[np.isfinite(second)]).max(initial=0.0)
        if not np.allclose(first, second, rtol=0, atol=_SAME * scale + 1e-12, equal_nan=True):
            return False
    return True


def _tensors(
    found: Mapping[str, tuple[str, NDArray[Any]]], batch: bool = False
) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, datatype, array.shape[1:] if batch else array.shape)
        for name, (datatype, array) in found.items()
    )


def _closed(shape: tuple[int, ...], sizes: tuple[int, ...] | None, spread: int) -> tuple[int, ...]:
    """Open axes filled in: from `sizes`, else 64 where two are open (an image), else 16."""
    usual = 64 if shape.count(-1) > 1 else 16
    known = sizes if sizes and len(sizes) == len(shape) else tuple(usual for _ in shape)
    return tuple(
        (size if spread == 1 else size + size // 2) if dim == -1 else dim
        for dim, size in zip(shape, known, strict=True)
    )


def _draw(random: np.random.Generator, tensor: Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    if tensor.datatype == "BYTES":
        return np.full(shape, b"0", np.object_)
    if tensor.datatype == "BF16":
        bits: NDArray[Any] = random.standard_normal(shape, np.float32).view(np.uint32)
        return (bits >> 16).astype(np.uint16)
    dtype = datatypes.NUMPY[tensor.datatype]
    if tensor.datatype in datatypes.FLOATS:
        return np.asarray(random.standard_normal(shape, np.float32)).astype(dtype)
    return np.asarray(random.integers(0, 2, shape)).astype(dtype)
