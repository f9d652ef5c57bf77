"""Keeps what a target was told out of all that is written down and shown: it may say it again in
the names of its models, tensors, cards and times, as in any text."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_origin

import msgspec

from loadbench import environment

if TYPE_CHECKING:  # it brings pydantic
    from loadbench.spec import Spec

T = TypeVar("T")
_TEXTS = 4096  # the same names come again each second
_OURS = ("rule", "rules", "check", "checks")  # fields that name what readers have to find again


class Hiding:
    """Values as others may see them. `told` is what the target was told (`environment.told`)."""

    def __init__(self, told: Mapping[str, str] | None = None) -> None:
        self._sought = environment.sought(told or {})
        self._text = lru_cache(_TEXTS)(self._without)

    def __call__(self, value: T) -> T:
        """The same, with names in place of secrets in all its texts."""
        return self._hidden(value) if self._sought else value

    def _without(self, text: str) -> str:
        for secret, name in self._sought:  # whole ones: a name may end as one begins
            text = text.replace(secret, name)
        return text

    def _hidden(self, value: Any) -> Any:
        match value:
            case str():
                return self._text(value)
            case dict():
                return {self._hidden(key): self._hidden(part) for key, part in value.items()}
            case list() | tuple():
                return type(value)(map(self._hidden, value))
            case msgspec.Struct():
                parts = {name: getattr(value, name) for name in _free(type(value))}
                changed = {name: self._hidden(part) for name, part in parts.items()}
                return msgspec.structs.replace(value, **changed)
        return value


def hiding(spec: "Spec") -> Hiding:
    """Of what a scenario has the target told."""
    asked = spec.model_dump(mode="json", include={"target", "request"})
    return Hiding(environment.told(spec.target.headers, asked))


@lru_cache
def _free(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields that may hold any text."""
    fields = msgspec.structs.fields(kind)
    wide = (one.name for one in fields if get_origin(one.type) is not Literal)
    return tuple(name for name in wide if name not in _OURS)
