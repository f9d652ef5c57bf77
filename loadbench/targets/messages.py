"""The messages and services of the Open Inference Protocol over gRPC, for whoever asks and for
whoever answers, and those of TensorFlow Serving, from the descriptors made of .proto files.

They live in a pool of their own, so that another library's copy of the same protocol, such as
tritonclient's, can be imported beside them.
"""

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"


@cache
def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for path in ("engine/rpc/protocol.binpb", "targets/protos/serving.binpb"):
        packed = resources.files("loadbench").joinpath(path).read_bytes()
        for file in descriptor_pb2.FileDescriptorSet.FromString(packed).file:
            pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def message(name: str) -> Any:
    """The class of a message: `inference.ModelInferRequest`."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))


def methods(service: str) -> tuple[Any, ...]:
    """The descriptors of a service's methods."""
    return tuple(_pool().FindServiceByName(service).methods)
