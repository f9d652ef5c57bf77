"""How tensors become a request and an answer becomes tensors, by the protocol of the target."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import kserve, tensorflow
from loadbench.targets.expected import Read
from loadbench.targets.kserve import Given
from loadbench.targets.region import Region
from loadbench.targets.wire import Check


class Speech(NamedTuple):
    """What the modules of the protocols have in common."""

    request: Callable[[Endpoint, Mapping[str, Given], RequestPlan, Region | None], bytes]
    checker: Callable[[Endpoint, int], Check]
    read: Read


def speech(endpoint: Endpoint) -> Speech:
    """Of a target that takes tensors."""
    if endpoint.protocol == "tensorflow":
        return Speech(
            tensorflow.request,
            tensorflow.checker,
            lambda _, body: tensorflow.read(endpoint, body),
        )
    if endpoint.protocol == "grpc":
        from loadbench.targets import rpc  # it brings protobuf

        return Speech(rpc.request, rpc.checker, rpc.read)
    if endpoint.protocol == "predict":
        from loadbench.targets import predict  # the same

        return Speech(predict.request, predict.checker, predict.read)
    return Speech(kserve.request, kserve.checker, kserve.read)
