"""TensorFlow Serving over gRPC (its PredictionService): tensors → the call, and whether its answer
is what was asked for. Counterpart of `tensorflow`, which tells of its models and speaks its JSON.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import kserve, rpc
from loadbench.targets.datatypes import DTYPES, width
from loadbench.targets.kserve import Given, Output, objects
from loadbench.targets.messages import message
from loadbench.targets.region import Region
from loadbench.targets.tensorflow import DATATYPES
from loadbench.targets.wire import BadAnswer, Check, Headers, OverLong

SERVICE = "tensorflow.serving.PredictionService"
MODELS = "tensorflow.serving.ModelService"
PATH = f"/{SERVICE}/Predict"
_MOST = 256 << 20  # bytes of an answer
_VALUES = {
    "FP16": "half_val", "BF16": "half_val", "FP32": "float_val", "FP64": "double_val",
    "INT8": "int_val", "INT16": "int_val", "INT32": "int_val", "UINT8": "int_val",
    "UINT16": "int_val", "INT64": "int64_val", "UINT32": "uint32_val", "UINT64": "uint64_val",
    "BOOL": "bool_val", "BYTES": "string_val",
}  # fmt: skip
_TOLD = {datatype: told for told, datatype in DATATYPES.items()}


def request(
    endpoint: Endpoint, tensors: Mapping[str, Given], said: RequestPlan, _: Region | None
) -> bytes:
    """The call with these tensors. SpecError for parameters: it knows none."""
    if said.parameters:
        raise SpecError(f"TensorFlow Serving takes no parameters: {', '.join(said.parameters)}")
    asked = message("tensorflow.serving.PredictRequest")()
    asked.model_spec.name = endpoint.model
    asked.model_spec.signature_name = endpoint.signature
    for name, (datatype, array) in tensors.items():
        tensor = asked.inputs[name]
        tensor.dtype = _number(_TOLD[datatype])
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        if datatype == "BYTES":
            tensor.string_val.extend(array.ravel().tolist())
        else:
            tensor.tensor_content = kserve.raw_bytes(datatype, array)
    return rpc.call(endpoint, PATH, said.headers, asked)


def _types() -> Any:
    field = message("tensorflow.TensorProto").DESCRIPTOR.fields_by_name["dtype"]
    return field.enum_type


def _number(told: str) -> int:
    return int(_types().values_by_name[told].number)


def _called(number: int) -> str:
    found = _types().values_by_number.get(number)
    return str(found.name) if found else str(number)


def _name(number: int) -> str:
    """The datatype as KServe calls it."""
    return DATATYPES.get(_called(number), _called(number))


def checker(endpoint: Endpoint, rows: int) -> Check:
    """The full check of answers to requests of so many rows: every output that the signature
    promises is there, of its type and shape, holds its values, and nothing else is."""
    wanted = kserve.promised(endpoint, rows)

    def check(_headers: Headers, body: bytes) -> None:
        outputs = _outputs(body)
        kserve.kept([_output(name, told) for name, told in sorted(outputs.items())], wanted)
        for name, told in outputs.items():
            _holds(name, told)

    return check


def _outputs(body: bytes) -> Mapping[str, Any]:
    if len(body) > _MOST:
        raise OverLong(f"a PredictResponse of {len(body):,} bytes")
    try:
        found = message("tensorflow.serving.PredictResponse").FromString(body)
    except DecodeError as error:
        raise BadAnswer(f"not a PredictResponse: {error}") from error
    outputs: Mapping[str, Any] = found.outputs
    return outputs


def _output(name: str, told: Any) -> Output:
    return Output(name, [dim.size for dim in told.tensor_shape.dim], _name(told.dtype))


def _holds(name: str, told: Any) -> None:
    """Raises BadAnswer unless it has the values of its shape; TensorFlow leaves out of the end what
    is all the same."""
    output = _output(name, told)
    if output.datatype not in _VALUES:
        raise BadAnswer(f"{name} is {output.datatype}")
    elements, element = kserve.elements(output), width(output.datatype)
    if told.tensor_content:
        if element is None or len(told.tensor_content) != elements * element:
            size = len(told.tensor_content)
            raise BadAnswer(f"{name}: {size} bytes do not hold {elements} {output.datatype}")
        return
    found = len(getattr(told, _VALUES[output.datatype]))
    if found > elements or (elements and not found):
        raise BadAnswer(f"{name} has {found} values instead of {elements}")


def read(_: Headers, body: bytes) -> dict[str, NDArray[Any]]:
    """The outputs of an answer that has passed the check. BF16 as bit patterns; BYTES as
    objects."""
    return dict(_arrays(_outputs(body)))


def _arrays(outputs: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, told in sorted(outputs.items()):
        output = _output(name, told)
        elements = math.prod(output.shape)
        if told.tensor_content:
            array = np.frombuffer(told.tensor_content, DTYPES[output.datatype])
        else:
            values = list(getattr(told, _VALUES[output.datatype]))
            values += values[-1:] * (elements - len(values))
            array = _typed(output.datatype, values)
        yield name, array.reshape(output.shape)


def _typed(datatype: str, values: list[Any]) -> NDArray[Any]:
    if datatype == "BYTES":
        return objects(values)
    if datatype in ("FP16", "BF16"):  # bit patterns
        return np.array(values, np.uint16).view(DTYPES[datatype])
    return np.array(values, DTYPES[datatype])


Ask = Callable[[str, str, Any, str], Any]  # service, call, request, name of the response


def told_of(model: str, ask: Ask) -> dict[str, Any]:
    """What REST says at /v1/models/NAME of the state of a model."""
    asked = message("tensorflow.serving.GetModelStatusRequest")()
    asked.model_spec.name = model
    found = ask(MODELS, "GetModelStatus", asked, "tensorflow.serving.GetModelStatusResponse")
    states = message("tensorflow.serving.ModelVersionStatus").DESCRIPTOR.enum_types_by_name["State"]
    return {
        "model_version_status": [
            {"version": str(one.version), "state": states.values_by_number[one.state].name}
            for one in found.model_version_status
            if one.state in states.values_by_number
        ]
    }


def metadata(model: str, ask: Ask) -> dict[str, Any]:
    """What REST says at /v1/models/NAME/metadata."""
    asked = message("tensorflow.serving.GetModelMetadataRequest")(metadata_field=["signature_def"])
    asked.model_spec.name = model
    found = ask(SERVICE, "GetModelMetadata", asked, "tensorflow.serving.GetModelMetadataResponse")
    packed = found.metadata["signature_def"].value
    told = message("tensorflow.serving.SignatureDefMap").FromString(packed)
    return {
        "metadata": {
            "signature_def": {
                "signature_def": {
                    name: {key: _tensors(getattr(one, key)) for key in ("inputs", "outputs")}
                    for name, one in told.signature_def.items()
                }
            }
        }
    }


def _tensors(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "dtype": _called(one.dtype),
            "tensor_shape": {
                "dim": [{"size": str(dim.size)} for dim in one.tensor_shape.dim],
                "unknown_rank": one.tensor_shape.unknown_rank,
            },
        }
        for name, one in told.items()
    }
