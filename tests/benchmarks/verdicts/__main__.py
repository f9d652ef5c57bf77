"""All of them, one after the other, with the minutes that each took: `make verdicts`; or some:

    python -m tests.benchmarks.verdicts [live] [find] [compare] [gate] [ab] [bisect]

They load the machine as they need it: whatever else runs on it is in their figures.
"""

import subprocess
import sys
import time

PARTS = ("live", "find", "compare", "gate", "ab", "bisect")


def main() -> None:
    """Exits with 1 if any of them does not hold; the others are shown all the same."""
    failed, took = [], []
    for part in sys.argv[1:] or PARTS:
        print(f"\n== {part}", flush=True)
        begun = time.monotonic()
        module = f"{__package__}.{part}"
        if subprocess.run([sys.executable, "-m", module], check=False).returncode:
            failed.append(part)
        took.append((part, (time.monotonic() - begun) / 60))
    print("\n| part | minutes | |\n|---|---|---|")
    for part, minutes in took:
        print(f"| {part} | {minutes:.1f} | {'✗' if part in failed else '✓'} |")
    print(f"| all | {sum(minutes for _, minutes in took):.1f} | |")
    if failed:
        sys.exit(f"did not hold: {', '.join(failed)}")


if __name__ == "__main__":
    main()
