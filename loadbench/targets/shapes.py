"""Shapes of the inputs of a model: what the model says, and for dimensions that it leaves open what
the scenario says, what is drawn, or what is made up (and said)."""

import math
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from loadbench import distribution
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.datatypes import width
from loadbench.targets.template import MOST

_LENGTH = 32  # of an open dimension: a sequence, or features
_SIDE = 64  # of an open dimension of what looks like images

Lengths = NDArray[np.int64]  # of one dimension, by the number of the request
Shape = tuple[int | Lengths, ...]


def draw_dims(request: RequestPlan, seed: int, number: int) -> dict[str, Lengths]:
    """The named dimensions of so many requests; the same with any number and in any order."""
    return {name: _drawn(text, seed, name, number) for name, text in request.dims.items()}


def _drawn(text: str, seed: int, name: str, number: int) -> Lengths:
    draw = np.random.Generator(np.random.PCG64([seed, crc32(name.encode())]))
    return np.maximum(distribution.parse(text).whole(draw, number), 1)


def describe(request: RequestPlan, seed: int, number: int) -> list[str]:
    """What the drawn dimensions of so many requests come to, a sentence each."""
    direct = {
        f"{name}[{axis}]": dim
        for name, shape in request.shapes.items()
        for axis, dim in enumerate(shape)
        if isinstance(dim, str) and dim not in request.dims
    }
    found = []
    for name, text in (request.dims | direct).items():
        lengths = _drawn(text, seed, name, number)
        mean, least, most = lengths.mean(), lengths.min(), lengths.max()
        found.append(
            f"{name} is {text}: {mean:.4g} on average, {least} … {most} in {number} bodies"
        )
    return found


def shapes(
    endpoint: Endpoint, request: RequestPlan, seed: int, number: int
) -> tuple[dict[str, Shape], list[Note]]:
    """The whole shape of each input in so many requests, and a note where dimensions were made up
    or drawn."""
    if not endpoint.inputs:
        raise SpecError(
            f"the target does not tell the inputs of {endpoint.model!r}",
            f"give request {request.name!r} a KServe request as data: request.json",
        )
    known_names(endpoint, request.shapes, f"request {request.name!r}: shapes")
    if request.rows > 1 and not endpoint.batched:
        raise SpecError(
            f"request {request.name!r}: rows = {request.rows}, but {endpoint.model!r} has no batch "
            "axis",
            "leave rows out",
        )
    dims = draw_dims(request, seed, number)
    notes = [Note("drawn-shape", f"{request.name!r}: {text}")
             for text in describe(request, seed, number)]  # fmt: skip
    given: dict[str, Shape] = {}
    for tensor in endpoint.inputs:
        if tensor.name in request.shapes:
            _fits(request, tensor, request.shapes[tensor.name])
            given[tensor.name] = tuple(
                dim if isinstance(dim, int) else dims[dim] if dim in dims
                else _drawn(dim, seed, f"{tensor.name}[{axis}]", number)
                for axis, dim in enumerate(request.shapes[tensor.name])
            )  # fmt: skip
    _used(request)
    found: dict[str, Shape] = {}
    for tensor in endpoint.inputs:
        shape, said = _shape(endpoint, request, tensor, given)
        notes += said
        found[tensor.name] = (request.rows, *shape) if endpoint.batched else shape
    return found, notes


def _shape(
    endpoint: Endpoint, request: RequestPlan, tensor: Tensor, given: Mapping[str, Shape]
) -> tuple[Shape, list[Note]]:
    """One input's own: what is given, else what is given for an input like it (a mask is as long as
    the tokens it is for), else something made up."""
    if tensor.name in given:
        return given[tensor.name], []
    if -1 not in tensor.shape:
        return tensor.shape, []
    for other in endpoint.inputs:
        if other.name in given and other.shape == tensor.shape:
            text = f"{tensor.name} leaves dimensions open: those of {other.name} taken for "
            return given[other.name], [Note("assumed-shape", f"{text}{request.name!r}")]
    shape = _closed(tensor.shape)
    return shape, [_made_up(request, tensor, shape)]


def of_images(endpoint: Endpoint, request: RequestPlan) -> tuple[tuple[Tensor, ...], list[Note]]:
    """The inputs with the size to which images are brought: what the scenario says, else, of sides
    that are left open, something made up, and a note of that."""
    known_names(endpoint, request.shapes, f"request {request.name!r}: shapes")
    tensors, notes = [], []
    for tensor in endpoint.inputs:
        asked = request.shapes.get(tensor.name)
        shape = _closed((1, *tensor.shape))[1:]  # a gray one has no channels
        if asked is not None:
            _fits(request, tensor, asked)
            shape = tuple(dim for dim in asked if isinstance(dim, int))
            if len(shape) < len(asked):
                text = f"request {request.name!r}: the size of images is not drawn"
                raise SpecError(text, "give numbers, like [3, 224, 224]")
        elif shape != tensor.shape:
            notes.append(_made_up(request, tensor, shape))
        tensors.append(replace(tensor, shape=shape))
    return tuple(tensors), notes


def one(
    endpoint: Endpoint, request: RequestPlan, whole: Mapping[str, Shape], index: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of one of the requests. Raises SpecError for what is too large to be made."""
    found = {
        name: tuple(dim if isinstance(dim, int) else int(dim[index]) for dim in shape)
        for name, shape in whole.items()
    }
    widths = {tensor.name: width(tensor.datatype) or 8 for tensor in endpoint.inputs}
    size = sum(math.prod(shape) * widths[name] for name, shape in found.items())
    if size > MOST:
        raise SpecError(
            f"request {request.name!r}: a body of {size / (1 << 20):,.0f} MiB, "
            f"{MOST >> 20} MiB at most",
            "clip what is drawn: … clipped 1..512",
        )
    return found


def _closed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Open dimensions filled in: images have three, and channels are few or first or last."""
    if len(shape) < 3:
        return tuple(_LENGTH if dim < 0 else dim for dim in shape)
    channels = next((index for index in (-3, -1) if 0 < shape[index] <= 4), -3)
    filled = [_SIDE if dim < 0 else dim for dim in shape]
    if shape[channels] < 0:
        filled[channels] = 3
    return tuple(filled)


def _fits(request: RequestPlan, tensor: Tensor, shape: tuple[int | str, ...]) -> None:
    fits = len(shape) == len(tensor.shape) and all(
        want == -1 if isinstance(dim, str) else dim > 0 and want in (-1, dim)
        for want, dim in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        shown = ", ".join(map(str, shape))
        raise SpecError(
            f"request {request.name!r}: shape [{shown}] does not fit input {tensor.name!r} "
            f"of shape {list(tensor.shape)}",
            "-1 is a dimension left open; the batch axis is not part of it",
        )


def _used(request: RequestPlan) -> None:
    """Raises SpecError for a named dimension that no shape has."""
    used = {dim for shape in request.shapes.values() for dim in shape}
    for name in request.dims:
        if name not in used:
            raise SpecError(
                f"request {request.name!r}: no shape has the dimension {name!r}",
                f'say which inputs do: shapes = {{ … = ["{name}"] }}',
            )


def _made_up(request: RequestPlan, tensor: Tensor, shape: tuple[int, ...]) -> Note:
    size = "×".join(map(str, shape))
    dims = ", ".join(map(str, shape))
    return Note(
        "assumed-shape",
        f"{tensor.name} leaves dimensions open: {size} taken for {request.name!r}",
        f'set request.shapes = {{"{tensor.name}" = [{dims}]}} to what your users send',
    )


def known_names(endpoint: Endpoint, given: Mapping[str, Any], where: str) -> None:
    """Raises SpecError for a name that no input has."""
    known = [tensor.name for tensor in endpoint.inputs]
    for name in given:
        if name not in known:
            raise SpecError(
                f"{where}: the model has no input {name!r}", f"it has {', '.join(known)}"
            )
