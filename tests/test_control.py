"""Commands to a run: over a real socket, answered or refused, never fatal."""

import os
import platform
import shlex
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from loadbench import control
from loadbench.errors import RunError, SpecError, TargetError
from loadbench.runner.desk import Desk


def test_a_command_and_its_answer() -> None:
    heard: list[dict[str, Any]] = []

    def handle(command: dict[str, Any]) -> dict[str, Any]:
        heard.append(command)
        if command["command"] == "fly":
            raise ValueError("a run cannot fly")
        if command["command"] == "engine":
            raise TargetError("the engine does not answer", "see engine.log")
        return {"ok": True}

    desk = Desk(handle)
    try:
        assert control.send(desk.path, {"command": "stop"}) == {"ok": True}
        with pytest.raises(SpecError, match="a run cannot fly") as refused:
            control.send(desk.path, {"command": "fly"})
        with pytest.raises(RunError, match="the engine does not answer") as failed:
            control.send(desk.path, {"command": "engine"})
        assert (refused.value.exit_code, failed.value.exit_code) == (2, 3)
        assert failed.value.hint == "see engine.log"
        assert [command["command"] for command in heard] == ["stop", "fly", "engine"]
        folder = Path(desk.path).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(os.stat(desk.path).st_mode) == 0o600
    finally:
        desk.close()
    assert not folder.exists()
    with pytest.raises(RunError, match="does not answer"):
        control.send(desk.path, {"command": "stop"})


@pytest.mark.parametrize(
    "line",
    [b"rubbish\n", b"[1]\n", b'{"no":1}\n', b"\n", b'{"command":3}\n', 60_000 * b"[" + b"\n"],
    ids=["rubbish", "list", "lacking", "empty", "number", "nested"],
)
def test_rubbish_is_answered_and_the_desk_lives(line: bytes) -> None:
    desk = Desk(lambda command: {"ok": True})
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(desk.path)
            connection.sendall(line)
            assert b'"error"' in connection.makefile("rb").readline()
        assert control.send(desk.path, {"command": "stop"}) == {"ok": True}
    finally:
        desk.close()


@pytest.mark.parametrize(
    "words",
    [
        ["rate", "500"], ["scale", "1.5"], ["pause"], ["resume"], ["spike", "1500", "5s"],
        ["engine", "max_batch=16", "slo=50ms"], ["mark", "two words"], ["stop"], ["kill"],
    ],
)  # fmt: skip
def test_a_command_is_read_as_it_is_written(words: list[str], tmp_path: Path) -> None:
    order = control.order(words)
    assert shlex.split(control.written(Path("results/0012-steady"), order)) == [
        "loadbench", "tell", "0012", *words,
    ]  # fmt: skip
    assert str(tmp_path) in control.written(tmp_path, order)


def test_a_rate_may_be_written_as_in_a_scenario() -> None:
    assert control.order(["rate", "80", "%"]) == control.order(["rate", "80 %"])


def test_numbers_are_written_as_people_write_them() -> None:
    spike = {"command": "spike", "rate": 545.0, "for": "5s"}
    assert control.written(Path("results/0012-a"), spike) == "loadbench tell 0012 spike 545 5s"
    scale = {"command": "scale", "factor": 1.21}
    assert control.written(Path("results/0012-a"), scale) == "loadbench tell 0012 scale 1.21"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command"), (["fly"], "no command 'fly'"), (["spike", "5"], "takes 2 words"),
        (["pause", "now"], "takes 0 words"), (["scale", "1", "2"], "takes 1 word, not 2"),
        (["engine"], "KEY=VALUE"),
        (["engine", "max_batch"], "KEY=VALUE"), (["engine", "=3"], "KEY=VALUE"),
    ],
)  # fmt: skip
def test_words_that_are_no_command(words: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        control.order(words)


def test_a_run_of_another_machine_is_driven_there(tmp_path: Path) -> None:
    here = {"host": platform.node(), "control": str(tmp_path / "control")}
    assert control.elsewhere(here) == control.elsewhere({}) == ""
    there = {**here, "host": "ci-7"}
    assert control.elsewhere(there) == "ci-7"
    assert control.elsewhere({"host": "ci-7", "control": None}) == "ci-7"
    (tmp_path / "control").touch()  # another container's, on a common disk
    assert control.elsewhere(there) == ""


def test_a_client_that_goes_away() -> None:
    desk = Desk(lambda command: {"ok": True})
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(desk.path)
        assert control.send(desk.path, {"command": "stop"}) == {"ok": True}
    finally:
        desk.close()
