"""What all types that flow share: they are frozen, and msgspec makes JSON of them and back.

A Histogram travels as HdrHistogram's base64 text. The types themselves are in `model`.
"""

from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from loadbench.histogram import Histogram

T = TypeVar("T")


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all: frozen, compared by value, absent fields left out of the JSON."""


class Note(Value, frozen=True):
    """A doubt or a decision that travels with the numbers: what it is, and what to do about it."""

    code: str
    text: str
    hint: str = ""


class Shown(Value, frozen=True):
    """A check was looked at while the run went on, and what it is holds for good. `effect` is the
    design effect that this rests on."""

    check: str
    state: Literal["passed", "failed"]
    effect: float


def _to_json(value: Any) -> Any:
    if isinstance(value, Histogram):
        return value.encode()
    if isinstance(value, np.generic):  # a number all the same: nothing measured is lost for it
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def from_json(kind: type, value: Any) -> Any:
    """msgspec's hook for what it does not know."""
    if kind is Histogram:
        return Histogram.decode(value)
    raise NotImplementedError(f"{kind.__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_to_json)


def encode(value: Any) -> bytes:
    """One line of JSON without the newline."""
    return _encoder.encode(value)


def decode(kind: type[T], data: bytes | str) -> T:
    """JSON of any of the types."""
    return msgspec.json.decode(data, type=kind, dec_hook=from_json)


def plain(value: Any) -> Any:
    """The value as dicts, lists, numbers and texts."""
    return msgspec.to_builtins(value, enc_hook=_to_json, str_keys=True)
