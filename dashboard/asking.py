"""`loadbench doctor --json` as a child process: what this machine has, and whether a run can begin.

Looking at cards, models and servers takes libraries and time that a screen must not spend.
"""

import asyncio
import json
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
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadbench", "doctor", "--json", *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, said = await asyncio.wait_for(process.communicate(), _PATIENCE_S)
    except TimeoutError:
        text = f"loadbench doctor did not answer within {_PATIENCE_S:.0f} s"
        return Report((Finding("▲", "doctor", text),))
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # to the end of its pipes, so that they are closed
    return read(out) or Report((Finding("✗", "doctor", _reason(said, process.returncode)),))


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
