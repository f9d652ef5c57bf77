"""Telling a run what to do while it runs: one JSON object over a Unix socket, one in return.

The socket lies in a folder of the user's own (0700) under the system's temporary folder; its path
is in run.json as `control`. `{"ok": true, "mark": "…"}` comes back, or `{"error": "…", "exit": 2}`:
what is wrong, and whether the command is (2) or what it was to change does not answer (3).

    {"command": "rate", "rate": 500}                       held from now on; "80 %" if calibrated
    {"command": "scale", "factor": 1.5}                    times the scenario; 1 returns to it
    {"command": "pause"}   {"command": "resume"}           nothing falls due meanwhile
    {"command": "spike", "rate": 1500, "for": "5s"}        then what would be without it
    {"command": "engine", "max_batch": 16, "slo": "50ms"}  of a local engine: its batcher
    {"command": "mark", "text": "…"}                       in the log and the charts, as all are
    {"command": "alert", "when": "p99 > 200 ms", "for": "10s"}     a rule, as `[[alert]]` has it
    {"command": "acknowledge", "rule": "p99"}              of an alert that fires: somebody saw it
    {"command": "stop"}    {"command": "kill"}             gently, at once

`order` reads a command as people write it, `written` writes one so.
"""

import json
import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadbench import runlog
from loadbench.errors import LoadbenchError, RunError, SpecError

LIMIT = 65_536
_TIMEOUT_S = 10.0  # longer than the engine may take to answer the runner

# the keys of what follows each command
WORDS: dict[str, tuple[str, ...]] = {
    "rate": ("rate",),
    "scale": ("factor",),
    "pause": (),
    "resume": (),
    "spike": ("rate", "for"),
    "mark": ("text",),
    "alert": ("when", "for"),
    "acknowledge": ("rule",),
    "stop": (),
    "kill": (),
}
PAIRS = {"engine": "max_batch=16"}  # commands that KEY=VALUE follow, with an example
NAMES = (*WORDS, *PAIRS)


def send(path: str, command: Mapping[str, Any]) -> dict[str, Any]:
    """Sends one command to the runner that listens at `path`. SpecError if the run refuses it,
    RunError if nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(path)
            connection.sendall(json.dumps(command).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer: dict[str, Any] = json.loads(stream.readline(LIMIT) or b"null") or {}
    except (OSError, ValueError) as error:
        raise RunError(f"the run does not answer: {error}", "has it ended?") from error
    if "error" in answer:
        kind: type[LoadbenchError] = RunError if answer.get("exit") == 3 else SpecError
        raise kind(f"the run refused: {answer['error']}", str(answer.get("hint", "")))
    return answer


def elsewhere(snapshot: Mapping[str, Any]) -> str:
    """The machine on which alone a run can be driven; "" where it can be from here."""
    if runlog.here(snapshot) or os.path.exists(str(snapshot.get("control") or "")):
        return ""
    return str(snapshot.get("host"))


def order(words: Sequence[str]) -> dict[str, Any]:
    """The command that these words are: `rate 500`, `engine max_batch=16 slo=50ms`. SpecError if
    they are none; whether it can be done, the run knows."""
    name, *rest = words or ("",)
    if name in PAIRS:
        pairs = [word.partition("=") for word in rest]
        if not pairs or not all(key and sign for key, sign, _ in pairs):
            raise SpecError(f"{name} takes KEY=VALUE …", f"write: {name} {PAIRS[name]}")
        return {"command": name, **{key: value for key, _, value in pairs if key != "command"}}
    keys = WORDS.get(name)
    if keys is None:
        raise SpecError(f"there is no command {name!r}", f"known: {', '.join(NAMES)}")
    if name in ("mark", "rate") and rest:  # as scenarios have it: 80 %
        rest = [" ".join(rest)]
    if len(rest) != len(keys):
        wanted = " ".join([name, *(key.upper() for key in keys)])
        many = f"{len(keys)} word{'' if len(keys) == 1 else 's'}"
        raise SpecError(f"{name} takes {many}, not {len(rest)}", f"write: {wanted}")
    return {"command": name, **dict(zip(keys, rest, strict=True))}


def written(folder: Path, command: Mapping[str, Any]) -> str:
    """The command line that does the same to the run in a folder: `loadbench tell 12 rate 500`."""
    name = str(command["command"])
    if name in PAIRS:
        words = [f"{key}={value}" for key, value in command.items() if key != "command"]
    else:
        words = [_word(command[key]) for key in WORDS.get(name, ()) if key in command]
    return shlex.join(["loadbench", "tell", runlog.named(folder), name, *words])


def _word(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
