"""From a torch Program to a Model: on its device, its signature and precision settled."""

from typing import Any

import torch
from numpy.typing import NDArray

from loadbench.engine import datatypes, device, signature
from loadbench.engine.backends import precision, quantized
from loadbench.engine.backends.stated import stated
from loadbench.engine.backends.torch_run import Program, TorchModel, is_full
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec, parse_tensor

_BACKENDS = {
    "pytorch": "torch",
    "pytorch_torchscript": "torchscript",
    "pytorch_export": "torch-export",
}


def limit(settings: EngineSpec, where: str) -> None:
    """Keeps this process to its share of the card's memory. Not run on a card yet."""
    if settings.gpu_memory is not None and where != "cpu":
        torch.cuda.set_per_process_memory_fraction(settings.gpu_memory, torch.device(where))


def place(module: torch.nn.Module, where: str) -> torch.nn.Module:
    """The module on its device, for inference only. MemoryError if it does not fit there."""
    module.eval()
    module.requires_grad_(False)
    try:
        return module.to(where)
    except RuntimeError as error:  # also of a card too full to begin anything on it
        if not is_full(error):
            raise
        raise MemoryError(str(error)) from error


def declared(settings: EngineSpec, what: str) -> tuple[Tensor, ...]:
    """The inputs given by hand; SpecError that says what to add if there are none."""
    if not settings.inputs:
        raise SpecError(
            f"{what} does not say what its inputs are",
            "add --input NAME:DTYPE:DIMS for each, in order, e.g. --input x:FP32:-1,3,224,224"
            " (-1 in front is the batch)",
        )
    found = tuple(parse_tensor(text) for text in settings.inputs)
    for tensor in found:
        if tensor.datatype not in datatypes.TORCH:
            raise SpecError(f"input {tensor.name!r}: torch has no {tensor.datatype}")
    return found


def finish(program: Program, settings: EngineSpec, where: str) -> TorchModel:
    """Runs the program to learn its signature, chooses its precision, returns the Model.

    SpecError if it refuses even the plainest input, or does not fit what was declared.
    """
    limit(settings, where)
    use_threads(device.threads(settings.threads, settings.instances))
    given = tuple(parse_tensor(text) for text in settings.outputs)
    if given:
        program = program._replace(outputs=tuple(tensor.name for tensor in given))
    model = TorchModel(program, where)
    quantised = quantized.precision_of(program.module)

    def run(arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[str, NDArray[Any]]]:
        try:
            return {name: _typed(name, tensor) for name, tensor in model.raw(arrays).items()}
        except (TypeError, KeyError, AttributeError) as error:  # wrong inputs, as Python sees them
            raise SpecError(f"{type(error).__name__}: {error}") from error

    try:
        rounds = quantized.ROUNDS if quantised else ""
        found = signature.probe(run, program.inputs, program.sizes, rounds=rounds)
    except SpecError as error:
        raise SpecError(f"{program.name}: {error.message}", error.hint) from error
    signature.require(found, given)
    model.inputs, model.outputs, model.batched = found.inputs, found.outputs, found.batched
    if found.sizes:
        model.metadata["sizes"] = found.sizes
    model.notes = (*program.notes, *found.notes, *_settled(model, program, quantised, settings))
    backend = _BACKENDS[program.platform]
    if settings.backend == "torch-compile":
        from loadbench.engine.backends.compiled import compile_model  # dynamo takes a second

        compile_model(model, settings.max_batch)
        backend = "torch-compile"
    if where != "cpu":
        from loadbench.engine.backends.streams import attach

        attach(model, settings)
    elif settings.graphs is True:
        raise SpecError(
            "engine.graphs = true, but the model runs on the CPU",
            'leave it out, or set engine.device = "cuda"',
        )
    lost = _lost(settings, where)
    model.notes = (stated(model, backend, settings, lost=lost), *model.notes)
    return model


def _settled(
    model: TorchModel, program: Program, quantised: str, settings: EngineSpec
) -> tuple[Note, ...]:
    """Sets the precision, and says why it is that one."""
    if not quantised:
        if settings.precision in ("int8", "int8-static"):
            raise SpecError(
                f"{program.name}: int8 is made of ONNX models only",
                "export it with torch.onnx.export, or serve a file that torch quantised",
            )
        return precision.settle(model, program.heavy, settings)
    note = quantized.settle(model, quantised, settings)
    model.stored = model.precision = quantised
    model.packed = quantized.weight_bytes(program.module)
    return (note,)


def _lost(settings: EngineSpec, where: str) -> str:
    """What `auto` fell back from: a card that this torch cannot use."""
    if where != "cpu" or settings.device != "auto" or not device.Nvml().is_available():
        return ""
    return f"the card here is not used: torch {torch.__version__} cannot use it"


def use_threads(number: int) -> None:
    """Once per process: setting it anew costs a new pool."""
    if torch.get_num_threads() != number:
        torch.set_num_threads(number)


def _typed(name: str, tensor: torch.Tensor) -> tuple[str, NDArray[Any]]:
    datatype = datatypes.of_torch(tensor.dtype)
    if datatype is None:
        raise SpecError(
            f"output {name!r} is {tensor.dtype}, which the protocol cannot carry",
            "let the model turn it into a plain float or integer tensor",
        )
    return datatype, datatypes.from_torch(tensor, datatype)
