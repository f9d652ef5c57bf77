"""TensorFlow Serving over HTTP (its api_rest.md): what it says of a model, tensors → a `:predict`
request by rows or by columns, and whether an answer is what was asked for.

By rows, `instances` are what a client with one example at a time writes; by columns each tensor
stands alone, which is shorter, and the only way for models without a batch axis. Its JSON has NaN
and infinities as words of their own; bytes are {"b64": …}.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.datatypes import DTYPES, floats
from loadbench.targets.kserve import Given, Output, fits, objects
from loadbench.targets.region import Region
from loadbench.targets.wire import BadAnswer, Check, Headers, http_request

USUAL = "serving_default"  # signature
DATATYPES = {
    "DT_BOOL": "BOOL", "DT_STRING": "BYTES", "DT_HALF": "FP16", "DT_BFLOAT16": "BF16",
    "DT_FLOAT": "FP32", "DT_DOUBLE": "FP64", "DT_INT8": "INT8", "DT_INT16": "INT16",
    "DT_INT32": "INT32", "DT_INT64": "INT64", "DT_UINT8": "UINT8", "DT_UINT16": "UINT16",
    "DT_UINT32": "UINT32", "DT_UINT64": "UINT64",
}  # fmt: skip
_LEAVES: dict[str, tuple[type, ...]] = {"BOOL": (bool,), "BYTES": (str, dict)}
_REFUSALS = ("Missing model name", "Malformed request: GET /v1/", "Could not find any versions")
_INTEGERS, _NUMBERS = (int,), (int, float)
Tensors = tuple[Tensor, ...]


def model_path(model: str, version: str = "") -> str:
    """Where it tells of a model; `:predict` behind it is where it is asked."""
    which = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v1/models/{quote(model, safe='')}{which}"


def serves(found: object) -> bool:
    """Whether this is what TensorFlow Serving says of the state of a model."""
    return isinstance(found, dict) and isinstance(found.get("model_version_status"), list)


def refuses(found: object) -> bool:
    """Whether this is how it refuses to tell of a model that is not named, or not there."""
    said = found.get("error") if isinstance(found, dict) else None
    return isinstance(said, str) and said.startswith(_REFUSALS)


def ready(found: Mapping[str, Any]) -> bool:
    """Whether a version of the model can be asked."""
    states = [one.get("state") for one in found["model_version_status"] if isinstance(one, dict)]
    return "AVAILABLE" in states


def signature(found: object, name: str) -> tuple[Tensors, Tensors]:
    """Inputs and outputs of the signature of that name, in what it says at /metadata; batch axes
    included. SpecError if there is none such, ValueError if that is not how it speaks."""
    try:
        known = found["metadata"]["signature_def"]["signature_def"]  # type: ignore[index]
        served = {key: one for key, one in known.items() if not key.startswith("__")}
        if name not in served:
            raise SpecError(
                f"the model has no signature {name!r}",
                f"[target] signature is one of {', '.join(served)}",
            )
        told = served[name]
        return _tensors(told["inputs"]), _tensors(told["outputs"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no signatures: {str(found)[:200]}") from error


def _tensors(told: Mapping[str, Any]) -> Tensors:
    return tuple(
        Tensor(name, _datatype(name, one["dtype"]), _shape_of(name, one["tensor_shape"]))
        for name, one in sorted(told.items())
    )


def _datatype(name: str, told: str) -> str:
    if told not in DATATYPES:
        raise SpecError(f"tensor {name!r} is of type {told}, which JSON cannot carry")
    return DATATYPES[told]


def _shape_of(name: str, told: Mapping[str, Any]) -> tuple[int, ...]:
    if told.get("unknown_rank"):
        raise SpecError(
            f"the server does not tell how many dimensions {name!r} has",
            'say what to send: [target] protocol = "http" and [[request]] body = …',
        )
    return tuple(int(dim["size"]) for dim in told.get("dim") or ())


# ---- requests


def request(
    endpoint: Endpoint, tensors: Mapping[str, Given], said: RequestPlan, _: Region | None
) -> bytes:
    """The predict request for these tensors. SpecError for parameters: it knows none."""
    if said.parameters:
        raise SpecError(f"TensorFlow Serving takes no parameters: {', '.join(said.parameters)}")
    found = {name: _plain(given) for name, given in tensors.items()}
    asked: dict[str, Any] = {}
    if endpoint.signature != USUAL:
        asked["signature_name"] = endpoint.signature
    if _by_rows(endpoint):
        asked["instances"] = _rows(found)
    else:
        asked["inputs"] = found
    body = json.dumps(asked, separators=(",", ":")).encode()
    path = f"{model_path(endpoint.model, endpoint.version)}:predict"
    own = {"Content-Type": "application/json"}
    return http_request(endpoint, "POST", path, {**own, **said.headers}, body)


def _by_rows(endpoint: Endpoint) -> bool:
    return endpoint.batched and endpoint.layout == "rows"


def _rows(found: Mapping[str, Any]) -> list[Any]:
    """A value a row where there is one input, else an object."""
    if len(found) == 1:
        (column,) = found.values()
        return list(column)
    names = list(found)
    return [dict(zip(names, row, strict=True)) for row in zip(*found.values(), strict=True)]


def _plain(given: Given) -> Any:
    """Nested lists."""
    if given.datatype == "BYTES":
        texts = [{"b64": base64.b64encode(item).decode()} for item in given.array.ravel()]
        return objects(texts).reshape(given.array.shape).tolist()
    array = floats(given.array) if given.datatype == "BF16" else given.array
    return array.tolist()


# ---- answers


def checker(endpoint: Endpoint, rows: int) -> Check:
    """The full check of answers to requests of so many rows: every output that the signature
    promises is there, of its type and shape, and nothing else."""

    def check(_headers: Headers, body: bytes) -> None:
        for tensor, value in _outputs(endpoint, body):
            whole = "INT" in tensor.datatype
            allowed = _LEAVES.get(tensor.datatype, _INTEGERS if whole else _NUMBERS)
            shape = _measured(tensor, value, allowed)
            wanted = (rows, *tensor.shape) if endpoint.batched else tensor.shape
            fits(Output(tensor.name, list(shape), tensor.datatype), wanted, tensor)

    return check


def read(endpoint: Endpoint, body: bytes) -> dict[str, NDArray[Any]]:
    """The outputs of an answer that has passed the check. BF16 as floats; BYTES as objects."""
    found = {}
    for tensor, value in _outputs(endpoint, body):
        if tensor.datatype == "BYTES":
            shape = _measured(tensor, value, _LEAVES["BYTES"])
            array = objects([_bytes(item) for item in _flat(value)]).reshape(shape)
        else:
            dtype = np.dtype(np.float32) if tensor.datatype == "BF16" else DTYPES[tensor.datatype]
            array = _array(tensor, value, dtype)
        found[tensor.name] = array
    return found


def _array(tensor: Tensor, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        return np.array(value, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        text = f"{tensor.name} holds what is no {tensor.datatype}: {error}"
        raise BadAnswer(text) from error


def _outputs(endpoint: Endpoint, body: bytes) -> list[tuple[Tensor, Any]]:
    """Each output with what is said of it, batch axis included. Raises BadAnswer."""
    key = "predictions" if _by_rows(endpoint) else "outputs"
    found = _decoded(body)
    if not isinstance(found, dict) or key not in found:
        raise BadAnswer(f"not a prediction by {endpoint.layout}: no {key!r} in {_short(body)}")
    value, tensors = found[key], endpoint.outputs
    if len(tensors) == 1:
        return [(tensors[0], value)]
    if key == "predictions":
        value = _columns(value)
    names = {tensor.name for tensor in tensors}
    if not isinstance(value, dict) or value.keys() != names:
        told = ", ".join(value) if isinstance(value, dict) else _short(body)
        raise BadAnswer(f"outputs {told} instead of {', '.join(sorted(names))}")
    return [(tensor, value[tensor.name]) for tensor in tensors]


def _columns(rows: Any) -> dict[str, list[Any]]:
    """Objects by row → lists by name."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadAnswer("predictions of several outputs are no objects")
    names = list(rows[0]) if rows else []
    if any(row.keys() != set(names) for row in rows):
        raise BadAnswer("predictions differ in their outputs")
    return {name: [row[name] for row in rows] for name in names}


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(body)  # NaN and the infinities
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"not JSON: {error}: {_short(body)}") from error


def _measured(tensor: Tensor, value: Any, allowed: tuple[type, ...]) -> tuple[int, ...]:
    """The shape of nested lists, all of whose leaves are of these types. Raises BadAnswer."""
    if not isinstance(value, list):
        number = isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))
        if not number:
            raise BadAnswer(f"{tensor.name} holds {str(value)[:40]!r}, no {tensor.datatype}")
        return ()
    if value and {type(item) for item in value} <= set(allowed):
        return (len(value),)  # most of an answer is in such rows
    shapes = {_measured(tensor, item, allowed) for item in value}
    if len(shapes) > 1:
        raise BadAnswer(f"{tensor.name} has rows of different lengths")
    return (len(value), *(shapes.pop() if shapes else ()))


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [item for part in value for item in _flat(part)]


def _bytes(item: Any) -> bytes:
    try:
        return base64.b64decode(item["b64"]) if isinstance(item, dict) else str(item).encode()
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswer(f"not bytes: {str(item)[:40]}") from error


def _short(body: bytes) -> str:
    return repr(body[:80].decode(errors="replace"))
