"""What was chosen for a model, in one form for every backend:

`onnxruntime · CUDA · cuda:0 · fp16 · dynamic batch`, and after a semicolon what could not be had.
Why it is that precision, or cannot be batched, are notes of their own.
"""

from loadbench.engine import device
from loadbench.engine.backends import Model
from loadbench.model import Note
from loadbench.spec import EngineSpec


def stated(
    model: Model, backend: str, settings: EngineSpec, provider: str = "", lost: str = ""
) -> Note:
    """The note of a loaded model. `provider` is who runs it inside the backend, `lost` what was
    fallen back from, and why."""
    words = [backend, provider, model.device, model.precision]
    if model.device == "cpu":
        number = device.threads(settings.threads, settings.instances)
        words.append(f"{number} thread{'s' if number > 1 else ''}")
    words.append(_batch(model))
    text = " · ".join(filter(None, words))
    return Note("backend", f"{text}; {lost}" if lost else text)


def _batch(model: Model) -> str:
    if not model.batched:
        return "fixed batch, one request at a time"
    if model.max_batch is not None:
        return f"dynamic batch of up to {model.max_batch}"
    return "dynamic batch"
