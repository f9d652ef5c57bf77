"""Inputs for any KServe model from its metadata: seeded random tensors, or what files hold.

Gives the pool of requests of a run, encoded once before it. Files: `.npy` (a model with one
input), `.npz` (one array per input), `.json` (a KServe request, or {input: nested list}), or a
folder of images. An array's first axis is taken for rows when it has one more than the model's
input; they are dealt out to requests of `rows` rows, in order, over and over.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import files, kserve, plain
from loadbench.targets.datatypes import DTYPES, FLOATS, bf16
from loadbench.targets.kserve import Given
from loadbench.targets.wire import Check, Prepared

POOL = 32  # distinct requests of one kind at most
POOL_BYTES = 64 << 20  # of all requests of one kind together
_LENGTH = 32  # of an open dimension: a sequence, or features
_SIDE = 64  # of an open dimension of what looks like images
_TOKENS = 100  # few enough for the smallest vocabularies

Arrays = Mapping[str, NDArray[Any]]


def prepare(
    endpoint: Endpoint, requests: Sequence[RequestPlan], seed: int, most: int = POOL
) -> tuple[list[list[Prepared]], list[Note]]:
    """For each kind of request its pool, and what was decided on the way. Of random requests a pool
    has at most `most` different ones.

    The same seed gives the same bytes. Raises SpecError, naming the file where there is one.
    """
    pools, notes = [], []
    for index, request in enumerate(requests):
        if endpoint.protocol == "http":
            pools.append([plain.prepare(endpoint, request)])
            continue
        for name, value in request.headers.items():
            plain.check_header(request.name, name, value)
        if request.data:
            pools.append(_from_file(endpoint, request))
            continue
        shapes, found = _shapes(endpoint, request)
        notes += found
        draw = np.random.Generator(np.random.PCG64([seed, index]))
        check = kserve.checker(endpoint, request.rows)
        one = partial(_random_request, endpoint, request, shapes, draw)
        pools.append(_pool(request.name, check, one, most))
    return pools, notes


def _pool(name: str, check: Check, one: Callable[[], bytes], most: int) -> list[Prepared]:
    """As many requests as `most` and memory allow, at least one."""
    pool: list[Prepared] = []
    size = 0
    while not pool or (len(pool) < most and size + len(pool[-1].data) <= POOL_BYTES):
        pool.append(Prepared(name, one(), check))
        size += len(pool[-1].data)
    return pool


def _random_request(
    endpoint: Endpoint,
    request: RequestPlan,
    shapes: Mapping[str, tuple[int, ...]],
    draw: np.random.Generator,
) -> bytes:
    tensors = {
        tensor.name: Given(tensor.datatype, _random(tensor, shapes[tensor.name], draw))
        for tensor in endpoint.inputs
    }
    return kserve.request(endpoint, tensors, request.headers)


def _random(tensor: Tensor, shape: tuple[int, ...], draw: np.random.Generator) -> NDArray[Any]:
    """N(0, 1) for floats, tokens for integers (ones for a mask), words for strings."""
    if tensor.datatype == "BYTES":
        words = [b"word%d" % number for number in draw.integers(0, _TOKENS, math.prod(shape))]
        found = np.empty(len(words), object)
        found[:] = words
        return found.reshape(shape)
    if tensor.datatype in FLOATS:
        values = draw.standard_normal(shape, np.float32)
        return bf16(values) if tensor.datatype == "BF16" else values.astype(DTYPES[tensor.datatype])
    if tensor.datatype == "BOOL":
        return draw.integers(0, 2, shape).astype(np.bool_)
    dtype = DTYPES[tensor.datatype]
    if "mask" in tensor.name.lower():
        return np.ones(shape, dtype)
    top = min(int(np.iinfo(dtype).max) + 1, 256 if dtype == np.uint8 else _TOKENS)
    return draw.integers(0, top, shape).astype(dtype)


def _shapes(
    endpoint: Endpoint, request: RequestPlan
) -> tuple[dict[str, tuple[int, ...]], list[Note]]:
    """The whole shape of each input of one request, and a note where dimensions were made up."""
    if not endpoint.inputs:
        raise SpecError(
            f"the target does not tell the inputs of {endpoint.model!r}",
            f"give request {request.name!r} a KServe request as data: request.json",
        )
    _known_names(endpoint, request.shapes, f"request {request.name!r}: shapes")
    if request.rows > 1 and not endpoint.batched:
        raise SpecError(
            f"request {request.name!r}: rows = {request.rows}, but {endpoint.model!r} has no batch "
            "axis",
            "leave rows out",
        )
    found, notes = {}, []
    for tensor in endpoint.inputs:
        if tensor.datatype not in DTYPES:
            raise SpecError(f"input {tensor.name!r} has the unknown type {tensor.datatype!r}")
        given = request.shapes.get(tensor.name)
        shape = _closed(tensor.shape) if given is None else _given(request, tensor, given)
        if given is None and shape != tensor.shape:
            notes.append(_made_up(request, tensor, shape))
        found[tensor.name] = (request.rows, *shape) if endpoint.batched else shape
    return found, notes


def _closed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Open dimensions filled in: images have three, and channels are few or first or last."""
    if len(shape) < 3:
        return tuple(_LENGTH if dim < 0 else dim for dim in shape)
    channels = next((index for index in (-3, -1) if 0 < shape[index] <= 4), -3)
    filled = [_SIDE if dim < 0 else dim for dim in shape]
    if shape[channels] < 0:
        filled[channels] = 3
    return tuple(filled)


def _given(request: RequestPlan, tensor: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    fits = len(shape) == len(tensor.shape) and all(
        dim > 0 and want in (-1, dim) for want, dim in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise SpecError(
            f"request {request.name!r}: shape {list(shape)} does not fit input {tensor.name!r} "
            f"of shape {list(tensor.shape)}",
            "-1 is a dimension left open; the batch axis is not part of it",
        )
    return shape


def _made_up(request: RequestPlan, tensor: Tensor, shape: tuple[int, ...]) -> Note:
    size = "×".join(map(str, shape))
    dims = ", ".join(map(str, shape))
    return Note(
        "assumed-shape",
        f"{tensor.name} leaves dimensions open: {size} taken for {request.name!r}",
        f'set request.shapes = {{"{tensor.name}" = [{dims}]}} to what your users send',
    )


def _known_names(endpoint: Endpoint, given: Mapping[str, Any], where: str) -> None:
    known = [tensor.name for tensor in endpoint.inputs]
    for name in given:
        if name not in known:
            raise SpecError(
                f"{where}: the model has no input {name!r}", f"it has {', '.join(known)}"
            )


def _from_file(endpoint: Endpoint, request: RequestPlan) -> list[Prepared]:
    """The pool of a kind whose data come from a file or a folder."""
    found = files.read(request.data, endpoint)
    if not endpoint.inputs:
        endpoint, found = _as_told(endpoint, found, request.data)
    _known_names(endpoint, found, request.data)
    missing = [tensor.name for tensor in endpoint.inputs if tensor.name not in found]
    if missing:
        raise SpecError(f"{request.data}: nothing for input {', '.join(missing)}")
    columns = {
        tensor.name: _column(endpoint, tensor, found[tensor.name], request)
        for tensor in endpoint.inputs
    }
    numbers = {len(column) for column in columns.values()}
    if len(numbers) > 1:
        counts = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise SpecError(f"{request.data}: the inputs differ in rows: {counts}")
    return _deal(endpoint, request, columns, numbers.pop())


def _as_told(endpoint: Endpoint, found: files.Found, data: str) -> tuple[Endpoint, files.Found]:
    """An endpoint whose server does not tell its inputs takes them from the file."""
    from msgspec.structs import replace

    inputs = [
        Tensor(name, datatype or "", array.shape) for name, (datatype, array) in found.items()
    ]
    if any(tensor.datatype not in DTYPES for tensor in inputs):
        raise SpecError(f"{data}: the server does not tell its inputs", "write a KServe request")
    return replace(endpoint, inputs=tuple(inputs), batched=False), found


def _column(
    endpoint: Endpoint, tensor: Tensor, item: files.Item, request: RequestPlan
) -> NDArray[Any]:
    """An input's values with one row per entry (of an unbatched model: one request's tensor)."""
    datatype, array = item
    where = f"{request.data}: input {tensor.name!r}"
    if datatype is not None and datatype != tensor.datatype:
        raise SpecError(f"{where} is {datatype} in the file and {tensor.datatype} in the model")
    array = _cast(array, tensor, where)
    if array.ndim == len(tensor.shape):
        array = array[np.newaxis]
    fits = array.ndim == len(tensor.shape) + 1 and all(
        want in (-1, dim) for want, dim in zip(tensor.shape, array.shape[1:], strict=True)
    )
    if not fits or not len(array):
        raise SpecError(
            f"{where} has shape {list(array.shape)} in the file, the model's is "
            f"{list(tensor.shape)}",
            "one more axis in front means several rows",
        )
    return array


def _cast(array: NDArray[Any], tensor: Tensor, where: str) -> NDArray[Any]:
    """The array in the tensor's type, if nothing of its values is lost but float precision."""
    if tensor.datatype == "BYTES":
        return _as_bytes(array, where)
    dtype = DTYPES[tensor.datatype]
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biuf":
        raise SpecError(f"{where} holds {array.dtype}, the model wants {tensor.datatype}")
    if tensor.datatype == "BF16":
        return bf16(array)
    with np.errstate(over="ignore", invalid="ignore"):
        found = array.astype(dtype)
    if tensor.datatype not in FLOATS and not np.array_equal(found, array):
        raise SpecError(f"{where} holds {array.dtype} values that are no {tensor.datatype}")
    return found


def _as_bytes(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.dtype.kind not in "SUO":
        raise SpecError(f"{where} holds {array.dtype}, the model wants BYTES")
    items = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    if not all(isinstance(item, bytes) for item in items):
        raise SpecError(f"{where} holds what are no texts, the model wants BYTES")
    found = np.empty(len(items), object)
    found[:] = items
    return found.reshape(array.shape)


def _deal(endpoint: Endpoint, request: RequestPlan, columns: Arrays, number: int) -> list[Prepared]:
    rows = request.rows if endpoint.batched else 1
    check = kserve.checker(endpoint, rows)
    pool: list[Prepared] = []
    size = 0
    types = {tensor.name: tensor.datatype for tensor in endpoint.inputs}
    for start in range(0, max(1, number // rows) * rows, rows):
        index = np.arange(start, start + rows) % number
        tensors = {
            name: Given(types[name], _rows(column, index, endpoint.batched))
            for name, column in columns.items()
        }
        data = kserve.request(endpoint, tensors, request.headers)
        pool.append(Prepared(request.name, data, check))
        size += len(data)
        if size + len(data) > POOL_BYTES:
            break
    return pool


def _rows(column: NDArray[Any], index: NDArray[np.int64], batched: bool) -> NDArray[Any]:
    """What one request sends of an input: an array also where that is a single value."""
    return column[index] if batched else column[index].reshape(column.shape[1:])
