"""Columns of data: one array whose first axis counts rows, or, where rows differ in shape (texts of
different lengths), an array of arrays. And whether they fit a model's tensor."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.targets.datatypes import DTYPES, FLOATS, narrow

Column = NDArray[Any]


def column(rows: Sequence[Any]) -> Column:
    """Of nested lists. Raises ValueError if a row is ragged in itself."""
    try:
        return np.array(rows)
    except ValueError:  # the rows differ in shape
        return _apart([np.array(row) for row in rows])


def _apart(rows: Sequence[NDArray[Any]]) -> Column:
    found = np.empty(len(rows), object)
    for index, row in enumerate(rows):
        found[index] = row
    return found


def differ(found: Column) -> bool:
    """Whether the rows differ in shape."""
    return found.dtype.hasobject and found.size > 0 and isinstance(found.flat[0], np.ndarray)


def apply(function: Callable[[NDArray[Any]], NDArray[Any]], found: Column) -> Column:
    """What the function, which keeps the first axis, makes of the rows."""
    if not differ(found):
        return function(found)
    return _apart([function(row[np.newaxis])[0] for row in found])


def flat(found: Column) -> NDArray[Any]:
    """All values one after the other."""
    return np.concatenate([row.ravel() for row in found]) if differ(found) else found.ravel()


def take(found: Column, index: NDArray[np.int64], where: str = "") -> NDArray[Any]:
    """Some rows as one array. Raises SpecError if their shapes do not allow that."""
    if not differ(found):
        first, behind = int(index[0]), int(index[-1]) + 1
        together = behind - first == len(index)  # then nothing needs to be copied
        return found[first:behind] if together else np.asarray(found[index])
    rows = [found[number] for number in index]
    if len({row.shape for row in rows}) > 1:
        text = f"{where}: rows of different shapes cannot share a request"
        raise SpecError(text, "rows = 1")
    return np.stack(rows)


def fitted(tensor: Tensor, item: tuple[str | None, Column], what: str) -> Column:
    """A tensor's values with one row per entry (of an unbatched model: one request's tensor), in
    its own type. `item` has the type that the file says, if it does. Raises SpecError."""
    datatype, array = item
    where = f"{what} {tensor.name!r}"
    if datatype is not None and datatype != tensor.datatype:
        raise SpecError(f"{where} is {datatype} in the file and {tensor.datatype} in the model")
    if differ(array):
        return apply(lambda row: _row(tensor, row, where), array)
    return _row(tensor, array, where)


def _row(tensor: Tensor, array: NDArray[Any], where: str) -> NDArray[Any]:
    array = _cast(array, tensor, where)
    if tensor.shape == (1,) and array.ndim == 1:  # a list of single values, without their axis
        array = array[:, np.newaxis]
    if array.ndim == len(tensor.shape):
        array = array[np.newaxis]
    fits = array.ndim == len(tensor.shape) + 1 and all(
        want in (-1, dim) for want, dim in zip(tensor.shape, array.shape[1:], strict=True)
    )
    if not len(array):
        raise SpecError(f"{where} has shape {list(array.shape)} in the file: it has no rows")
    if not fits:
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
    if tensor.datatype in FLOATS:
        try:
            return narrow(array, tensor.datatype)
        except OverflowError as error:
            raise SpecError(f"{where}: {error}") from error
    with np.errstate(invalid="ignore"):
        found = array.astype(dtype)
    if not np.array_equal(found, array):
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
