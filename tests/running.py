"""Starting loadbench as a user does: the real command in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOADBENCH = [sys.executable, "-m", "loadbench"]


def scenario(
    folder: Path, fake: str = "", load: str = "", tables: str = "", rate: str = "200", s: int = 2
) -> Path:
    """A short scenario against the known-answer engine."""
    path = folder / "own.toml"
    path.write_text(
        f"""
[target]
url = "local:fake"
[engine]
max_batch = 8
fake = {{ {fake or 'a = "2 ms"'} }}
[load]
arrivals = "constant"
warmup = "1s"
phases = [{{ rate = {rate}, for = "{s}s" }}]
{load}
{tables}
"""
    )
    return path


def loadbench(*arguments: str | Path, cwd: Path, code: int | None = 0) -> Any:
    """Runs a command to its end; its CompletedProcess, after a look at the exit code.

    A run that is to exit with 0 may do so too when the machine was too busy for a verdict: what is
    tested here is not this machine."""
    if arguments[0] == "run" and code == 0:
        arguments = (*arguments, "--on-no-verdict", "warn")
    done = subprocess.run(
        [*LOADBENCH, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=100,
        check=False,
    )
    if code is not None:
        assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def summary(*arguments: str | Path, cwd: Path, code: int | None = 0) -> dict[str, Any]:
    """`loadbench run … --json` as an object."""
    found = loadbench("run", *arguments, "--json", cwd=cwd, code=code)
    parsed: dict[str, Any] = json.loads(found.stdout)
    return parsed


def adds_up(found: dict[str, Any]) -> bool:
    """The accounting identity, exactly."""
    ended = found["done"] + sum(found["failed"].values()) + found["unfinished"] + found["lost"]
    return bool(found["asked"] == found["sent"] + found["unsent"] and found["sent"] == ended)
