"""The gate end to end, in a scratch git repository, as a CI job would call it.

    python -m tests.benchmarks.verdicts.gate            # [--quick] [--keep DIR]

A baseline is made of one commit. Then a good commit must pass (0), one that slows the engine must
fail (1) with a readable comment, and on a starved machine (the runner niced and pinned to a core
with busy loops) the good one must have no verdict (4), which `--on-no-verdict warn` makes 0 with a
warning that names the smallest regression that could have been missed. With `--until-decided` one
run goes on until its checks are shown.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.benchmarks.verdicts.told import result

LOADBENCH = [sys.executable, "-m", "loadbench"]
OUTPUTS = [
    "--junit",
    "loadbench.xml",
    "--markdown",
    "loadbench.md",
    "--json-file",
    "loadbench.json",
]
GOOD_MS, SLOWED_MS = 20, 40  # of a batch: beside them a quiet machine's noise is small
LOOPS = 8  # of nothing, on the core that the starved run is pinned to
SCENARIO = """
[target]
url = "local:fake"
[engine]
max_batch = 128
fake = {{ a = "{service} ms"{more} }}
[load]
arrivals = "poisson"
warmup = "1s"
phases = [{{ rate = 200, for = "{seconds}s" }}]
[checks]
p95 = "< 2s"
errors = "< 5 %"
[[alert]]
when = "p99 > 250 ms"
"""


class Job(NamedTuple):
    """What a job ended with, and what it left."""

    code: int
    said: str  # on stderr
    comment: str
    cases: dict[str, str]  # test case → passed, failure, skipped, error


class Repository:
    """A scratch repository with one scenario."""

    def __init__(self, folder: Path, seconds: int) -> None:
        self.folder = folder
        self._seconds = seconds
        self._git("init", "--quiet")
        (folder / ".gitignore").write_text("results/\nloadbench.*\nsummary.md\n")

    def _git(self, *arguments: str) -> None:
        who = ["-c", "user.name=gate", "-c", "user.email=gate@localhost"]
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True)

    def commit(self, service_ms: int, text: str, more: str = "") -> None:
        text_of = SCENARIO.format(service=service_ms, seconds=self._seconds, more=more)
        (self.folder / "gate.toml").write_text(text_of)
        (self.folder / "README").write_text(text)
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", text)

    def call(self, *arguments: str, before: tuple[str, ...] = ()) -> Job:
        """A command as GitHub's runner would start it."""
        for name in ("loadbench.xml", "loadbench.md", "summary.md"):
            (self.folder / name).unlink(missing_ok=True)
        github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md")}
        done = subprocess.run(
            [*before, *LOADBENCH, *arguments],
            cwd=self.folder,
            env={**os.environ, **github},
            capture_output=True,
            text=True,
            check=False,
        )
        return Job(done.returncode, done.stderr, self._read("loadbench.md"), self._cases())

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def _cases(self) -> dict[str, str]:
        text = self._read("loadbench.xml")
        root = ElementTree.fromstring(text) if text else ElementTree.Element("none")
        return {
            str(case.get("name")): next((child.tag for child in case), "passed")
            for case in root.iter("testcase")
        }


@contextlib.contextmanager
def busy(core: int) -> Iterator[None]:
    """Loops of nothing on one core, each in a session of its own: a kernel that groups by session
    would else count them as one."""
    loop = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(loop, start_new_session=True) for _ in range(LOOPS)]
    try:
        for each in loops:
            os.sched_setaffinity(each.pid, {core})
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


class Report:
    """Prints each step, and remembers those that did not hold."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def step(self, title: str, job: Job, code: int, **holds: bool) -> None:
        failed = [name for name, held in holds.items() if not held]
        good = job.code == code and not failed
        result(f"{'✓' if good else '✗'} {title}: exit code {job.code}, wanted {code}")
        heads = [line for line in job.comment.splitlines() if line][:1]
        notes = [line for line in job.said.splitlines() if line.startswith("::")]
        for line in (*heads, *notes, *(f"missing: {name}" for name in failed)):
            print(f"    {line}")
        if not good:
            self.wrong.append(title)
            print("    " + "\n    ".join(job.said.splitlines()[-12:]))
        sys.stdout.flush()


def gate(repository: Repository, repeats: int) -> list[str]:
    """Runs all of it; what did not hold."""
    report = Report()
    run = ["run", "gate.toml", "--repeats", str(repeats), *OUTPUTS]
    against = [*run, "--baseline", "baseline"]
    repository.commit(GOOD_MS, "the first")
    # on a busy machine this may be without a verdict: then nothing below can have one
    report.step("a baseline", repository.call(*run), 0)
    report.step("is set", repository.call("baseline", "set", "last"), 0)

    repository.commit(GOOD_MS, "a good commit")
    good = repository.call(*against)
    passed = all(case != "failure" for case in good.cases.values())
    report.step("a good commit passes", good, 0, no_failure=passed)

    repository.commit(SLOWED_MS, "a slowed engine")
    slow = repository.call(*against)
    readable = "failed: worse than" in slow.comment.partition("\n")[0] and "▲ worse" in slow.comment
    found = [case for name, case in slow.cases.items() if "against" in name]
    told = "::error title=" in slow.said and "regression" in slow.said
    report.step(
        "a slowed engine fails", slow, 1, comment=readable, junit=found == ["failure"], error=told
    )

    repository.commit(GOOD_MS, "a good commit again")
    core = min(os.sched_getaffinity(0))
    before = ("nice", "-n", "10", "taskset", "-c", str(core))
    with busy(core):
        warned = repository.call(*against, "--on-no-verdict", "warn", before=before)
        starved = repository.call(*against, "--repeats", "5", before=before)  # enough for one
    skipped = "failure" not in starved.cases.values() and "skipped" in starved.cases.values()
    report.step("a starved machine has no verdict", starved, 4, skipped=skipped)
    line = next((one for one in warned.said.splitlines() if one.startswith("::warning")), "")
    named = "smaller regressions than these can have been missed: p99" in line
    report.step("which is only warned of", warned, 0, warning=bool(line), missed=named)
    return report.wrong


def decided(repository: Repository, most: str) -> list[str]:
    """One run that ends before its time, since all is shown."""
    report = Report()
    job = repository.call("run", "gate.toml", "--rate", "200", "--until-decided", most, *OUTPUTS)
    early = "is shown: it passed" in job.said and "· shown" in job.comment
    report.step("a run goes on until its checks are shown", job, 0, shown=early)
    return report.wrong


def main() -> None:
    """Exits with 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 repeats, and no --until-decided")
    parser.add_argument("--keep", metavar="DIR", help="an empty folder, to look at it afterwards")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        name = asked.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="gate-"))
        repository = Repository(Path(name), seconds=6)
        wrong = gate(repository, 5 if asked.quick else 6)
        if not asked.quick:
            # of times that hardly vary a tenth is slower than the rest by what the machine drifts:
            # for minutes nothing would be known of how requests depend on each other
            varied = ', service = "lognormal(0.5)"'
            repository.commit(GOOD_MS, "until it is shown", varied)
            wrong += decided(repository, "6m")
    if wrong:
        sys.exit(f"did not hold: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
