"""Inputs for any KServe model from its metadata: seeded random tensors, or what files hold.

Gives the pool of requests of a run, encoded once before it. Files: `.npy` (a model with one
input), `.npz` (one array per input), `.json` (a KServe request, or {input: nested list}), or a
folder of images. An array's first axis is taken for rows when it has one more than the model's
input; they are dealt out to requests of `rows` rows, in order, over and over. Outputs in a file,
beside the inputs or in one of their own, are what answers are compared with.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import expected, files, kserve, plain, shapes, template, values
from loadbench.targets.datatypes import DTYPES, FLOATS, bf16
from loadbench.targets.kserve import Given
from loadbench.targets.pool import DRAWN, POOL, POOL_MOST, distinct, gather
from loadbench.targets.wire import Check, Prepared

_KINDS = 256  # of answers, told apart by the shapes of their requests

Arrays = Mapping[str, NDArray[Any]]
Pool = tuple[list[Prepared], list[Note]]


class _Data(NamedTuple):
    """What the rows of a file say, one entry each."""

    endpoint: Endpoint
    columns: Arrays
    expected: list[expected.Column]
    number: int


def prepare(
    endpoint: Endpoint, requests: Sequence[RequestPlan], seed: int, most: int = POOL_MOST
) -> tuple[list[list[Prepared]], list[Note]]:
    """For each kind of request its pool, and what was decided on the way. A pool has at most `most`
    different ones.

    The same seed gives the same bytes. Raises SpecError, naming the file where there is one.
    """
    pools, notes = [], []
    for index, request in enumerate(requests):
        if endpoint.protocol == "http":
            pool, found = plain.prepare(endpoint, request, seed, most)
        else:
            _only_kserve(request)
            make = _from_file if request.data else _made_up
            pool, found = make(endpoint, request, [seed, index], most)
        pools.append(pool)
        notes += found
    return pools, notes


def _only_kserve(request: RequestPlan) -> None:
    """Raises SpecError for what only plain HTTP has, and for what excludes each other."""
    for key in ("method", "path", "body", "form"):
        if getattr(request, key):
            raise SpecError(
                f"request {request.name!r}: {key} is only of plain HTTP, the target speaks KServe",
                'give data, shapes or values; or say [target] protocol = "http"',
            )
    for name, value in request.headers.items():
        plain.check_header(request.name, name, value)
        if template.names(template.parse(value)):
            raise SpecError(f"request {request.name!r}: header {name!r} is filled from nothing")
    if not isinstance(request.expect, str):
        text = f"request {request.name!r}: expect is a file of outputs for a KServe model"
        raise SpecError(text, 'expect = "expected.npz"')
    for key in ("dims", "shapes", "values"):
        if request.data and getattr(request, key):
            raise SpecError(
                f"request {request.name!r}: {key} is of made-up inputs, and {request.data} brings "
                "its own",
                f"leave {key} out",
            )


def _made_up(endpoint: Endpoint, request: RequestPlan, seed: list[int], most: int) -> Pool:
    """The pool of a kind whose inputs are drawn. Answers to requests of other shapes look
    different, so that what is learned of them is kept apart."""
    drawn = any(isinstance(dim, str) for shape in request.shapes.values() for dim in shape)
    number = min(request.pool or (DRAWN if drawn else POOL), most)
    whole, notes = shapes.shapes(endpoint, request, seed[0], number)
    shapes.known_names(endpoint, request.values, f"request {request.name!r}: values")
    draw = np.random.Generator(np.random.PCG64(seed))
    checks: dict[tuple[tuple[int, ...], ...], Check] = {}
    last = kserve.checker(endpoint, request.rows)

    def make(index: int) -> Prepared:
        found = shapes.one(endpoint, request, whole, index)
        tensors = {
            tensor.name: Given(tensor.datatype, _drawn(tensor, found[tensor.name], request, draw))
            for tensor in endpoint.inputs
        }
        data = kserve.request(endpoint, tensors, request.headers)
        key = tuple(found.values())
        if len(checks) < _KINDS and key not in checks:
            checks[key] = kserve.checker(endpoint, request.rows)
        return Prepared(request.name, data, checks.get(key, last))

    pool, more = gather(request, distinct(make, number), number)
    return pool, notes + more


def _drawn(
    tensor: Tensor, shape: tuple[int, ...], request: RequestPlan, draw: np.random.Generator
) -> NDArray[Any]:
    text = request.values.get(tensor.name)
    if text is None:
        return values.usual(tensor, shape, draw)
    return values.drawn(tensor, shape, text, draw)


def _from_file(endpoint: Endpoint, request: RequestPlan, _seed: list[int], most: int) -> Pool:
    """The pool of a kind whose data come from a file or a folder."""
    wanted = min(request.pool or POOL_MOST, most)
    data = _read(endpoint, request, wanted)
    pool, notes = gather(request, _deal(request, data), wanted)
    left_out = len(files.images(request.data)) - data.number
    if left_out > 0 and request.pool is None and not notes:
        text = f"{request.data}: {left_out:,} images are left out after the first {data.number:,}"
        notes = [Note("pool-cut", text, "set pool to the number of requests you want")]
    return pool, notes


def _read(endpoint: Endpoint, request: RequestPlan, wanted: int) -> _Data:
    images = files.IMAGES if request.pool is None else wanted * request.rows
    found = files.read(request.data, endpoint.inputs, images)
    inputs = {tensor.name for tensor in endpoint.inputs}
    told = {
        tensor.name: found.pop(tensor.name)
        for tensor in endpoint.outputs
        if inputs and tensor.name in found and tensor.name not in inputs
    }
    if not endpoint.inputs:
        endpoint, found = _as_told(endpoint, found, request.data)
    shapes.known_names(endpoint, found, request.data)
    missing = [tensor.name for tensor in endpoint.inputs if tensor.name not in found]
    if missing:
        raise SpecError(f"{request.data}: nothing for input {', '.join(missing)}")
    columns = {
        tensor.name: _column(tensor, found[tensor.name], f"{request.data}: input")
        for tensor in endpoint.inputs
    }
    numbers = {len(column) for column in columns.values()}
    if len(numbers) > 1:
        counts = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise SpecError(f"{request.data}: the inputs differ in rows: {counts}")
    number = numbers.pop()
    return _Data(endpoint, columns, _expected(endpoint, request, told, number), number)


def _expected(
    endpoint: Endpoint, request: RequestPlan, told: files.Found, number: int
) -> list[expected.Column]:
    """What is expected of the outputs, from a file of its own or from that of the inputs."""
    source = request.data
    if request.expect:
        source = str(request.expect)
        told = files.read(source, endpoint.outputs)
    elif request.check is not None and not told:
        names = ", ".join(tensor.name for tensor in endpoint.outputs) or "that the server tells"
        raise SpecError(
            f"request {request.name!r}: check needs expected outputs, and {source} has none",
            f"give expect, or put them beside the inputs: {names}",
        )
    tensors = {tensor.name: tensor for tensor in endpoint.outputs}
    columns = []
    for name, item in told.items():
        if name not in tensors:
            known = ", ".join(tensors) or "none that the server tells"
            raise SpecError(f"{source}: the model has no output {name!r}", f"it has {known}")
        rows = _column(tensors[name], item, f"{source}: output")
        if len(rows) != number:
            raise SpecError(
                f"{source}: {len(rows)} rows of {name!r} are expected, {request.data} has {number}",
                "give one for each row of the data, in its order",
            )
        columns.append(expected.column(tensors[name], rows, request.tolerance))
    return columns


def _as_told(endpoint: Endpoint, found: files.Found, data: str) -> tuple[Endpoint, files.Found]:
    """An endpoint whose server does not tell its inputs takes them from the file."""
    from msgspec.structs import replace

    inputs = [
        Tensor(name, datatype or "", array.shape) for name, (datatype, array) in found.items()
    ]
    if any(tensor.datatype not in DTYPES for tensor in inputs):
        raise SpecError(f"{data}: the server does not tell its inputs", "write a KServe request")
    return replace(endpoint, inputs=tuple(inputs), batched=False), found


def _column(tensor: Tensor, item: files.Item, what: str) -> NDArray[Any]:
    """A tensor's values with one row per entry (of an unbatched model: one request's tensor)."""
    datatype, array = item
    where = f"{what} {tensor.name!r}"
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


def _deal(request: RequestPlan, data: _Data) -> Iterator[Prepared]:
    endpoint, number = data.endpoint, data.number
    rows = request.rows if endpoint.batched else 1
    check = kserve.checker(endpoint, rows)
    types = {tensor.name: tensor.datatype for tensor in endpoint.inputs}
    for start in range(0, max(1, number // rows) * rows, rows):
        index = np.arange(start, start + rows) % number
        tensors = {
            name: Given(types[name], _rows(column, index, endpoint.batched))
            for name, column in data.columns.items()
        }
        strict = expected.strict(check, kserve.read, data.expected, index)
        body = kserve.request(endpoint, tensors, request.headers)
        yield Prepared(request.name, body, check, strict if data.expected else None)


def _rows(column: NDArray[Any], index: NDArray[np.int64], batched: bool) -> NDArray[Any]:
    """What one request sends of an input: an array also where that is a single value."""
    return column[index] if batched else column[index].reshape(column.shape[1:])
