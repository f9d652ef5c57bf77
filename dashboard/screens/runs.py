"""Screen 4, Runs: what was measured here, newest first, and any two of them side by side.

The list is read in a thread from the runs' snapshots alone; what needs a log is read on demand.
"""

import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Footer, Input, Static
from textual.worker import Worker, get_current_worker

from dashboard.exporting import copy_command, report, seconds
from dashboard.keys import ACTIONS, RUNS
from dashboard.listing import Listing, Pair
from dashboard.screens.ask import Choice
from dashboard.screens.page import Page
from dashboard.screens.run import RunScreen, Said, TooSmall
from dashboard.theme import palette
from dashboard.widgets.runlist import RunList
from dashboard.widgets.runpanel import about, beside
from dashboard.widgets.runsline import RunsLine
from loadbench import baseline, catalogue, runlog, units
from loadbench.catalogue import Entry
from loadbench.errors import LoadbenchError, SpecError
from loadbench.judge.comparison import Comparison, compare
from loadbench.report.comparison import comparison_text
from loadbench.report.sides import side
from loadbench.report.text import run_text

if TYPE_CHECKING:
    from dashboard.app import Dashboard

_EVERY_S = 2.0  # between two looks at the folder
_BATCH = 100  # runs that the first look hands over at a time
DELETE, KEEP = "Delete it", "Keep it"
_EVERYWHERE = (
    "live", "engine", "alerts", "runs", "new-run", "help", "folder", "screenshot", "quit",
    "next-panel",
)  # fmt: skip
_NONE = "No runs in {folder} yet. Press n to start one, or: loadbench run steady"
_NO_MATCH = "No run has all these words in its name, scenario, target, state or title. esc = all"
_NOTHING_TO = "Nothing to compare with yet: x marks A, or b makes a run the scenario's baseline."


@dataclass
class Listed(Message):
    """Runs were read: a first batch of them, or all that there are."""

    entries: list[Entry]
    baselines: dict[str, str]
    problem: str = ""
    complete: bool = False


@dataclass
class Compared(Message):
    """Two runs side by side, or why they cannot be."""

    pair: Pair
    found: Comparison | str


class Runs(RunScreen, inherit_bindings=False):
    """The list above; below it the run under the cursor, or the comparison of two."""

    BINDINGS = [
        *(action.binding for action in RUNS),
        *(action.binding for action in ACTIONS if action.id in _EVERYWHERE),
        Binding("shift+tab", "app.focus_previous", show=False),
    ]
    AUTO_FOCUS = "#runs"
    actions = RUNS
    reading = (
        "Runs: * is a baseline, A and B are compared; without marks B is the run under the cursor "
        "and A the baseline of its scenario. ▲ doubtful or invalid: how far the figures can be "
        "trusted. >100: so many were not answered well that the percentile lies over the limit. "
        "One run a side is never a verdict.",
    )
    app: "Dashboard"

    def __init__(self) -> None:
        super().__init__()
        self._listing = Listing()
        self._looking: Worker[None] | None = None
        self._complete = False
        self._problem = ""
        self._comparing = False
        self._wanted = ""  # a run that shall be compared as soon as the list is read anew
        self._compared: tuple[Pair, Comparison | str] | None = None

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        with Vertical(id="body"):
            yield RunsLine(id="header")
            yield Input(placeholder="words that a run must have", id="filter", compact=True)
            with Vertical(id="runs-panel", classes="panel"):
                yield RunList(id="runs")
                yield Static(id="no-runs", markup=False)
            with VerticalScroll(id="run-below", classes="panel", can_focus=False):
                yield Static(id="run-below-text", markup=False)
        yield Footer(compact=True)
        yield Said()

    def on_mount(self) -> None:
        self.query_one("#runs-panel").border_title = "History"
        self.set_interval(_EVERY_S, self._look)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._recolour())

    def on_screen_resume(self) -> None:
        self._look()

    def compare_with_former(self, name: str) -> None:
        """A run with its scenario's baseline, or else the run before it."""
        self._wanted = name

    # ── the list ─────────────────────────────────────────────────────────────

    @property
    def results(self) -> Path:
        return self.app.whole.parent

    def _look(self) -> None:
        """One after the other: in a large or slow folder one takes longer than until the next."""
        if self.is_current and (self._looking is None or self._looking.is_finished):
            self._looking = self._scan(self.results, dict(self._listing.runs))

    @work(thread=True, group="scan", exit_on_error=True)
    def _scan(self, results: Path, known: dict[str, Entry]) -> None:
        problem, baselines = "", {}
        try:
            baselines = baseline.read(results)
        except SpecError as error:
            problem = error.said
        worker, found, sent = get_current_worker(), [], 0
        for entry in catalogue.entries(results, known):
            found.append(entry)
            if worker.is_cancelled:
                return
            if not known and len(found) - sent == _BATCH:
                self.post_message(Listed(found[sent:], baselines, problem))
                sent = len(found)
        self.post_message(Listed(found, baselines, problem, complete=True))

    def on_listed(self, message: Listed) -> None:
        fresh = {entry.name: entry for entry in message.entries}
        runs = fresh if message.complete else {**self._listing.runs, **fresh}
        self._listing = replace(self._listing, runs=runs, baselines=message.baselines)
        self._complete = self._complete or message.complete
        if message.problem and message.problem != self._problem:
            self.notify(message.problem, severity="error", markup=False)
        self._problem = message.problem
        if message.complete and self._wanted in runs:
            self._listing = self._listing.against_former(self._wanted, self.results)
            self._wanted, self._comparing = "", True
        self._update()

    def _update(self) -> None:
        """Draws what is known now."""
        shown, words = self._listing.shown, self._listing.words
        self.query_one(RunList).show(shown, self._listing.marks)
        empty = self._complete and not shown
        self.query_one(RunList).display = not empty
        none = self.query_one("#no-runs", Static)
        none.display = empty
        none.update(_NO_MATCH if self._listing.runs else _NONE.format(folder=self.results))
        number = len(self._listing.runs)
        total = f"{units.count(number)} run{'s' if number != 1 else ''}"
        if not self._complete:
            total = f"reading… {total}"
        elif words:
            total = f"{units.count(len(shown))} of {total}"
        told = [f"{self.results}/", total]
        told += [f"filter: {' '.join(words)}"] if words else []
        self.query_one(RunsLine).tell(*told)
        panel = self.query_one("#runs-panel")
        panel.border_subtitle = "* baseline" if self._listing.baselines else ""
        self._below()

    def _recolour(self) -> None:
        self.query_one(RunList).recolour()
        self._below()

    def on_resize(self) -> None:
        super().on_resize()
        self.call_after_refresh(self._below)

    # ── below it ─────────────────────────────────────────────────────────────

    def _pair(self) -> Pair | None:
        return self._listing.pair(self.query_one(RunList).entry, self.results)

    def _below(self) -> None:
        """One run in words, or two side by side."""
        panel, text = self.query_one("#run-below"), self.query_one("#run-below-text", Static)
        colours, entry = palette(self.app.theme), self.query_one(RunList).entry
        panel.set_class(entry is None, "-empty")
        pair = self._pair() if self._comparing else None
        if pair is not None:
            a, b = pair
            base = " (baseline)" if self._listing.is_baseline(a) else ""
            panel.border_title = f"Compare   A {a.number}{base}   vs   B {b.number}"
            panel.border_subtitle = Text(self._command("compare", a, b)).markup
            if self._compared is None or self._compared[0] != pair:
                self._compare(pair)
                return
            found, width = self._compared[1], max(20, panel.size.width - 2)
            shown = Text(found) if isinstance(found, str) else beside(found, width, colours)
            text.update(shown)
            return
        panel.border_title = Text(entry.name).markup if entry else ""
        panel.border_subtitle = ""
        if self._comparing:
            text.update(Text(_NOTHING_TO))
        else:
            text.update(about(entry, colours) if entry else "")

    @work(thread=True, exclusive=True, group="compare")
    def _compare(self, pair: Pair) -> None:
        found: Comparison | str
        try:
            found = _compared(pair)
        except LoadbenchError as error:
            found = f"✗ {error.message}" + (f": {error.hint}" if error.hint else "")
        self.post_message(Compared(pair, found))

    def on_compared(self, message: Compared) -> None:
        self._compared = (message.pair, message.found)
        if self._pair() == message.pair:
            self._below()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        self._below()

    def _command(self, name: str, *runs: Entry) -> str:
        """The command line that does the same."""
        out = [] if runlog.is_usual(self.results) else ["--out", str(self.results)]
        numbers = [run.number for run in runs]
        return shlex.join(["loadbench", *name.split(), *numbers, *out])

    # ── keys ─────────────────────────────────────────────────────────────────

    def _here(self) -> Entry | None:
        """The run under the cursor; says so if there is none."""
        entry = self.query_one(RunList).entry
        if entry is None:
            self.notify("There is no run here.")
        return entry

    def action_mark_side(self) -> None:
        entry = self._here()
        if entry is None:
            return
        if entry.problem:
            self.notify(f"{entry.name} cannot be compared: {entry.problem}", markup=False)
        else:
            self._listing = self._listing.marked(entry.name)
            self._update()

    def action_compare(self) -> None:
        pair = self._pair()
        if pair is None:
            self.notify(_NOTHING_TO)
        elif self._comparing or not self.query_one("#run-below").display:
            title = self._command("compare", *pair)
            self.app.push_screen(Page(title, lambda: partial(comparison_text, _compared(pair))))
        else:
            self._comparing = True
            self._below()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        self.action_open()

    def action_open(self) -> None:
        entry = self._here()
        if entry is None:
            return
        going = entry.state in ("running", "not begun")
        try:
            self.app.open_run(Path(entry.folder), "live" if going else "replay")
        except SpecError as error:
            self.notify(error.said, severity="error", markup=False)
        else:
            verb = "attach" if going else "replay"
            name = runlog.named(Path(entry.folder))
            self.notify(f"loadbench tui --{verb} {name}", markup=False)

    def action_report(self) -> None:
        entry = self._here()
        if entry is not None:
            self.app.run_worker(report(self.app, Path(entry.folder)))

    def action_export(self) -> None:
        entry = self._here()
        if entry is not None:
            self.app.run_worker(seconds(self.app, Path(entry.folder)))

    def action_copy_command(self) -> None:
        entry = self._here()
        if entry is not None:
            copy_command(self.app, Path(entry.folder))

    def action_summary(self) -> None:
        entry = self._here()
        if entry is not None:
            title = self._command("show", entry)
            self.app.push_screen(Page(title, partial(run_text, Path(entry.folder)), fold=True))

    def action_baseline(self) -> None:
        entry = self._here()
        if entry is None:
            return
        if entry.problem:
            self.notify(f"{entry.name} cannot be a baseline: {entry.problem}", markup=False)
            return
        try:
            if self._listing.baselines.get(entry.scenario) == entry.name:
                baseline.forget(self.results, entry.scenario)
                told = f"{entry.scenario} has no baseline any more"
            else:
                name = entry.scenario or baseline.usual_name(Path(entry.folder))
                baseline.put(self.results, name, Path(entry.folder))
                told = f"baseline of {name}: {entry.name}\n{self._command('baseline set', entry)}"
            self._listing = replace(self._listing, baselines=baseline.read(self.results))
        except LoadbenchError as error:
            self.notify(error.said, severity="error", markup=False)
        else:
            self.notify(told, markup=False)
        self._update()

    @work
    async def action_delete(self) -> None:
        entry = self._here()
        if entry is None:
            return
        if entry.state == "running":
            self.notify(f"{entry.name} goes on: it is not deleted.", markup=False)
            return
        also = "It is a baseline. " if self._listing.is_baseline(entry) else ""
        question = f"Delete {entry.name}? {also}It cannot be brought back."
        answer = await self.app.push_screen_wait(Choice(question, (DELETE, KEEP)))
        if answer == DELETE:
            self._remove(entry)

    @work(thread=True)
    def _remove(self, entry: Entry) -> None:
        tell = partial(self.app.call_from_thread, self.notify, markup=False)
        try:
            catalogue.remove(Path(entry.folder), self.results)
        except LoadbenchError as error:
            tell(error.said, severity="error")
        else:
            tell(f"deleted {entry.name}")
        self.app.call_from_thread(self._look)

    # ── the filter ───────────────────────────────────────────────────────────

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        words = tuple(event.value.lower().split())
        self._listing = replace(self._listing, words=words)
        self._update()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.input.display = bool(event.value)
        self.query_one(RunList).focus()

    def action_back(self) -> None:
        """From the innermost: the filter's text, the comparison, the marks, this screen."""
        field = self.query_one("#filter", Input)
        if field.display:
            field.value = ""
            field.display = False
            self.query_one(RunList).focus()
        elif self._comparing:
            self._comparing = False
            self._below()
        elif self._listing.a or self._listing.b:
            self._listing = replace(self._listing, a=None, b=None)
            self._update()
        elif self.app.opened:
            self.app.action_go("live")


def _compared(pair: Pair) -> Comparison:
    """Raises SpecError for a run without a summary, or a damaged one."""
    a, b = (side([Path(entry.folder)]) for entry in pair)
    return compare(a, b)
