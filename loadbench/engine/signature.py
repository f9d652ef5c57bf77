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
from loadbench.engine.backends import Model
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor, Value
from loadbench.targets.datatypes import FLOATS, bf16

Sizes = Mapping[
    str, tuple[int, ...]
]  # of inputs that leave some dimensions open; without the batch
Answer = Mapping[str, tuple[str, NDArray[Any]]]  # output name → datatype, array
Run = Callable[[dict[str, NDArray[Any]]], Answer]

_ROWS = 3
_SAME = 1e-3  # of the largest value: fp32 kernels differ between batch sizes by far less
_ROUNDED = 0.05  # likewise, in models known to round
_ADVICE = "if it should batch: see that no layer mixes rows or bakes in the size of the batch"


class Signature(Value, frozen=True):
    """As model.Tensor says: no batch axis where `batched`, else the whole shape."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool
    notes: tuple[Note, ...] = ()
    sizes: dict[str, tuple[int, ...]] = {}  # it ran with, of inputs that leave some open


def example(
    inputs: Sequence[Tensor], rows: int | None, sizes: Sizes | None = None, seed: int = 1
) -> dict[str, NDArray[Any]]:
    """Seeded inputs: floats are normal, whole numbers 0 or 1, so that they index any table.

    With `rows` the shapes get a batch axis in front, and row i is the same for any number of rows.
    """
    found: dict[str, NDArray[Any]] = {}
    for index, tensor in enumerate(inputs):
        shape = _closed(tensor.shape, (sizes or {}).get(tensor.name))
        shape = shape if rows is None else (rows, *shape)
        found[tensor.name] = _draw(np.random.default_rng((seed, index)), tensor.datatype, shape)
    return found


def inputs_of(model: Model, rows: int, seed: int = 1) -> dict[str, NDArray[Any]]:
    """An example batch for a loaded model, of the sizes that it is known to work with.

    A model without a batch axis has one form only, whatever `rows` says.
    """
    given = getattr(model, "example", None)
    if given is not None:
        return repeated(given, rows if model.batched else None)
    sizes = model.metadata.get("sizes")
    return example(model.inputs, rows if model.batched else None, sizes, seed)


def repeated(given: Mapping[str, NDArray[Any]], rows: int | None) -> dict[str, NDArray[Any]]:
    """As many rows as are wanted of some that were given; None: as they are."""
    if rows is None:
        return dict(given)
    return {name: array[np.arange(rows) % len(array)] for name, array in given.items()}


def probe(
    run: Run,
    inputs: Sequence[Tensor],
    sizes: Sizes,
    given: Mapping[str, NDArray[Any]] | None = None,
    rounds: str = "",
) -> Signature:
    """`inputs` have their whole shapes, with −1 in front where the caller thinks of a batch axis.
    `given` are rows to try it with where drawn ones would not do. `rounds` is why this model may
    round a row by what lies beside it, as dynamic quantisation does, which measures a batch as a
    whole: that alone is then no reason not to batch.

    SpecError if the model refuses even the plainest input.
    """
    try:
        if given is not None:
            return _given(run, inputs, given)
        return _probe(run, inputs, sizes, rounds)
    except SpecError as error:
        said = " ".join(f"{t.name}:{t.datatype}:{','.join(map(str, t.shape))}" for t in inputs)
        raise SpecError(
            f"it fails on an example of its inputs ({said}): {error.message}",
            "see that names, types and dimensions are right; --input NAME:DTYPE:DIMS sets them",
        ) from error


def _probe(run: Run, inputs: Sequence[Tensor], sizes: Sizes, rounds: str) -> Signature:
    leads = {tensor.shape[0] if tensor.shape else 0 for tensor in inputs}
    if leads == {-1}:
        rows = tuple(Tensor(t.name, t.datatype, t.shape[1:]) for t in inputs)
        outputs, doubts = _try_batch(run, rows, sizes, rounds)
        if outputs is not None:
            return _complete(run, Signature(rows, outputs, True, doubts), sizes)
        whole = _without_batch(inputs)
    else:
        fixed = next(iter(leads)) if len(leads) == 1 and leads != {0} else None
        what = f"fixes the batch at {fixed}" if fixed else "has no batch axis"
        text = f"the model {what}: requests run one at a time"
        hint = "export it with an open first axis, or declare it: --input NAME:DTYPE:-1,…"
        doubts = (Note("unbatched", text, hint),)
        whole = tuple(inputs)
    outputs = _tensors(run(example(whole, None, sizes)), cut=0)
    return _complete(run, Signature(whole, outputs, False, doubts), sizes)


def _given(run: Run, inputs: Sequence[Tensor], given: Mapping[str, NDArray[Any]]) -> Signature:
    """Found with these rows alone: what of the outputs' sizes is open is not known."""
    batched = all(tensor.shape[:1] == (-1,) for tensor in inputs)
    one = run(repeated(given, 1 if batched else None))
    if batched:
        many = run(repeated(given, _ROWS))
        for name, (_, array) in many.items():
            if array.shape[:1] != (_ROWS,):
                raise SpecError(f"output {name!r} has {list(array.shape)} for {_ROWS} rows")
    cut = 1 if batched else 0
    rows = tuple(Tensor(t.name, t.datatype, t.shape[cut:]) for t in inputs)
    return Signature(rows, _tensors(one, cut), batched)


def require(found: Signature, given: Sequence[Tensor]) -> None:
    """SpecError unless the outputs are those that the user declared (whole shapes)."""
    for tensor, said in zip(found.outputs, given, strict=False):
        whole = (-1, *tensor.shape) if found.batched else tensor.shape
        fits = len(whole) == len(said.shape) and all(
            -1 in pair or pair[0] == pair[1] for pair in zip(whole, said.shape, strict=True)
        )
        if tensor.name == said.name and tensor.datatype == said.datatype and fits:
            continue
        dims = ",".join(map(str, whole))
        raise SpecError(
            f"--output {said.name} does not fit: the model gives {tensor.datatype} [{dims}]",
            f"write --output {said.name}:{tensor.datatype}:{dims}",
        )


def _without_batch(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Where only the batch was open it is fixed at 1; else the open axis may be any length."""
    if any(-1 in tensor.shape[1:] or len(tensor.shape) == 1 for tensor in inputs):
        return tuple(inputs)
    return tuple(Tensor(t.name, t.datatype, (1, *t.shape[1:])) for t in inputs)


def _try_batch(
    run: Run, rows: tuple[Tensor, ...], sizes: Sizes, rounds: str
) -> tuple[tuple[Tensor, ...] | None, tuple[Note, ...]]:
    """Outputs without batch axis; None where rows cannot be run together. And the doubts."""
    given = example(rows, _ROWS, sizes)
    one = run(_row(given, 0))
    try:
        many = run(given)
    except SpecError as error:
        return None, (_unbatched(f"the model fails with {_ROWS} rows ({error.message})"),)
    for name, (_, array) in many.items():
        if array.shape[:1] != (_ROWS,) or one[name][1].shape[:1] != (1,):
            return None, (_unbatched(f"output {name!r} does not follow the batch"),)
    # The last row too: where the axis is time, what comes later leaves the first row alone.
    last = run(_row(given, _ROWS - 1))
    if not (_alike(many, one, 0) and _alike(many, last, _ROWS - 1)):
        if rounds and _alike(many, one, 0, _ROUNDED) and _alike(many, last, _ROWS - 1, _ROUNDED):
            text = f"a row's answer is rounded by the rows beside it: {rounds}"
            return _tensors(many, cut=1), (Note("rounded", text),)
        if _alike(one, run(_row(given, 0)), 0):
            return None, (_unbatched("a row's answer depends on the rows beside it"),)
        text = "the same input gives another output each time"
        return _tensors(many, cut=1), (Note("random", text, "is a dropout forced on?"),)
    return _tensors(many, cut=1), ()


def _unbatched(why: str) -> Note:
    return Note("unbatched", f"{why}: requests run one at a time", _ADVICE)


def _complete(run: Run, found: Signature, sizes: Sizes) -> Signature:
    """Open axes of the outputs: −1 where their size follows an open axis of the inputs."""
    loose = [tensor for tensor in found.inputs if -1 in tensor.shape]
    if not loose:
        return found
    used = {t.name: _closed(t.shape, sizes.get(t.name)) for t in loose}
    wider = {
        t.name: tuple(
            size + size // 2 if dim == -1 else dim
            for dim, size in zip(t.shape, used[t.name], strict=True)
        )
        for t in loose
    }
    try:
        other = run(example(found.inputs, 1 if found.batched else None, wider))
    except SpecError as error:
        text = f"sizes other than {_words(used)} fail ({error.message})"
        doubt = Note("sizes", text, "give the true dimensions with --input NAME:DTYPE:DIMS")
        return Signature(found.inputs, found.outputs, found.batched, (*found.notes, doubt), used)
    cut = 1 if found.batched else 0
    outputs = tuple(
        Tensor(t.name, t.datatype, _varying(t.shape, other[t.name][1].shape[cut:]))
        for t in found.outputs
    )
    return Signature(found.inputs, outputs, found.batched, found.notes, used)


def _varying(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a if a == b else -1 for a, b in zip(shape, other, strict=True))


def _words(sizes: Sizes) -> str:
    return ", ".join(f"{name} [{','.join(map(str, dims))}]" for name, dims in sizes.items())


def _row(arrays: dict[str, NDArray[Any]], number: int) -> dict[str, NDArray[Any]]:
    return {name: array[number : number + 1] for name, array in arrays.items()}


def _alike(some: Answer, one: Answer, number: int, same: float = _SAME) -> bool:
    """Whether a row of `some` is the same as the row that ran alone, but for `same`."""
    for name, (datatype, array) in some.items():
        row = array[number : number + 1]
        if datatype == "BYTES":
            if not np.array_equal(row, one[name][1]):
                return False
            continue
        first = datatypes.wide(row, datatype)
        second = datatypes.wide(one[name][1], datatype)
        if first.shape != second.shape:
            return False
        scale = float(np.abs(second[np.isfinite(second)]).max(initial=0.0))
        if not np.allclose(first, second, rtol=0, atol=same * scale + 1e-12, equal_nan=True):
            return False
    return True


def _tensors(found: Answer, cut: int) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, datatype, array.shape[cut:]) for name, (datatype, array) in found.items()
    )


def _closed(shape: tuple[int, ...], sizes: tuple[int, ...] | None) -> tuple[int, ...]:
    """Open axes filled in: from `sizes`, else 64 where two are open (an image), else 16."""
    usual = 64 if shape.count(-1) > 1 else 16
    known = sizes if sizes and len(sizes) == len(shape) else (usual,) * len(shape)
    return tuple(size if dim == -1 else dim for dim, size in zip(shape, known, strict=True))


def _draw(random: np.random.Generator, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if datatype == "BYTES":
        return np.full(shape, b"0", np.object_)
    if datatype == "BF16":
        return bf16(np.asarray(random.standard_normal(shape, np.float32)))
    dtype = datatypes.NUMPY[datatype]
    if datatype in FLOATS:
        return np.asarray(random.standard_normal(shape, np.float32)).astype(dtype)
    return np.asarray(random.integers(0, 2, shape)).astype(dtype)
