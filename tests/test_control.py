"""Commands to a run: over a real socket, answered or refused, never fatal."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from loadbench import control
from loadbench.errors import RunError
from loadbench.runner.desk import Desk


def test_a_command_and_its_answer() -> None:
    heard: list[dict[str, Any]] = []

    def handle(command: dict[str, Any]) -> dict[str, Any]:
        heard.append(command)
        if command["command"] == "fly":
            raise ValueError("a run cannot fly")
        return {"ok": True}

    desk = Desk(handle)
    try:
        assert control.send(desk.path, {"command": "stop"}) == {"ok": True}
        with pytest.raises(RunError, match="a run cannot fly"):
            control.send(desk.path, {"command": "fly"})
        assert heard == [{"command": "stop"}, {"command": "fly"}]
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


def test_a_client_that_goes_away() -> None:
    desk = Desk(lambda command: {"ok": True})
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(desk.path)
        assert control.send(desk.path, {"command": "stop"}) == {"ok": True}
    finally:
        desk.close()
