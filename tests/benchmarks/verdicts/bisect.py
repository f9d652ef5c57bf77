"""`loadbench bisect` in a scratch repository whose engine gets slower in one commit.

python -m tests.benchmarks.verdicts.bisect            # [--commits 6] [--repeats 5] [--seconds 3]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.verdicts.told import result

SCENARIO = """
[target]
url = "local:fake"
[engine]
max_batch = 32
fake = {{ a = "{service} ms" }}
[load]
arrivals = "constant"
phases = [{{ rate = 100, for = "{seconds}s" }}]
"""
FAST_MS, SLOW_MS = 20, 40  # beside them a quiet machine's noise is small


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--commits", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        culprit = made(folder, asked.commits, asked.seconds)
        command = [sys.executable, "-m", "loadbench", "bisect", "--repeats", str(asked.repeats)]
        command += ["--gate", "p50=10%", f"HEAD~{asked.commits - 1}", "HEAD", "--", "own.toml"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout.strip())
        left = git(folder, "status", "--porcelain", "--branch")
    found = f"{culprit} is the first bad commit" in done.stdout
    result(f"the culprit was {'found' if found else 'NOT found'}; exit code {done.returncode}")
    assert left == "## trunk", left
    sys.exit(not found)


def made(folder: Path, commits: int, seconds: int) -> str:
    """The commit by which it got slower, in the middle."""
    git(folder, "init", "--quiet", "--initial-branch", "trunk")
    (folder / ".gitignore").write_text("results/\n")
    culprit = ""
    for number in range(commits):
        slow = number >= commits // 2
        text = SCENARIO.format(service=SLOW_MS if slow else FAST_MS, seconds=seconds)
        (folder / "own.toml").write_text(text)
        (folder / "README").write_text(f"{number}\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", f"commit {number}")
        if slow and not culprit:
            culprit = git(folder, "rev-parse", "HEAD")
    return culprit


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=bisect", "-c", "user.email=bisect@localhost"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
