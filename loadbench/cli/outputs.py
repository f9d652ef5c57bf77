"""What a command leaves for CI: files that are asked for, and what GitHub's runner takes up.

`--junit`, `--markdown` and `--json-file` are written as a whole or not at all (by rename). Within
GitHub Actions annotations go to stderr, which its runner reads like stdout, so that `--json` stays
one object; and the Markdown goes to the step's summary.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from loadbench.cli.say import say
from loadbench.errors import LoadbenchError, RunError, SpecError
from loadbench.model import plain
from loadbench.report.annotations import annotations
from loadbench.report.conclusion import Conclusion, not_made
from loadbench.report.junit import junit_xml
from loadbench.report.markdown import markdown
from loadbench.snapshots import files

_OPTIONS = (
    ("junit", "JUnit XML: a test case for each check and gated metric."),
    ("markdown", "Markdown, for a comment of a pull request."),
    ("json_file", "The verdict with its summaries as one JSON object."),
)


class Outputs(NamedTuple):
    """Where to; None: not wanted."""

    junit: Path | None = None
    markdown: Path | None = None
    json_file: Path | None = None

    def check(self) -> None:
        """SpecError if one cannot be written: better now than after the run."""
        for path in filter(None, self):
            if path.is_dir() or not path.parent.is_dir():
                what = "is a folder" if path.is_dir() else "its folder is not there"
                raise SpecError(f"{path}: cannot be written: {what}", "name a file to be written")

    def write(self, found: Conclusion) -> None:
        """All that was asked for. Raises RunError if one cannot be written."""
        if self.junit:
            replace(self.junit, junit_xml(found))
        if self.markdown:
            replace(self.markdown, markdown(found))
        if self.json_file:
            replace(self.json_file, json.dumps(plain(found), ensure_ascii=False, indent=2) + "\n")

    @contextmanager
    def guarding(self, scenario: str | None) -> Iterator[None]:
        """What is raised while a run is made becomes an error in each of them, and goes on up."""
        try:
            yield
        except LoadbenchError as error:
            if scenario is None:
                raise
            self.conclude(not_made(Path(scenario).stem, error.message, error.hint, error.exit_code))
            raise

    def conclude(self, found: Conclusion) -> int:
        """The files, and what GitHub is told; the exit code."""
        self.write(found)
        tell_github(found)
        return found.exit_code


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all that; the command gets them as `outputs`."""

    @functools.wraps(command)
    def inner(**given: Any) -> Any:
        paths = (given.pop(name) for name, _ in _OPTIONS)
        outputs = Outputs(*(Path(path) if path else None for path in paths))
        outputs.check()
        with outputs.guarding(given.get("scenario")):
            return command(**given, outputs=outputs)

    for name, text in reversed(_OPTIONS):
        flag = f"--{name.replace('_', '-')}"
        inner = click.option(flag, name, metavar="FILE", help=text)(inner)
    return inner


def tell_github(found: Conclusion) -> None:
    """Annotations and the step's summary, where there is a GitHub to tell."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for line in annotations(found):
        say(line)
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(markdown(found) + "\n")
    except OSError as error:  # the verdict stands all the same
        say(f"loadbench: no step summary: {error}")


def replace(path: Path, text: str) -> None:
    """Writes a file as a whole; what is no file (/dev/stdout, a pipe) is written to."""
    try:
        files.put(path, text.encode())
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
