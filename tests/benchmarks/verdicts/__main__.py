"""All of them, one after the other, with the minutes that each took: `make verdicts`; or some:

    python -m tests.benchmarks.verdicts [live] [find] [compare] [gate] [ab] [bisect]

They load the machine as they need it: whatever else runs on it is in their figures. What all of
them found stands in the README afterwards, held or not.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.verdicts.told import SIGN

PARTS = ("live", "find", "compare", "gate", "ab", "bisect")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- make verdicts -->\n", "<!-- end -->\n"


class Part(NamedTuple):
    """What came of one."""

    name: str
    minutes: float
    held: bool
    found: list[str]


def run(name: str) -> Part:
    """Shows what it prints as it comes."""
    begun = time.monotonic()
    found = []
    command = [sys.executable, "-u", "-m", f"{__package__}.{name}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(SIGN):
                found.append(line.removeprefix(SIGN).strip())
    return Part(name, (time.monotonic() - begun) / 60, process.returncode == 0, found)


def table(parts: Sequence[Part]) -> str:
    lines = ["| part | minutes | | found |", "|---|---|---|---|"]
    for part in parts:
        found = "<br>".join(part.found).replace("|", "\\|")
        lines.append(
            f"| {part.name} | {part.minutes:.1f} | {'✓' if part.held else '✗'} | {found} |"
        )
    lines.append(f"| all | {sum(part.minutes for part in parts):.1f} | | |")
    return "\n".join(lines) + "\n"


def write(text: str, path: Path = README) -> None:
    """Puts it between the two marks of the README."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{path} has no {BEGIN.strip()}"
    assert end, f"{path} has no {END.strip()}"
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main() -> None:
    """Exits with 1 if any of them does not hold; the others are shown all the same."""
    parts = []
    for name in sys.argv[1:] or PARTS:
        print(f"\n== {name}", flush=True)
        parts.append(run(name))
    print(f"\n{table(parts)}")
    if {part.name for part in parts} == set(PARTS):
        write(table(parts))
    if failed := [part.name for part in parts if not part.held]:
        sys.exit(f"did not hold: {', '.join(failed)}")


if __name__ == "__main__":
    main()
