"""Execution backends. Each module here loads one kind of model and runs batches of it.

What a backend gives is a `Model`: it says what goes in and out, and runs a whole batch. It knows
nothing of requests, queues or HTTP. One instance is called from one thread at a time; several
instances of a model (engine.instances) are several `Model`s, or one whose `run` is safe to share.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from loadbench.model import Note, Tensor

Arrays = Mapping[str, NDArray[Any]]


class Model(Protocol):
    """A loaded model.

    `inputs` and `outputs` have no batch axis. With `batched` the arrays of `run` have one in front
    and `max_batch` says how many rows fit at most (None: any). Without it a request is run as it
    is, one at a time, and the tensors' shapes are whole.
    BF16 travels as uint16 bit patterns, since numpy has no such type.

    A model whose device works by itself may have a `launcher` (see Launcher) besides: then the next
    batch is on its way before the one before has ended.
    """

    name: str
    version: str  # parses as an integer: clients demand it
    platform: str  # "pytorch", "pytorch_torchscript", "pytorch_export", "onnxruntime_onnx",
    #                "openvino_onnx", "fake"
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool
    max_batch: int | None
    device: str  # "cpu", "cuda:0"
    precision: str  # "fp32", "bf16", "fp16", "int8"
    notes: tuple[Note, ...]  # first what was chosen (see stated), then why, and doubts
    metadata: dict[str, Any]  # of the model file: version, preprocess_params

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name, in the datatypes of `outputs`. Blocks until they are on the host.

        Raises errors.SpecError for inputs the model itself refuses, MemoryError when the device
        has no room for the batch; anything else is a fault of the model.
        """
        ...

    def memory(self) -> dict[str, int]:
        """Bytes held: {"CPU": n} or {"GPU": n}."""
        ...


class Flight(Protocol):
    """A batch on its way: to the device, through the model and back to the host."""

    def done(self) -> bool:
        """Whether it has ended, so that `wait` will not."""
        ...

    def wait(self) -> dict[str, NDArray[Any]]:
        """As `Model.run`, with its errors. To be called once. The arrays stay as they are for as
        long as anyone holds them."""
        ...

    @property
    def compute_ns(self) -> int:
        """How long the device computed, by its own clock; known after `wait`."""
        ...

    @property
    def gap_ns(self) -> int:
        """How long the device stood idle between the batch before and this one, by its own clock;
        0 where there was none. Known after `wait`."""
        ...


class Launcher(Protocol):
    """Runs batches without waiting for them, one after the other. To be called from one thread."""

    def launch(
        self, shapes: Mapping[str, tuple[int, ...]], fill: Callable[[Arrays], object]
    ) -> Flight | None:
        """Starts a batch whose inputs have these shapes, rows in front; `fill` is given arrays of
        them and writes all of their rows. None where `Model.run` has to do it: there is no room in
        the buffers, or as many batches are on their way as there are buffers. Raises what `run`
        raises, and what `fill` does.
        """
        ...
