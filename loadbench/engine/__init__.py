"""The local inference engine: models, the batcher, and a KServe v2 server. It is a process of its
own (`loadbench serve`); nothing outside of this package imports it but cli/serve and cli/doctor.
People's own Python may: `open_model` gives a model without a server.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadbench.engine.inputs import Direct


def open_model(name: str, *, trust: bool = False, **settings: Any) -> "Direct":
    """A model to be called from Python, without a server: `open_model("mlp").run([[0.5] * 256])`.

    `settings` are those of a scenario's `[engine]`. SpecError, RunError: as `models.open_model`.
    """
    from loadbench.engine import models
    from loadbench.engine.inputs import Direct
    from loadbench.spec import EngineSpec, checked

    return Direct(models.open_model(name, checked(EngineSpec, settings, name), trust=trust))
