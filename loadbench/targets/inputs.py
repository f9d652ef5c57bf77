"""Inputs for any model that takes tensors, from its metadata: seeded random, or what files hold.

Gives the pool of requests of a run, encoded once before it. Files: `.npy` (a model with one
input), `.npz` (one array per input), `.json` (a KServe request, or {input: nested list}), `.jsonl`
(a row a line, which may differ in shape), `.txt` (a text a line) or a folder of images. An array's
first axis is taken for rows when it has one more than the model's input; they are dealt out to
requests of `rows` rows, in order, over and over. Outputs in a file, beside the inputs or in one of
their own, are what answers are compared with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from loadbench import distribution
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import (
    columns,
    expected,
    files,
    openai,
    plain,
    sequence,
    shapes,
    template,
    values,
)
from loadbench.targets.datatypes import DTYPES
from loadbench.targets.kserve import Given
from loadbench.targets.pool import DRAWN, POOL, POOL_MOST, distinct, gather
from loadbench.targets.region import Region
from loadbench.targets.speech import Speech, speech
from loadbench.targets.wire import Check, Prepared

_KINDS = 256  # of answers, told apart by the shapes of their requests

Arrays = Mapping[str, NDArray[Any]]
Pool = tuple[list[Prepared], list[Note]]
Shapes = tuple[tuple[int, ...], ...]  # of a request's inputs


class _Data(NamedTuple):
    """What the rows of a file say, one entry each."""

    endpoint: Endpoint
    columns: Arrays
    expected: list[expected.Column]
    number: int


def prepare(
    endpoint: Endpoint,
    requests: Sequence[RequestPlan],
    seed: int,
    most: int = POOL_MOST,
    region: Region | None = None,
    firsts: int | None = None,
) -> tuple[list[list[Prepared]], list[Note]]:
    """For each kind of request its pool, and what was decided on the way. A pool has at most `most`
    different ones.

    The same seed gives the same bytes, but for the first words of made-up prompts: those are drawn
    by `firsts`, and anew each time where that is None. With a region inputs are there, where the
    target takes tensors. Raises SpecError, naming the file where there is one.
    """
    pools, notes = [], []
    for index, request in enumerate(requests):
        openai.only_of_it(endpoint, request)
        _alone_in_sequence(endpoint, request, len(requests))
        if endpoint.protocol == "http":
            pool, found = plain.prepare(endpoint, request, seed, most)
        elif endpoint.protocol == "openai":
            pool, found = openai.prepare(endpoint, request, [seed, index], most, firsts)
        else:
            _only_tensors(request)
            _known_types(endpoint)
            make = _from_file if request.data else _made_up
            pool, found = make(endpoint, request, [seed, index], most, region)
        pools.append(pool)
        notes += found
    return pools, notes


def _alone_in_sequence(endpoint: Endpoint, request: RequestPlan, kinds: int) -> None:
    """Raises SpecError for a sequence where there can be none."""
    if request.sequence and not endpoint.kserve:
        raise SpecError(
            f"request {request.name!r}: sequences are of KServe v2, this target has none",
            "leave sequence out",
        )
    known = request.sequence or "sequence_id" in request.parameters
    if endpoint.stateful and not known:
        raise SpecError(
            f"request {request.name!r}: {endpoint.model!r} keeps a state from request to request of"
            " a sequence (sequence_batching), and takes no others",
            'say how long sequences are: [[request]] sequence = "uniform(5, 20)"',
        )
    if request.sequence and kinds > 1:
        raise SpecError(
            f"request {request.name!r}: a sequence is of one kind of request, here are {kinds}",
            "leave the others out; shapes and values may still be drawn",
        )


def _known_types(endpoint: Endpoint) -> None:
    """Raises SpecError for an input of a type that is not known here, whatever is sent to it."""
    for tensor in endpoint.inputs:
        if tensor.datatype in DTYPES:
            continue
        hint = f"only these are sent: {', '.join(DTYPES)}"
        if endpoint.protocol == "kserve":
            path = f"/v2/models/{quote(endpoint.model, safe='')}/infer"
            hint = (
                "if the server takes it in JSON, write that yourself: [target] protocol ="
                f' "http", [[request]] with name, path = "{path}" and body'
            )
        raise SpecError(f"input {tensor.name!r} has the unknown type {tensor.datatype!r}", hint)


def _only_tensors(request: RequestPlan) -> None:
    """Raises SpecError for what only plain HTTP has, and for what excludes each other."""
    for key in ("method", "path", "body", "form"):
        if getattr(request, key):
            raise SpecError(
                f"request {request.name!r}: {key} is only of plain HTTP, the target takes tensors",
                'give data, shapes or values; or say [target] protocol = "http"',
            )
    for name, value in request.headers.items():
        plain.check_header(request.name, name, value)
        if template.names(template.parse(value)):
            raise SpecError(f"request {request.name!r}: header {name!r} is filled from nothing")
    if not isinstance(request.expect, str):
        text = (
            f"request {request.name!r}: expect is a file of outputs for a model that takes tensors"
        )
        raise SpecError(text, 'expect = "expected.npz"')
    folder = Path(request.data).is_dir()  # of images: brought to the shape that is asked for
    for key in ("dims", "values") if folder else ("dims", "shapes", "values"):
        if request.data and getattr(request, key):
            raise SpecError(
                f"request {request.name!r}: {key} is of made-up inputs, and {request.data} brings "
                "its own",
                f"leave {key} out",
            )


def _made_up(
    endpoint: Endpoint, request: RequestPlan, seed: list[int], most: int, region: Region | None
) -> Pool:
    """The pool of a kind whose inputs are drawn."""
    drawn = any(isinstance(dim, str) for shape in request.shapes.values() for dim in shape)
    number = min(request.pool or (DRAWN if drawn else POOL), most)
    whole, notes = shapes.shapes(endpoint, request, seed[0], number)
    shapes.known_names(endpoint, request.values, f"request {request.name!r}: values")
    draw = np.random.Generator(np.random.PCG64(seed))
    check = _checks(endpoint, request.rows)
    speaks = speech(endpoint)

    given = {name: distribution.parse(text) for name, text in request.values.items()}

    def make(index: int) -> Prepared:
        found = shapes.one(endpoint, request, whole, index)
        tensors = {
            tensor.name: Given(tensor.datatype, values.make(
                tensor, found[tensor.name], draw, given.get(tensor.name)
            ))
            for tensor in endpoint.inputs
        }  # fmt: skip
        data, kept, places = _written(speaks, endpoint, tensors, request, region)
        known = check(tuple(found.values()))
        return Prepared(request.name, data, known, kept=kept, places=places)

    pool, more = gather(request, distinct(make, number), number)
    return pool, notes + more


def _from_file(
    endpoint: Endpoint, request: RequestPlan, _seed: list[int], most: int, region: Region | None
) -> Pool:
    """The pool of a kind whose data come from a file or a folder."""
    wanted = min(request.pool or POOL_MOST, most)
    tensors = endpoint.inputs
    said: list[Note] = []
    if Path(request.data).is_dir():
        tensors, said = shapes.of_images(endpoint, request)
    data = _read(endpoint, request, tensors, wanted)
    if region is not None and data.expected:
        raise SpecError(
            f"request {request.name!r}: answers in shared memory are not compared with expect",
            "leave it out, or target.shared_memory",
        )
    pool, notes = gather(request, _deal(request, data, region), wanted)
    left_out = len(files.images(request.data)) - data.number
    if left_out > 0 and request.pool is None and not notes:
        text = f"{request.data}: {left_out:,} images are left out after the first {data.number:,}"
        notes.append(Note("pool-cut", text, "set pool to the number of requests you want"))
    if data.expected:
        notes.append(expected.note(request, request.expect or request.data))
    return pool, said + notes


def _read(
    endpoint: Endpoint, request: RequestPlan, tensors: Sequence[Tensor], wanted: int
) -> _Data:
    images = files.IMAGES if request.pool is None else wanted * request.rows
    found = files.read(request.data, tensors, images)
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
    given = {
        tensor.name: columns.fitted(tensor, found[tensor.name], f"{request.data}: input")
        for tensor in endpoint.inputs
    }
    numbers = {len(column) for column in given.values()}
    if len(numbers) > 1:
        counts = ", ".join(f"{name} {len(column)}" for name, column in given.items())
        raise SpecError(f"{request.data}: the inputs differ in rows: {counts}")
    number = numbers.pop()
    return _Data(endpoint, given, _expected(endpoint, request, told, number), number)


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
    wanted = []
    for name, item in told.items():
        if name not in tensors:
            known = ", ".join(tensors) or "none that the server tells"
            raise SpecError(f"{source}: the model has no output {name!r}", f"it has {known}")
        rows = columns.fitted(tensors[name], item, f"{source}: output")
        if len(rows) != number:
            raise SpecError(
                f"{source}: {len(rows)} rows of {name!r} are expected, {request.data} has {number}",
                "give one for each row of the data, in its order",
            )
        wanted.append(expected.column(tensors[name], rows, request.tolerance))
    return wanted


def _as_told(endpoint: Endpoint, found: files.Found, data: str) -> tuple[Endpoint, files.Found]:
    """An endpoint whose server does not tell its inputs takes them from the file."""
    from msgspec.structs import replace

    inputs = [
        Tensor(name, datatype or "", array.shape) for name, (datatype, array) in found.items()
    ]
    if any(tensor.datatype not in DTYPES for tensor in inputs):
        raise SpecError(f"{data}: the server does not tell its inputs", "write a KServe request")
    return replace(endpoint, inputs=tuple(inputs), batched=False), found


def _deal(request: RequestPlan, data: _Data, region: Region | None) -> Iterator[Prepared]:
    endpoint, number = data.endpoint, data.number
    rows = request.rows if endpoint.batched else 1
    check = _checks(endpoint, rows)
    speaks = speech(endpoint)
    types = {tensor.name: tensor.datatype for tensor in endpoint.inputs}
    for start in range(0, max(1, number), rows):  # the last begins anew where rows are over
        index = np.arange(start, start + rows) % number
        arrays = {name: columns.take(found, index, request.data)
                  for name, found in data.columns.items()}  # fmt: skip
        if not endpoint.batched:  # an array also where that is a single value
            arrays = {name: array.reshape(array.shape[1:]) for name, array in arrays.items()}
        tensors = {name: Given(types[name], array) for name, array in arrays.items()}
        ordinary = check(tuple(array.shape for array in arrays.values()))
        strict = expected.strict(ordinary, speaks.read, data.expected, index)
        body, kept, places = _written(speaks, endpoint, tensors, request, region)
        full = strict if data.expected else None
        yield Prepared(request.name, body, ordinary, full, kept, places)


def _written(
    speaks: Speech,
    endpoint: Endpoint,
    tensors: Mapping[str, Given],
    request: RequestPlan,
    region: Region | None,
) -> tuple[bytes, int, tuple[bytes, ...]]:
    """A request, how many bytes of it are in the region, and of a sequence's its four places: as
    it is it is a whole one."""
    before = region.size if region else 0
    said = sequence.places(request) if request.sequence else [request]
    found = [speaks.request(endpoint, tensors, one, region) for one in said]
    kept = region.size - before if region else 0
    return found[-1], kept, tuple(found) if request.sequence else ()


def _checks(endpoint: Endpoint, rows: int) -> Callable[[Shapes], Check]:
    """The check of answers to requests of given shapes. Those to other shapes look different, so
    that what is learned of them is kept apart; of very many it is not worth it."""
    found: dict[Shapes, Check] = {}
    checker = speech(endpoint).checker
    last = checker(endpoint, rows)

    def check(key: Shapes) -> Check:
        if len(found) < _KINDS and key not in found:
            found[key] = checker(endpoint, rows)
        return found.get(key, last)

    return check
