"""Looking into a torch module: where values stop being numbers, and what it changes in itself."""

import zlib
from collections.abc import Iterator
from typing import Any

import torch

from loadbench.engine.backends import Arrays, Model
from loadbench.model import Note

MOST_BYTES = 64 << 20  # of buffers that are read through


def first_nonfinite(model: Model, modules: list[torch.nn.Module], arrays: Arrays) -> str:
    """`layer1.0.conv (Conv2d)`: the first part that gives NaN or infinity for finite inputs; ""
    if none can be seen, as in compiled and scripted programs, which do not tell of their parts."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(part: torch.nn.Module, given: Any, result: Any) -> None:
            if not found and not _finite(result) and _finite(given):
                found.append(f"{name or 'the model'} ({type(part).__name__})")

        return hook

    handles = []
    try:
        for name, part in (named for module in modules for named in module.named_modules()):
            handles.append(part.register_forward_hook(look(name)))
        model.run(arrays)
    except RuntimeError:  # of programs that allow no hooks
        return ""
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return True


class State:
    """What inference must not change: which parts are in training mode, and the buffers."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._sums = dict(self._sum())
        self._told: set[str] = set()
        self._lost = False

    def look(self) -> Iterator[Note]:
        """A note for whatever is another than it was at the beginning, each once. Of a device that
        has failed nothing can be read: that is told, too, and then it is not looked at any more."""
        if self._lost:
            return
        try:
            now = dict(self._sum())
        except RuntimeError as error:
            self._lost = True
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            text = f"whether the model changes itself cannot be seen any more: {why}"
            yield Note("state-lost", text, "has the device failed? Then start the engine anew")
            return
        changed = [name for name, value in now.items() if self._sums.get(name, value) != value]
        if changed and "buffers" not in self._told:
            self._told.add("buffers")
            more = f" and {len(changed) - 1} more buffers" if len(changed) > 1 else ""
            yield Note(
                "state-drifts",
                f"the model changes itself: {changed[0]}{more} is no longer what it was",
                "answers depend on what came before: is a part in training mode?",
            )
        training = [name or "the model" for name, part in self._module.named_modules()
                    if part.training]  # fmt: skip
        if training and "training" not in self._told:
            self._told.add("training")
            more = f" and {len(training) - 1} more parts" if len(training) > 1 else ""
            yield Note(
                "training-mode",
                f"{training[0]}{more} of the model is in training mode",
                "call model.eval() where the model is made, and train() nowhere in forward",
            )

    def _sum(self) -> Iterator[tuple[str, int]]:
        """Checksums of the buffers, as far as they are small enough to be looked through."""
        left = MOST_BYTES
        for name, buffer in self._module.named_buffers():
            if buffer.is_meta or buffer.is_quantized or buffer.layout != torch.strided:
                continue
            left -= buffer.nbytes
            if left < 0:
                return
            raw = buffer.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            yield name, zlib.crc32(raw.numpy().tobytes())
