"""New run: what, against what, with which settings, is the machine ready; and off it goes.

Everything is checked by what `loadbench run` checks with: the scenario with all that was typed is
read again at each change, and `loadbench doctor` looks at the machine and the target. What would be
run stands as a command line at the bottom, always.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from dashboard.asking import Finding, Report, ask
from dashboard.draft import Checked, Draft, check, for_doctor
from dashboard.editor import edit
from dashboard.keys import ACTIONS, NEW_RUN
from dashboard.screens.run import RunScreen, Said, TooSmall
from dashboard.screens.tryout import TryOut
from dashboard.shelf import Shelved, Used, scenarios, used
from dashboard.starting import command_line, start
from dashboard.theme import palette
from dashboard.widgets.header import alerts, trust
from dashboard.widgets.launch import Ready, Settings, ShapeChart, names_width, row
from loadbench import runlog

if TYPE_CHECKING:
    from dashboard.app import Dashboard

_USUAL = "steady"
_PAUSE_S = 0.4  # after a change, before the doctor looks
_STEPS = ("Scenario", "Settings", "Ready?")
_PALETTE = 100  # columns that the footer needs to show the palette's key too


class Aim(NamedTuple):
    """A line of the list of targets; an empty url is the scenario's own."""

    url: str
    text: str
    fault: str = ""


class Launcher(Screen[None]):
    """Lists on the left, the rest on the right; one step at a time where there is no room."""

    app: "Dashboard"
    HORIZONTAL_BREAKPOINTS = RunScreen.HORIZONTAL_BREAKPOINTS
    VERTICAL_BREAKPOINTS = RunScreen.VERTICAL_BREAKPOINTS
    AUTO_FOCUS = "#scenarios"
    BINDINGS = [
        *(action.binding for action in NEW_RUN),
        *(
            replace(action.binding, show=action.id == "help")
            for action in ACTIONS
            if action.group == "Screens"
        ),
    ]
    actions = NEW_RUN  # of the palette

    def __init__(self) -> None:
        super().__init__()
        self.draft = Draft()
        self.checked: Checked | None = None  # None: not looked at yet
        self.report = Report()
        self._reported: Draft | None = None  # whom the report is about
        self._shelf: list[Shelved] = []
        self._used: list[Used] = []
        self._aims: list[Aim] = []
        self._starting = False
        self._step = 0

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        with Vertical(id="body"):
            yield Static(id="line")
            yield Static(id="steps")
            with Horizontal(id="launch"):
                with Vertical(id="choose"):
                    yield OptionList(id="scenarios", classes="panel", compact=True)
                    with Vertical(id="aim", classes="panel"):
                        yield OptionList(id="targets", compact=True)
                        yield Input(
                            id="url", compact=True, max_length=500, select_on_focus=False,
                            placeholder="URL or local:PATH",
                        )  # fmt: skip
                with Vertical(id="adjust"):
                    yield ShapeChart(id="shape")
                    yield Settings(id="settings")
                    yield Ready(id="ready")
            yield Static(id="command")
        yield Footer(compact=True)
        yield Said()

    def on_mount(self) -> None:
        self.query_one("#scenarios").border_title = "Scenario"
        self.query_one("#aim").border_title = "Target"
        self._go_to(0)
        self.set_interval(1.0, self._write_line)

    def on_screen_resume(self) -> None:
        self.action_look()
        self._write_line()

    def on_resize(self) -> None:
        """Below this there is no room for all panels side by side."""
        self.query_one(TooSmall).keep_focus()
        self.set_class(self.size.width < 100 or self.size.height < 32, "-steps")
        footer, wide = self.query_one(Footer), self.size.width >= _PALETTE
        if footer.show_command_palette != wide:
            footer.show_command_palette = wide
            footer.refresh(recompose=True)
        self._go_to(self._step)

    # ── what there is ────────────────────────────────────────────────────────

    @work(exclusive=True, group="look")
    async def action_look(self) -> None:
        """Files and former runs anew; what was chosen stays chosen."""
        results = self.app.whole.parent
        out = "" if results.resolve() == runlog.results_folder().resolve() else str(results)
        self._shelf = await asyncio.to_thread(scenarios, Path())
        self._used = await asyncio.to_thread(used, results)
        start = self.app.run_view.start
        names = [found.name for found in self._shelf]
        wanted = (self.draft.scenario, start.scenario if start else "", _USUAL)
        stems = {Path(name).stem: name for name in reversed(names)} | {name: name for name in names}
        first = next((stems[name] for name in wanted if name in stems), names[0])
        self._list_scenarios()
        self.query_one("#scenarios", OptionList).highlighted = names.index(first)
        self._reported = None
        self._change(replace(self.draft, scenario=first, out=out))

    def _list_scenarios(self) -> None:
        colours = palette(self.app.theme)
        width = names_width([found.name for found in self._shelf])
        lines = [row(one.name, one.text, one.fault, width, colours) for one in self._shelf]
        _fill(self.query_one("#scenarios", OptionList), lines)

    def _list_targets(self) -> None:
        """The scenario's own first, then what the doctor found, then servers of former runs."""
        url = self.checked.present.get("url", "") if self.checked else ""
        aims = [Aim("", f"the scenario's own {url}".rstrip())]
        aims += [Aim(model.url, model.text, model.fault) for model in self.report.models]
        known = {aim.url for aim in aims}
        aims += [Aim(one.url, f"of {one.run}") for one in self._used if one.url not in known]
        if aims == self._aims:
            return
        self._aims = aims
        colours = palette(self.app.theme)
        names = [aim.url or "as it says" for aim in aims]
        width = names_width(names, 30)
        lines = [
            row(name, aim.text, aim.fault, width, colours)
            for name, aim in zip(names, aims, strict=True)
        ]
        targets = self.query_one("#targets", OptionList)
        _fill(targets, lines)
        if targets.highlighted is None:
            targets.highlighted = 0

    # ── what is chosen ───────────────────────────────────────────────────────

    @on(OptionList.OptionHighlighted, "#scenarios")
    def _scenario_chosen(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_index != event.option_list.highlighted:
            return  # overtaken: the list was filled anew
        name = self._shelf[event.option_index].name
        if name != self.draft.scenario:
            self._change(replace(self.draft, scenario=name, trust=False))

    @on(OptionList.OptionHighlighted, "#targets")
    def _target_chosen(self, event: OptionList.OptionHighlighted) -> None:
        if not event.option_list.has_focus or event.option_index >= len(self._aims):
            return  # the list was filled anew
        url, box = self._aims[event.option_index].url, self.query_one("#url", Input)
        if url != self.draft.target:
            with box.prevent(Input.Changed):
                box.value = url
            self._change(replace(self.draft, target=url))

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def _done_with(self) -> None:
        self.action_next(1)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        if event.input.id == "url":
            self._change(replace(self.draft, target=event.value.strip()))
        else:
            self._change(replace(self.draft, values=self.query_one(Settings).values))

    def action_trust(self) -> None:
        self._change(replace(self.draft, trust=not self.draft.trust))

    def _change(self, draft: Draft) -> None:
        """Everything follows from the draft."""
        if draft == self.draft and self._reported == draft:
            return
        self.draft = draft
        self._write_command()
        self._judge(draft)

    @work(exclusive=True, group="judge")
    async def _judge(self, draft: Draft) -> None:
        """Checks the draft at once, then asks the doctor, unless it is changed again."""
        checked = await asyncio.to_thread(check, draft)
        self.checked = checked
        self._write_command()
        self._show_checked()
        self._show_ready("checking")
        await asyncio.sleep(_PAUSE_S)
        arguments = await asyncio.to_thread(_sound, draft, checked)
        report = await ask(arguments)
        self.report = report if report.models else replace(self.report, findings=report.findings)
        self._reported = draft
        self._list_targets()
        self._show_ready("")

    # ── what is shown ────────────────────────────────────────────────────────

    def _show_checked(self) -> None:
        checked = self.checked
        if checked is None:
            return
        found = checked.scenario
        url = self.draft.target or (found.spec.target.url if found else "local:")
        settings = self.query_one(Settings)
        settings.show(checked, url.startswith("local:"))
        load = found.spec.load if found else None
        line = checked.shape or f"✗ {next(iter(checked.faults.values()), '')}"
        self.query_one(ShapeChart).show(load, line)
        self._list_targets()

    def _show_ready(self, doing: str) -> None:
        faults = self.checked.faults if self.checked else {}
        own = [Finding("✗", "scenario", f"{text}") for text in faults.values()]
        now = self._reported == self.draft or bool(own)
        found = self.report.findings if now or self._reported else ()
        if "" in faults:  # then the doctor is not told of the scenario
            found = tuple(one for one in found if one.subject not in ("model", "target", "trust"))
        self.query_one(Ready).show([*own, *found], doing)

    def on_descendant_focus(self) -> None:
        if self.checked is not None:
            self.query_one(Settings).tell(self.checked.faults)

    def _write_line(self) -> None:
        colours = palette(self.app.theme)
        line = Text(" loadbench  ", style=f"bold {colours.text}")
        line.append("new run", style=colours.text)
        if not self.app.ended:
            line.append(f"   ● {self.app.whole.name} goes on", style=colours.quiet)
            scene = self.app.scene()
            for part in (alerts(scene, colours), trust(scene, colours)):
                for segment in part:
                    line.append(f"  {segment.text}", style=segment.style)
        if self._starting:
            line.append("   ◔ starting", style=colours.asked)
        self.query_one("#line", Static).update(line)

    def _write_command(self) -> None:
        line = Text(" $ ", style=palette(self.app.theme).quiet)
        line.append(self.command)
        self.query_one("#command", Static).update(line)

    @property
    def arguments(self) -> list[str]:
        """Of `loadbench run`, as it would be started now."""
        checked = self.checked or Checked(None, (), {}, {})
        return self.draft.arguments(checked.fields)

    @property
    def command(self) -> str:
        return command_line(self.arguments)

    # ── where one is ─────────────────────────────────────────────────────────

    def _order(self) -> list[Widget]:
        """All that takes keys, in the order of the steps."""
        ids = ("scenarios", "targets", "url")
        boxes = [box for box in self.query_one(Settings).query(Input) if not box.disabled]
        return [*(self.query_one(f"#{id}") for id in ids), *boxes, self.query_one(Ready)]

    def action_next(self, by: int) -> None:
        order = self._order()
        here = order.index(self.focused) if self.focused in order else -1
        there = order[(here + by) % len(order)]
        self._go_to(0 if there.id in ("scenarios", "targets", "url") else 1 + (there is order[-1]))
        self.set_focus(there, scroll_visible=False)  # at once: the next key is meant for it

    def _go_to(self, step: int) -> None:
        """Shows one of the steps, where they are not all shown."""
        self._step = step
        self.set_class(step == len(_STEPS) - 1, "-last")
        steps, low = self.has_class("-steps"), self.size.height < 22
        for at, name in enumerate(("choose", "settings", "ready")):
            self.query_one(f"#{name}").display = not steps or at == step
        self.query_one("#shape").display = not (steps and low)
        line = Text(" ")
        for at, name in enumerate(_STEPS):
            line.append(f" {at + 1} {name} ", style="reverse" if at == step else "")
            line.append("  ")
        self.query_one("#steps", Static).update(line)

    def action_back(self) -> None:
        self.app.pop_screen()

    # ── and off it goes ──────────────────────────────────────────────────────

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.command)
        self._tell(f"copied: {self.command}")

    async def action_edit(self) -> None:
        chosen = next((one for one in self._shelf if one.name == self.draft.scenario), None)
        if chosen is not None:
            said, path = edit(self.app, chosen.path)
            self._tell(said)
            if path is not None and path != chosen.path:  # a copy of what ships with loadbench
                self.draft = replace(self.draft, scenario=str(path))
            self.action_look()

    def action_dry_run(self) -> None:
        if self.checked is None or self.checked.faults:
            self._refuse("a dry run")
        else:
            self.app.push_screen(TryOut(self.arguments))

    def _refuse(self, what: str) -> None:
        faults = self.checked.faults if self.checked else {"": "the scenario is being read"}
        text = "; ".join(faults.values()) or "; ".join(one.text for one in self.report.blocking)
        self._tell(f"✗ {what} cannot be made: {text}")

    def _tell(self, text: str) -> None:
        """In the footer's place: a notice would lie over what it is about."""
        self.query_one(Said).say(text)

    @work
    async def action_start(self) -> None:
        """Looks at the machine first, if that has not been done for what is to be run."""
        if self._starting:
            return
        self._starting = True
        self._write_line()
        try:
            await self._start(self.draft)
        finally:
            self._starting = False
        self._write_line()  # unless the dashboard was left, and the line with it

    async def _start(self, draft: Draft) -> None:
        self.checked = await asyncio.to_thread(check, draft)
        if self.checked.faults:
            self._refuse("this run")
            return
        arguments = draft.arguments(self.checked.fields)
        if self._reported != draft:
            self.report, self._reported = await ask(for_doctor(arguments)), draft
            self._show_ready("")
        if self.report.blocking:
            self._refuse("this run")
            return
        await start(self.app, arguments)


def _sound(draft: Draft, checked: Checked) -> list[str]:
    """What the doctor is told: all but the fields at fault; nothing where that is no scenario."""
    values = {id: text for id, text in draft.values.items() if id not in checked.faults}
    rest = replace(draft, values=values)
    if checked.faults and check(rest).faults:
        return []
    return for_doctor(rest.arguments(checked.fields))


def _fill(options: OptionList, lines: list[Text]) -> None:
    """Other lines, the cursor where it was."""
    before = options.highlighted
    options.clear_options()
    options.add_options([Option(line) for line in lines])
    if before is not None and lines:
        options.highlighted = min(before, len(lines) - 1)
