"""The first commit that made a scenario worse, found by git's own bisection.

One commit is judged by a series of repeats against the series of the good one: worse is bad, a
regression that is ruled out is good, and all else (inconclusive, not to be trusted, a run that
cannot be made) is skipped, as git has it for commits that cannot be tested. Worse than what: how
far apart the ends are is known by then, so the margin is half of that way, in logarithms; that
takes far fewer repeats than to rule out a few per cent. The work tree is put back however this
ends; what was measured stays.
"""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from loadbench.errors import RunError, SpecError
from loadbench.judge.comparison import Comparison, Terms, compare
from loadbench.judge.gate import FINE, WORSE, Decision, decision
from loadbench.report.sides import side

GOOD, BAD, SKIP = 0, 1, 125  # as `git bisect run` takes them
_SIGNALLED = 128  # codes from here on end the bisection
_FOUND = "is the first bad commit"
_MOST = 0.9  # of a margin


class Measure(NamedTuple):
    """How a commit is measured: `arguments` are those of `loadbench run`, the scenario first."""

    arguments: tuple[str, ...]
    repeats: int
    results: Path
    terms: Terms

    def command(self, against: Path | None = None) -> list[str]:
        """Makes the series of what is checked out, at the rates of the one that it will be held
        against where those were calibrated; its folder is told on stdout."""
        own = ["--repeats", str(self.repeats), "--out", str(self.results.resolve())]
        capacity = side([against]).capacity if against else None
        own += [] if capacity is None else ["--capacity", repr(capacity)]
        start = [sys.executable, "-m", "loadbench", "run", "--print-folder"]
        return [*start, *own, "--on-no-verdict", "warn", *self.arguments]

    def made(self, against: Path | None = None) -> tuple[Path | None, int]:
        """(the series, if one was made; the exit code)."""
        with subprocess.Popen(self.command(against), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = process.stdout.read().splitlines()
        folder = next((line.removeprefix("run ") for line in lines if line.startswith("run ")), "")
        return (Path(folder) if folder and Path(folder).is_dir() else None), process.returncode


class Found(NamedTuple):
    """`commits` are the first bad one, or those among which it is where some had to be skipped;
    none if the bad end is not shown to be worse. `why` is how that end stands."""

    commits: tuple[str, ...]
    why: str


def step(against: Path, measure: Measure) -> tuple[int, str]:
    """Judges what is checked out: the exit code for git, and the reason in words."""
    folder, code = measure.made(against)
    if code < 0 or code >= _SIGNALLED:
        return _SIGNALLED + abs(code) % _SIGNALLED, "stopped"
    if folder is None or code in (2, 3):
        return SKIP, f"it could not be measured (exit code {code})"
    found = judged(against, folder, measure.terms)
    return {WORSE: BAD, FINE: GOOD}.get(found.code, SKIP), found.words


def judged(against: Path, folder: Path, terms: Terms) -> Decision:
    """A series against another; what is not shown either way is no verdict."""
    return decision(compared(against, folder, terms), strict=True)


def compared(against: Path, folder: Path, terms: Terms) -> Comparison:
    return compare(side([against]), side([folder]), terms)


def halfway(found: Comparison) -> dict[str, float]:
    """The margins between the ends, by metric: of those that got worse, half of the way there, as
    far as a margin goes. That is also taken where the bad end has no number, since its requests
    fail."""
    return {
        row.metric: _MOST if row.shift is None else min(_MOST, abs(math.sqrt(1 + row.shift) - 1))
        for row in found.gated
        if row.word == "worse"
    }


def search(good: str, bad: str, measure: Measure, say: Callable[[str], None]) -> Found:
    """The whole way: measures both ends, then lets git choose what is measured between. SpecError
    if the ends are no two commits in line or the work tree has changes; RunError if an end cannot
    be measured."""
    ends = _commit(good), _commit(bad)
    _require_in_line(good, bad, *ends)
    with _away() as back:
        reference = _end(good, ends[0], measure, say)
        worst = _end(bad, ends[1], measure, say, reference)
        both = compared(reference, worst, measure.terms)
        found = decision(both, strict=True)
        if found.code != WORSE:
            return Found((), found.words)
        say(f"{bad}: {found.words}")
        _git("bisect", "start", ends[1], ends[0])
        back.append("bisect")
        told = _run(reference, measure, halfway(both))
    return Found(told, found.words)


def _end(
    name: str, commit: str, measure: Measure, say: Callable[[str], None], good: Path | None = None
) -> Path:
    say(f"measuring {name} ({commit[:10]})")
    _git("checkout", "--quiet", "--detach", commit)
    folder, code = measure.made(good)
    if folder is None or code in (2, 3) or code >= _SIGNALLED or code < 0:
        raise RunError(f"{name} could not be measured (exit code {code})")
    return folder


def _run(reference: Path, measure: Measure, margins: Mapping[str, float]) -> tuple[str, ...]:
    """git's own loop over `loadbench bisect --against`."""
    own = ["--against", str(reference.resolve()), "--repeats", str(measure.repeats)]
    own += ["--out", str(measure.results.resolve())]
    for metric, margin in margins.items():
        own += ["--gate", f"{metric}={margin * 100:.3g}%"]
    command = [sys.executable, "-m", "loadbench", "bisect", *own, "--", *measure.arguments]
    done = subprocess.run(["git", "bisect", "run", *command], stdout=subprocess.PIPE, text=True)
    if done.returncode == 0 and _FOUND in done.stdout:
        return (_git("rev-parse", "refs/bisect/bad"),)
    left = _candidates(done.stdout)
    if not left:
        last = done.stdout.strip().splitlines()[-1:]
        raise RunError(f"git bisect run ended with {done.returncode}: {' '.join(last)}")
    return left


def _candidates(text: str) -> tuple[str, ...]:
    """The commits that git tells of when only skipped ones are left."""
    _, _, rest = text.partition("The first bad commit could be any of:\n")
    lines = [line.strip() for line in rest.splitlines()]
    return tuple(line for line in lines if len(line) >= 40 and set(line) <= set("0123456789abcdef"))


# ---- git


@contextmanager
def _away() -> Iterator[list[str]]:
    """Puts the work tree back in the end: what was checked out, and no bisection under way if one
    was begun (which is then written into the list)."""
    if _git("status", "--porcelain", "--untracked-files=no"):
        raise SpecError(
            "the work tree has changes", "commit or stash them: other commits are checked out here"
        )
    if (Path(_git("rev-parse", "--git-dir")) / "BISECT_START").exists():
        raise SpecError("a git bisect is under way already", "git bisect reset ends it")
    here = _git("rev-parse", "--abbrev-ref", "HEAD")
    here = _git("rev-parse", "HEAD") if here == "HEAD" else here
    begun: list[str] = []
    try:
        yield begun
    finally:
        if begun:
            _git("bisect", "reset")
        _git("checkout", "--quiet", here)


def _commit(name: str) -> str:
    return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}",
                fault=f"{name!r} is no commit")  # fmt: skip


def _require_in_line(good: str, bad: str, first: str, last: str) -> None:
    ancestor = ["git", "merge-base", "--is-ancestor", first, last]
    if first == last or subprocess.run(ancestor, check=False).returncode:
        raise SpecError(f"{good} does not come before {bad}", "name the good commit first")


def _git(*arguments: str, fault: str = "") -> str:
    """What git says. SpecError if it refuses or is not there."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise SpecError(f"git cannot be started: {error.strerror or error}") from error
    if done.returncode:
        said: Sequence[str] = done.stderr.strip().splitlines()
        if fault:
            raise SpecError(fault, "git log --oneline names those that there are")
        raise SpecError(f"git {arguments[0]}: {said[0] if said else 'refused'}")
    return done.stdout.strip()
