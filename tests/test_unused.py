"""Settings that nothing heeds are told, each once; those that are heeded or left alone are not."""

from typing import Any

import pytest

from loadbench.engine.models import open_model
from loadbench.engine.unused import unused
from loadbench.spec import EngineSpec
from tests.served import serving, settings


def told(name: str = "fake", **made: Any) -> list[str]:
    found = EngineSpec.model_validate(made)
    notes = unused(found, open_model(name, found))
    assert {note.code for note in notes} <= {"no-effect"}
    return [note.text.removeprefix("engine.").partition(" ")[0] for note in notes]


@pytest.mark.parametrize(
    ("made", "idle"),
    [
        ({}, []),
        ({"max_wait": "5 ms"}, ["max_wait"]),
        ({"max_wait": "3 ms", "preferred": (4,), "policy": "fixed"}, []),
        ({"max_wait": "3 ms", "preferred": (4,), "policy": "none"}, ["max_wait", "preferred"]),
        ({"hold": True, "policy": "fixed"}, ["hold"]),
        ({"hold": False, "policy": "fixed"}, []),
        ({"hold": True}, []),
        ({"queue_policy": {"requests": 5}}, []),  # which every policy heeds
        ({"queue_policy": {"requests": 5, "timeout": "1 s"}}, ["queue_policy"]),
        ({"level": {1: {"timeout": "1 s"}}, "policy": "failfast"}, ["level"]),
        ({"level": {1: {"timeout": "1 s"}}, "policy": "fixed"}, []),
        ({"sim": {"cards": 2}}, ["sim"]),
        ({"sim": {"cards": 2}, "device": "sim"}, []),
        ({"buckets": (1, 8), "fake": {"a": "1 ms"}}, []),
        ({"buckets": (1, 64)}, ["buckets"]),
    ],
)
def test_what_has_no_effect_is_told(made: dict[str, Any], idle: list[str]) -> None:
    assert told(**made) == idle


def test_the_fake_model_s_settings_are_for_it_alone() -> None:
    assert told("mlp", fake={"a": "1 ms"}, precision="fp32", threads=1) == ["fake"]


def test_an_engine_says_it_where_its_notes_are() -> None:
    with serving("fake", *settings("max_wait=3 ms", "fake.a=0 ms", "max_batch=1")) as engine:
        (note,) = engine.call("/health").json["notes"]
        assert note["code"] == "no-effect"
        assert note["text"] == (
            'engine.max_wait has no effect with policy = "deadline": it is for "fixed"'
        )
