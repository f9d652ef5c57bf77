"""What people hand over → the named arrays that a model takes; and a model used from Python.

    model = loadbench.engine.open_model("model.onnx")
    model.run([[0.1, 0.2]])["y"]

Nothing is guessed: a row without its batch axis gets one, numbers are brought to the model's type
where that type can hold them, and anything else is an error that says what is wanted. Images come
in another layout and range than models take: see `images`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.engine import datatypes
from loadbench.engine.backends import Model
from loadbench.engine.signature import inputs_of
from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.targets.datatypes import FLOATS, bf16


class Direct:
    """A loaded model to be called from Python, without a server. From one thread at a time."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, given: Any = None) -> dict[str, NDArray[Any]]:
        """Outputs by name, with the batch axis in front where the model has one.

        `given` is as `prepare` takes it. SpecError for what the model does not take.
        """
        return self.model.run(prepare(given, self.model))


def prepare(given: Any, model: Model) -> dict[str, NDArray[Any]]:
    """The model's inputs by name, each of its type and with a batch axis where the model has one.

    `given` is a mapping of names, a tuple of the inputs in order, the only input itself (a list, an
    array, a tensor), or None for an example row. SpecError for anything that does not fit.
    """
    if given is None:
        return inputs_of(model, 1)
    named = _named(given, model)
    found = {
        tensor.name: fitted(named[tensor.name], tensor, model.batched) for tensor in model.inputs
    }
    rows = {name: len(array) for name, array in found.items()} if model.batched else {}
    if len(set(rows.values())) > 1:
        shown = ", ".join(f"{name} has {number}" for name, number in rows.items())
        raise SpecError(f"the inputs of {model.name} differ in rows: {shown}")
    return found


def _named(given: Any, model: Model) -> Mapping[str, Any]:
    names = [tensor.name for tensor in model.inputs]
    if isinstance(given, Mapping):
        named = given
    elif isinstance(given, tuple) and len(given) == len(names):
        named = dict(zip(names, given, strict=True))
    elif len(names) == 1:
        named = {names[0]: given}
    else:
        raise SpecError(
            f"{model.name} has {len(names)} inputs: {', '.join(names)}",
            "give them by name, or as a tuple in that order",
        )
    missing = [name for name in names if name not in named]
    unknown = [str(name) for name in named if name not in names]
    if missing or unknown:
        parts = [f"missing {', '.join(missing)}"] if missing else []
        parts += [f"not expected {', '.join(unknown)}"] if unknown else []
        raise SpecError(f"{model.name}: {'; '.join(parts)}", f"its inputs: {', '.join(names)}")
    return named


def fitted(value: Any, tensor: Tensor, batched: bool) -> NDArray[Any]:
    """One input in the tensor's type and shape; SpecError if it does not fit.

    Integers fit into floats and into integers that can hold them, floats into any float, nothing
    else into anything else.
    """
    array = cast(tensor.name, _array(tensor.name, value), tensor.datatype)
    wanted = (-1, *tensor.shape) if batched else tensor.shape
    if batched and array.ndim == len(tensor.shape):
        array = array[np.newaxis]
    fits = array.ndim == len(wanted) and all(
        size > 0 and allowed in (-1, size)
        for size, allowed in zip(array.shape, wanted, strict=True)
    )
    if not fits:
        raise SpecError(
            f"input {tensor.name!r} has shape {list(array.shape)}, the model takes {list(wanted)}"
        )
    return array


def _array(name: str, value: Any) -> NDArray[Any]:
    """An array of whatever holds numbers or texts, of torch's tensors from their device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise SpecError(f"input {name!r}: rows of different lengths, or no numbers") from error


def cast(name: str, array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """The array in a type that can hold its values; SpecError if this one cannot."""
    if datatype == "BYTES":
        return as_bytes(name, array)
    kind = datatypes.NUMPY[datatype]
    if datatype == "BF16":
        if array.dtype == kind or array.dtype.kind not in "iuf":  # its bits already
            return _require(name, array, datatype, array.dtype == kind)
        return bf16(np.asarray(array, np.float32))
    if array.dtype == kind:
        return array
    fits = array.dtype.kind in ("iuf" if datatype in FLOATS else "iu")
    _require(name, array, datatype, fits and datatype != "BOOL")
    if kind.kind in "iu" and array.size:
        bounds = np.iinfo(kind)
        inside = int(array.min()) >= bounds.min and int(array.max()) <= bounds.max
        _require(name, array, datatype, inside)
    return array.astype(kind)


def _require(name: str, array: NDArray[Any], datatype: str, fits: bool) -> NDArray[Any]:
    if not fits:
        raise SpecError(f"input {name!r} is {array.dtype}, which does not fit into {datatype}")
    return array


def as_bytes(name: str, texts: NDArray[Any]) -> NDArray[Any]:
    """Texts as the protocol has them: an object array of `bytes`."""
    flat = [item.encode() if isinstance(item, str) else item for item in texts.ravel().tolist()]
    if not all(isinstance(item, bytes) for item in flat):
        raise SpecError(f"{name!r} is {texts.dtype}, not texts")
    found = np.empty(len(flat), np.object_)
    found[:] = flat
    return found.reshape(texts.shape)
