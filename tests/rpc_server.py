"""A small gRPC server for the tests: grpcio's own, which is gRPC's C core, on loopback."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from loadbench.model import Tensor
from loadbench.plan import Endpoint
from loadbench.targets.messages import INFERENCE, message

HANDS = 16  # calls at once
Infer = Callable[[bytes, Any], bytes]
Answers = Callable[[bytes, Any], Iterator[bytes]]


def answer(values: Any = (0.25, -1.5, 3.0), **changed: Any) -> bytes:
    """A ModelInferResponse with the one output of `endpoint`."""
    array = np.asarray(values, np.float32)
    told = {"name": "y", "datatype": "FP32", "shape": [1, array.size], **changed}
    made = message("inference.ModelInferResponse")(model_name="m", model_version="1")
    made.outputs.add(**told)
    made.raw_output_contents.append(array.tobytes())
    packed: bytes = made.SerializeToString()
    return packed


def endpoint(port: int, wide: int = 4, out: int = 3, **changed: Any) -> Endpoint:
    """A model that takes `wide` values and gives `out` of them."""
    return Endpoint(
        host="127.0.0.1", port=port, protocol="grpc", model="m",
        inputs=(Tensor("x", "FP32", (wide,)),), outputs=(Tensor("y", "FP32", (out,)),), **changed,
    )  # fmt: skip


class Server:
    """A server that runs. `calls` have come, `cancelled` of them were given up by the client."""

    def __init__(
        self, infer: Infer, options: Sequence[tuple[str, int]], answers: Answers | None = None
    ) -> None:
        self.calls: list[bytes] = []
        self.peers: set[str] = set()
        self.metadata: dict[str, str] = {}  # of the latest call
        self.port = 0
        self._infer = infer
        self._answers = answers
        self.grpc = grpc.server(
            ThreadPoolExecutor(HANDS), options=[("grpc.so_reuseport", 0), *options]
        )
        handlers = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._answer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._answer_all),
        }
        self.grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(INFERENCE, handlers),)
        )

    def _answer(self, request: bytes, context: Any) -> bytes:
        self.calls.append(request)
        self.peers.add(context.peer())
        self.metadata = {name: str(value) for name, value in context.invocation_metadata()}
        return self._infer(request, context)

    def _answer_all(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        assert self._answers is not None
        for request in requests:
            self.calls.append(request)
            self.metadata = {name: str(value) for name, value in context.invocation_metadata()}
            yield from self._answers(request, context)


@contextmanager
def serving(
    infer: Infer,
    options: Sequence[tuple[str, int]] = (),
    credentials: Any = None,
    answers: Answers | None = None,
) -> Iterator[Server]:
    server = Server(infer, [("grpc.max_receive_message_length", -1), *options], answers)
    if credentials is None:
        server.port = server.grpc.add_insecure_port("127.0.0.1:0")
    else:
        server.port = server.grpc.add_secure_port("127.0.0.1:0", credentials)
    server.grpc.start()
    try:
        yield server
    finally:
        server.grpc.stop(None).wait()
