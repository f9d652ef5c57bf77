"""Which precision a torch model runs in: as asked, or whatever this device is measurably faster in.

Autocast decides operation by operation what may run in half precision. It would also cast every
weight again in every batch, since its cache is off inside inference_mode: so the weights of
products and convolutions are cast here, once. The fp32 originals are given back if the half loses.
"""

from collections.abc import Sequence

import torch

from loadbench import units
from loadbench.engine import outputs, signature
from loadbench.engine.backends import beside, packed
from loadbench.engine.backends.torch_run import DTYPES, TorchModel
from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.spec import EngineSpec


def settle(
    model: TorchModel, heavy: Sequence[torch.nn.Parameter], settings: EngineSpec
) -> tuple[Note, ...]:
    """Sets the model's precision, packs its weights, and says why.

    Raises SpecError if the precision asked for cannot be had.
    """
    own = native(model.weights())
    if own != "fp32":
        if settings.precision not in ("auto", own):
            raise SpecError(
                f"{model.name}: its weights are {own}, not {settings.precision}",
                f'set engine.precision = "{own}" or "auto"',
            )
        model.stored = model.precision = own
        _channels_last(model, heavy)
        found = Note("precision", f"{own}: as the weights of the file are")
        return (*packed.pack(model, settings), found)
    notes = packed.pack(model, settings)
    if settings.precision == "fp32":
        return notes
    if settings.precision != "auto":
        return (*notes, *_as_asked(model, heavy, settings.precision))
    half = candidate(model.device)
    text, wins = _measured(model, heavy, half, settings.max_batch)
    if wins:
        lower(model, heavy, half)
    hint = f'set engine.precision = "{"fp32" if wins else half}" for the other'
    return (*notes, Note("precision", text, hint))


def native(weights: Sequence[torch.Tensor]) -> str:
    """The precision most of the weights are stored in; fp32 where there are none."""
    count = dict.fromkeys(DTYPES.values(), 0)
    for weight in weights:
        if weight.dtype in count:
            count[weight.dtype] += weight.numel()
    best = max(count.values())
    return next(name for name, dtype in DTYPES.items() if count[dtype] == best)


def candidate(where: str) -> str:
    """The half precision worth trying on this device: bf16, which cannot overflow where fp32 does
    not; fp16 on cards too old for it."""
    if where == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16"


def lower(model: TorchModel, heavy: Sequence[torch.nn.Parameter], half: str) -> list[torch.Tensor]:
    """Goes to half precision; returns the weights as they were, for `restore`."""
    before = [parameter.data for parameter in heavy]
    for parameter in heavy:
        parameter.data = parameter.data.to(DTYPES[half])
    model.precision = half
    _channels_last(model, heavy)
    packed.renew(model)
    return before


def _channels_last(model: TorchModel, heavy: Sequence[torch.nn.Parameter]) -> None:
    """Convolutions in half precision run on images whose channels lie next to each other: they are
    turned there again and again if their weights do not say so. Not where the model then stumbles
    (`view` wants rows as they were), which for open sizes is not known beforehand."""
    images = [parameter for parameter in heavy if parameter.dim() == 4]
    if not images or any(-1 in tensor.shape for tensor in model.inputs):
        return
    before = [parameter.data for parameter in images]
    for parameter in images:
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    try:
        model.run(signature.inputs_of(model, 2))
    except SpecError:
        for parameter, data in zip(images, before, strict=True):
            parameter.data = data


def restore(
    model: TorchModel, heavy: Sequence[torch.nn.Parameter], before: Sequence[torch.Tensor]
) -> None:
    """Back to fp32."""
    for parameter, data in zip(heavy, before, strict=True):
        parameter.data = data
    model.precision = "fp32"
    packed.renew(model)


def _as_asked(
    model: TorchModel, heavy: Sequence[torch.nn.Parameter], half: str
) -> tuple[Note, ...]:
    arrays = signature.inputs_of(model, 2)
    full = model.run(arrays)
    lower(model, heavy, half)
    try:
        found = model.run(arrays)
    except SpecError as error:
        raise SpecError(
            f"{model.name} cannot run in {half}: {error.message}", 'set engine.precision = "fp32"'
        ) from error
    if beside.broken(found, full, model.outputs):
        text = f"{half}, as asked, gives NaN or infinity where fp32 gives numbers"
        return (Note("precision", text, 'set engine.precision = "bf16" or "fp32"'),)
    gap = units.percent(outputs.difference(found, full, model.outputs))
    text = f"{half}, as asked: outputs differ from fp32 by up to {gap} %"
    return (Note("precision", text),)


def _measured(
    model: TorchModel, heavy: Sequence[torch.nn.Parameter], half: str, largest: int
) -> tuple[str, bool]:
    """What was found out about the half, in words, and whether it is the better choice.

    The model is in fp32 before and after.
    """
    rows, full_many = beside.usual_rows(model, largest)
    full_one = beside.time(model, 1)
    arrays = signature.inputs_of(model, min(rows, 2))
    exact = model.run(arrays)
    before = [parameter.data for parameter in heavy]
    try:
        lower(model, heavy, half)
        found = model.run(arrays)
        many, one = beside.time(model, rows), beside.time(model, 1)
    except (SpecError, MemoryError, torch.OutOfMemoryError) as refusal:
        return f"fp32: {half} does not work here ({str(refusal).partition(chr(10))[0]})", False
    finally:
        restore(model, heavy, before)
    return beside.verdict(
        half,
        beside.Beside(
            outputs.difference(found, exact, model.outputs),
            beside.broken(found, exact, model.outputs),
            rows,
            full_many.fastest_ns / many.fastest_ns,
            full_one.fastest_ns / one.fastest_ns,
        ),
    )
