"""Where commands to a running run arrive: a Unix socket that only its user can open."""

import json
import os
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadbench.control import LIMIT
from loadbench.errors import LoadbenchError


class Desk:
    """Listens on a socket in a private folder. Commands go to `handle`, one after the other; it
    returns the answer, or raises ValueError with what is wrong, or what its own work raised."""

    def __init__(self, handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="loadbench-"))  # mkdtemp makes it 0700
        self.path = str(self._folder / "control")

        one_at_a_time = threading.Lock()

        def turn(command: dict[str, Any]) -> dict[str, Any]:
            with one_at_a_time:
                return handle(command)

        class Handler(socketserver.StreamRequestHandler):
            timeout = 5.0

            def handle(self) -> None:
                self.wfile.write(json.dumps(_answer(self.rfile.readline(LIMIT), turn)).encode())

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is no news; commands answer with their own errors."""

        self._server = Server(self.path, Handler)
        os.chmod(self.path, 0o600)
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="control", daemon=True
        ).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _answer(line: bytes, handle: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    try:
        command = json.loads(line)
        if not isinstance(command, dict) or not isinstance(command.get("command"), str):
            raise ValueError('a command is an object like {"command": "stop"}')
        return handle(command)
    except (ValueError, OverflowError, RecursionError) as error:  # numbers or nesting beyond sense
        return {"error": str(error), "exit": 2}
    except LoadbenchError as error:
        return {"error": error.message, "hint": error.hint, "exit": error.exit_code}
