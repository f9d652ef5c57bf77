"""A server that answers as TensorFlow Serving does over gRPC (prediction_service.proto and
model_service.proto), with the models of `tfserving`: y = x / 2 + 3, n = words.

It writes tensors as the real one does: their contents in one piece, texts one by one.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from loadbench.targets.messages import message
from loadbench.targets.predict import MODELS, SERVICE
from tests.tfserving import SIGNATURES

AVAILABLE, FLOAT, STRING, INT64 = 30, 1, 7, 9


class Serving:
    """`asked` are the requests that came; `spoiled` changes each answer before it is sent."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.spoiled: Any = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def predict(self, asked: Any, context: Any) -> Any:
        self.asked.append(asked)
        model = asked.model_spec.name
        told: Any = SIGNATURES[model].get(asked.model_spec.signature_name or "serving_default")
        if told is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such signature")
        if set(asked.inputs) != set(told["inputs"]):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "inputs to be fed do not match")
        answer = message("tensorflow.serving.PredictResponse")()
        x = asked.inputs["x"]
        shape = [dim.size for dim in x.tensor_shape.dim]
        values = np.frombuffer(x.tensor_content, np.float32).reshape(shape) / 2 + 3
        y = answer.outputs["y"]
        y.dtype = FLOAT
        for size in shape:
            y.tensor_shape.dim.add(size=size)
        y.tensor_content = values.astype(np.float32).tobytes()
        if "n" in told["outputs"]:
            n = answer.outputs["n"]
            n.dtype = INT64
            n.tensor_shape.dim.add(size=shape[0])
            n.int64_val.extend(len(text.split()) for text in asked.inputs["text"].string_val)
        if self.spoiled:
            self.spoiled(answer)
        return answer

    def metadata(self, asked: Any, context: Any) -> Any:
        model = self._known(asked, context)
        told = message("tensorflow.serving.SignatureDefMap")()
        one: Any
        for name, one in SIGNATURES[model].items():
            for key in ("inputs", "outputs"):
                for tensor, info in one[key].items():
                    found = getattr(told.signature_def[name], key)[tensor]
                    types = found.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name
                    found.dtype = types[info["dtype"]].number
                    for dim in info["tensor_shape"]["dim"]:
                        found.tensor_shape.dim.add(size=int(dim["size"]))
        answer = message("tensorflow.serving.GetModelMetadataResponse")()
        packed = answer.metadata["signature_def"]
        packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        packed.value = told.SerializeToString()
        return answer

    def status(self, asked: Any, context: Any) -> Any:
        self._known(asked, context)
        answer = message("tensorflow.serving.GetModelStatusResponse")()
        answer.model_version_status.add(version=123, state=AVAILABLE)
        return answer

    def _known(self, asked: Any, context: Any) -> str:
        model: str = asked.model_spec.name
        if not model:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
        if model not in SIGNATURES:
            said = f"Could not find any versions of model {model}"
            context.abort(grpc.StatusCode.NOT_FOUND, said)
        return model


def _handler(call: Any, request: str) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=message(f"tensorflow.serving.{request}").FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )


@contextmanager
def tensorflow_serving_rpc() -> Iterator[Serving]:
    found = Serving()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    predictions = {
        "Predict": _handler(found.predict, "PredictRequest"),
        "GetModelMetadata": _handler(found.metadata, "GetModelMetadataRequest"),
    }
    models = {"GetModelStatus": _handler(found.status, "GetModelStatusRequest")}
    for service, handlers in ((SERVICE, predictions), (MODELS, models)):
        generic = grpc.method_handlers_generic_handler(service, handlers)
        server.add_generic_rpc_handlers((generic,))
    found.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield found
    finally:
        server.stop(None).wait()
