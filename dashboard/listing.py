"""The runs of a folder as they are looked at: which there are, which are filtered out, which two
are compared. Pure: the screen hands in what was read and what keys did."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadbench import catalogue
from loadbench.catalogue import Entry

Pair = tuple[Entry, Entry]


@dataclass(frozen=True, slots=True)
class Listing:
    """`runs` by name, newest first; `baselines` name → run; `a` and `b` the marked runs' names."""

    runs: Mapping[str, Entry] = field(default_factory=dict)
    baselines: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    a: str | None = None
    b: str | None = None

    @property
    def shown(self) -> list[Entry]:
        """Those that have all the words of the filter."""
        if not self.words:
            return list(self.runs.values())
        return [one for one in self.runs.values() if all(word in one.words for word in self.words)]

    @property
    def marks(self) -> dict[str, str]:
        """What stands before a run: its side, and a sign for a baseline."""
        marks = dict.fromkeys(self.baselines.values(), " *")
        for sign, name in (("A", self.a), ("B", self.b)):
            if name is not None:
                marks[name] = sign + marks.get(name, "  ")[1:]
        return marks

    def marked(self, name: str) -> "Listing":
        """A first, then B; a second time takes the mark away."""
        if name == self.a:
            return replace(self, a=None)
        if name == self.b:
            return replace(self, b=None)
        return replace(self, a=name) if self.a is None else replace(self, b=name)

    def pair(self, here: Entry | None, results: Path) -> Pair | None:
        """A and B as marked; else B is the run under the cursor, and A the baseline for it."""
        b = self.runs.get(self.b or "") or here
        if b is None:
            return None
        a = self.runs.get(self.a or "") or self._baseline_of(b, results)
        return None if a is None or a.name == b.name else (a, b)

    def against_former(self, name: str, results: Path) -> "Listing":
        """B is this run; A the scenario's baseline, or else the run of it before this one."""
        b = self.runs[name]
        base = self._baseline_of(b, results)
        if base is not None and base.name != name:
            return replace(self, a=base.name if base.name in self.runs else None, b=name)
        names = list(self.runs)  # newest first
        former = (self.runs[other] for other in names[names.index(name) + 1 :])
        same = (one for one in former if one.scenario == b.scenario and not one.problem)
        return replace(self, a=next((one.name for one in same), None), b=name)

    def is_baseline(self, entry: Entry) -> bool:
        return entry.name in self.baselines.values()

    def _baseline_of(self, entry: Entry, results: Path) -> Entry | None:
        run = self.baselines.get(entry.scenario)
        if run is None or run in self.runs:
            return self.runs.get(run or "")
        return catalogue.entry(results / run)  # in a folder of its own, for git say
