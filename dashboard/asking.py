"""`loadbench doctor --json` as a child process: what this machine has, and whether a run can begin.

Looking at cards, models and servers takes libraries and time that a screen must not spend.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_PATIENCE_S = 30.0
_LINE = 500  # characters that are kept of what goes wrong


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of Ready?: ✓ fine, ▲ with care, ✗ no run can be made."""

    sign: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Model:
    """A target that could be served here; `fault` says why not."""

    url: str
    text: str
    fault: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor said."""

    findings: tuple[Finding, ...] = ()
    models: tuple[Model, ...] = ()
    backends: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    @property
    def blocking(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.sign == "✗")


async def ask(arguments: Sequence[str]) -> Report:
    """Its report; a doctor that fails is a finding of its own. Ends its child when cancelled."""
    child = subprocess.Popen(
        [sys.executable, "-m", "loadbench", "doctor", "--json", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    # By a thread: a task that waits for its child can be cancelled again while it ends it. One that
    # is cancelled before a thread was free must not take the thread's work with it.
    answer = asyncio.get_running_loop().run_in_executor(None, _answer, child)
    try:
        out, said = await asyncio.shield(answer)
    except subprocess.TimeoutExpired:
        text = f"loadbench doctor did not answer within {_PATIENCE_S:.0f} s"
        return Report((Finding("▲", "doctor", text),))
    except asyncio.CancelledError:
        child.kill()  # the thread takes leave of it
        raise
    return read(out) or Report((Finding("✗", "doctor", _reason(said, child.returncode)),))


def _answer(child: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    try:
        return child.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise


def read(out: bytes) -> Report | None:
    """The report in what was printed; None if it is none."""
    try:
        told: dict[str, Any] = json.loads(out)
        return Report(
            tuple(Finding(**finding) for finding in told["findings"]),
            tuple(Model(found["url"], found["text"], found["fault"]) for found in told["models"]),
            tuple(told["backends"]),
            tuple(told["devices"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _reason(said: bytes, code: int | None) -> str:
    text = " ".join(said.decode("utf-8", "replace").replace("loadbench: ", "").split())
    return text[:_LINE] or f"loadbench doctor ended with exit code {code}"
