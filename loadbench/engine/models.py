"""`open_model`: a name of the zoo or a path → a Model, loaded, on its device, ready to run.

Which backend runs what is decided here; how is the backends' business, and how a path is told for
what it holds that of `files`. Nothing of a file is executed unless the caller trusts it.
"""

from loadbench.engine import device
from loadbench.engine.backends import Model
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec

ZOO = ("mlp", "resnet-tiny", "encoder")


def open_model(name: str, settings: EngineSpec, *, trust: bool = False) -> Model:
    """Loads `name` by `settings`.

    Raises SpecError for whatever is wrong with the name, the file or the settings. `trust` allows
    files whose loading runs code of theirs. Backends are imported here, one at a time: torch alone
    costs a second.
    """
    if name == "fake" or settings.backend == "fake":
        from loadbench.engine.backends.fake import open_fake

        return open_fake(settings)
    if name in ZOO:
        import torch

        from loadbench.engine.backends.eager import open_zoo

        return open_zoo(name, settings, device.choose(settings.device, torch.cuda))
    raise SpecError(f"there is no model {name!r}", f"known: {', '.join(ZOO)}, or a path to a file")
