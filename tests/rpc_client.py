"""A gRPC client for the tests: grpcio over real sockets, messages of the engine's own .proto."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from loadbench.engine.rpc.messages import INFERENCE, message, methods
from tests.served import Engine, serving

WAIT_S = 20.0


class Client:
    """Calls by their names: `client.ModelInfer(request)`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._kinds = {method.name: method for method in methods(INFERENCE)}

    def call(self, name: str) -> Any:
        """grpcio's own object, for what needs more than an answer."""
        method = self._kinds[name]
        write = message(method.input_type.full_name).SerializeToString
        read = message(method.output_type.full_name).FromString
        kind = (
            self.channel.stream_stream if name == "ModelStreamInfer" else self.channel.unary_unary
        )
        return kind(f"/{INFERENCE}/{name}", request_serializer=write, response_deserializer=read)

    def ask(self, name: str, /, timeout: float | None = WAIT_S, **members: Any) -> Any:
        """A call with a message of these members."""
        request = message(self._kinds[name].input_type.full_name)(**members)
        return self.call(name)(request, timeout=timeout)

    def refused(
        self, name: str, /, timeout: float | None = WAIT_S, **members: Any
    ) -> grpc.RpcError:
        """The error of a call that must fail."""
        try:
            answer = self.ask(name, timeout, **members)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"no error but {answer}")


def request(x: Any, **members: Any) -> Any:
    """A ModelInferRequest to the fake model with its tensor in raw_input_contents."""
    array = np.asarray(x, np.float32)
    asked = message("inference.ModelInferRequest")(model_name="fake", **members)
    asked.inputs.add(name="x", datatype="FP32", shape=array.shape)
    asked.raw_input_contents.append(array.tobytes())
    return asked


def outputs(answer: Any) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The one output of the fake model."""
    (tensor,), (raw,) = answer.outputs, answer.raw_output_contents
    assert (tensor.name, tensor.datatype) == ("y", "FP32")
    return np.frombuffer(raw, np.float32).reshape(list(tensor.shape))


@contextmanager
def serving_rpc(*arguments: str) -> Iterator[tuple[Engine, Client]]:
    """An engine with the fake model, and a gRPC client of it."""
    with serving("fake", "--grpc-port", "0", *arguments) as engine:
        assert engine.process.stderr is not None
        line = ""
        while not line.startswith("gRPC on "):
            line = engine.process.stderr.readline()
            assert line, "it does not say where gRPC is"
        client = Client(int(line.rpartition(":")[2]))
        try:
            yield engine, client
        finally:
            client.channel.close()
