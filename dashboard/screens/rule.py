"""A rule of an alert, changed: for the run that goes on, in its scenario's file, or both."""

from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label

from loadbench import alertfile, alerts, units
from loadbench.errors import SpecError
from loadbench.model import Rule

if TYPE_CHECKING:
    from dashboard.app import Dashboard

OFF = "off"


def read(when: str, length: str) -> tuple[Rule, bool]:
    """(rule, off) as they are typed; SpecError with what is wrong."""
    off = length.strip() == OFF
    if not length.strip():
        raise SpecError("for how long?", 'like "5 s"; "0 s" fires at once; "off": no longer')
    return alerts.parse_rule(when.strip(), 0 if off else units.parse_duration(length)), off


class Edit(ModalScreen[None]):
    """Two fields, looked at while one types; buttons for what is to be done with them."""

    app: "Dashboard"
    BINDINGS = [
        Binding("escape", "dismiss", "Back", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]

    def __init__(self, rule: Rule | None) -> None:
        super().__init__()
        self._rule = rule

    def compose(self) -> ComposeResult:
        when = alerts.written(self._rule) if self._rule else ""
        length = units.exact_duration(self._rule.for_ns) if self._rule else "5 s"
        with Vertical(classes="dialog"):
            yield Label("Alert rule: quantity, > or <, limit", markup=False)
            yield Input(when, "p99 > 100 ms", max_length=120, compact=True, id="when")
            yield Label("for so long without a break (off: no longer)", markup=False)
            yield Input(length, "5 s", max_length=20, compact=True, id="for")
            yield Label("", markup=False, id="said")
            with Horizontal():
                yield Button("Change the run", id="run", compact=True)
                yield Button("Save to file", id="file", compact=True)
                yield Button("Both", id="both", compact=True)
                yield Button("Cancel", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.app.read_snapshot()
        self.query_one("#when", Input).focus()
        self._look()

    def on_input_changed(self) -> None:
        self._look()

    def on_input_submitted(self) -> None:
        if self.focused is self.query_one("#when"):
            self.query_one("#for", Input).focus()
        elif not self.query_one("#run", Button).disabled:
            self._do(live=True, saved=False)
        else:
            self.app.action_focus_next()

    def _typed(self) -> tuple[Rule, bool]:
        return read(self.query_one("#when", Input).value, self.query_one("#for", Input).value)

    def _file(self) -> Path:
        """Where it would be saved; SpecError if nowhere."""
        return alertfile.own(self._scenario())

    def _scenario(self) -> Path:
        """Where the run's scenario was read; SpecError if that is not known."""
        path = self.app.snapshot.get("scenario_file")
        if not isinstance(path, str) or not path:
            raise SpecError("the run does not say which file it came from")
        return Path(path)

    def _look(self) -> None:
        """What is wrong with it, or what it means; buttons only for what can be done."""
        place, fine = "", True
        try:
            rule, off = self._typed()
            said = f"{'off: ' if off else ''}{alerts.describe(rule)}"
        except SpecError as error:
            said, fine = f"✗ {error.message}: {error.hint}", False
        try:
            place = f"file: {_short(self._file())}"
        except SpecError as error:
            place = f"file: {error.message}"
            savable = False
        else:
            savable = True
        self.query_one("#said", Label).update(f"{said}\n{place}")
        live = self.app.driver.listens
        for name, possible in (("run", live), ("file", savable), ("both", live and savable)):
            self.query_one(f"#{name}", Button).disabled = not (fine and possible)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        name = event.button.id
        if name == "cancel":
            self.dismiss()
        else:
            self._do(live=name in ("run", "both"), saved=name in ("file", "both"))

    def _do(self, live: bool, saved: bool) -> None:
        try:
            rule, off = self._typed()
            if saved:
                path = alertfile.save(self._scenario(), rule, off)
                self.app.notify(f"saved to {_short(path)}", markup=False)
        except SpecError as error:
            self.query_one("#said", Label).update(f"✗ {error.said}")
            return
        if live:
            length = OFF if off else units.exact_duration(rule.for_ns)
            command = {"command": "alert", "when": alerts.written(rule), "for": length}
            self.app.driver.command(command)
        self.dismiss()


def _short(path: Path) -> str:
    """From the working folder on, where it lies there."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
