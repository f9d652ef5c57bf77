"""What people write around a model, as keys of a scenario's `[engine]`: plugins and pipelines.

What is checked here is the form. Which of it is code that somebody else may have written is told by
`code_of`; how it is loaded and run is the engine's business.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from loadbench.loadspec import Section

BUILT_IN = ("image",)  # plugins that come with loadbench
CODE = ("factory", "preprocess", "postprocess", "libraries")  # keys that name what is run


def _use(name: str) -> str:
    if name in BUILT_IN or re.fullmatch(r"[\w.]+:\w+", name):
        return name
    known = " or ".join(map(repr, BUILT_IN))
    raise ValueError(f"{name!r} is not package.module:function, nor {known}")


class PluginSpec(Section):
    """`"package.module:function"`, or the same with more to say of it."""

    use: Annotated[str, AfterValidator(_use)]
    priority: int = 0  # lower ones run first; equal ones as they are listed
    options: dict[str, Any] = {}  # handed to the function by name
    inputs: tuple[str, ...] = ()  # NAME:DTYPE:DIMS that clients send, if not what comes after it

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_name(cls, raw: Any) -> Any:
        return {"use": raw} if isinstance(raw, str) else raw


def _listed(raw: Any) -> Any:
    return [raw] if isinstance(raw, str | Mapping) else raw


Plugins = Annotated[tuple[PluginSpec, ...], BeforeValidator(_listed)]
Names = Annotated[
    tuple[str, ...], BeforeValidator(_listed), WithJsonSchema({"type": ["string", "array"]})
]


class StageSpec(Section):
    """One model of a pipeline. Other keys are settings of the engine for this model alone."""

    model: str
    take: dict[str, str] = {}  # its input → the value it takes, if that has another name
    give: dict[str, str] = {}  # its output → the name that later stages and clients know it by
    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _others_are_settings(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        own = {key: value for key, value in raw.items() if key in cls.model_fields}
        rest = {key: value for key, value in raw.items() if key not in cls.model_fields}
        return {**own, "settings": rest} if rest else own


class PipelineSpec(Section):
    """A file of models that run one after the other and are served as one."""

    version: Annotated[int, Field(ge=1, lt=1 << 62)] = 1
    inputs: tuple[str, ...] = ()  # what clients send; left out: what the first stage takes
    outputs: tuple[str, ...] = ()  # what they get; left out: what the last stage gives
    stage: Annotated[tuple[StageSpec, ...], Field(min_length=1, max_length=32)]


def code_of(settings: Mapping[str, Any]) -> str:
    """The first key of raw engine settings that has code of somebody run, as one would write it;
    empty if there is none."""
    for key in CODE:
        value = settings.get(key)
        own = _listed(value) if key.endswith("process") else value
        built_in = isinstance(own, list) and all(map(_is_built_in, own))
        if own and not (key.endswith("process") and built_in):
            return f"engine.{key} = {_shown(value)}"
    return ""


def _is_built_in(plugin: Any) -> bool:
    name = plugin.get("use") if isinstance(plugin, Mapping) else plugin
    return name in BUILT_IN


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:119]}…"
