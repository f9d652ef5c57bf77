"""Telling a run what to do while it runs: one JSON object over a Unix socket, one in return.

The socket lies in a folder of the user's own (0700) under the system's temporary folder; its path
is in run.json as `control`. `{"ok": true, "mark": "…"}` or `{"error": "…"}` comes back.

    {"command": "rate", "rate": 500}                       held from now on; "80 %" if calibrated
    {"command": "scale", "factor": 1.5}                    times the scenario; 1 returns to it
    {"command": "pause"}   {"command": "resume"}           nothing falls due meanwhile
    {"command": "spike", "rate": 1500, "for": "5s"}        then what would be without it
    {"command": "mark", "text": "…"}                       in the log and the charts, as all are
    {"command": "alert", "when": "p99 > 200 ms", "for": "10s"}     or "off": true; see runner.ruling
    {"command": "acknowledge", "rule": "p99"}              of an alert that fires: somebody saw it
    {"command": "stop"}    {"command": "kill"}             gently, at once
"""

import json
import socket
from typing import Any

from loadbench.errors import RunError

LIMIT = 65_536
_TIMEOUT_S = 5.0


def send(path: str, command: dict[str, Any]) -> dict[str, Any]:
    """Sends one command to the runner that listens at `path`; RunError if none does."""
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
        raise RunError(f"the run refused: {answer['error']}")
    return answer
