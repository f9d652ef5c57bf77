"""Every action of the screens of a run: its key, its words. Footer, help and palette read this."""

from typing import NamedTuple

from textual.binding import Binding


class Action(NamedTuple):
    """`call` is what Textual runs; `footer` is the word shown there, empty for none."""

    id: str
    key: str
    call: str
    title: str  # in palette and help
    group: str
    footer: str = ""
    shown: str = ""  # how the key is written
    in_footer: str = ""  # the same in the footer, where one word may stand for several keys
    first: bool = False  # before the widget in focus gets the key: what is typed into may use it

    @property
    def binding(self) -> Binding:
        return Binding(
            self.key,
            self.call,
            self.footer or self.title,
            show=bool(self.footer),
            key_display=self.in_footer or self.shown or None,
            id=self.id,
            tooltip=self.title,
            priority=self.first,
        )


ACTIONS = (
    Action("pause", "space", "app.look('pause')", "Pause the view, the run goes on", "View",
           "Pause"),
    Action("zoom-in", "plus,equals_sign", "app.look('zoom', -1)", "Zoom in: a shorter time", "View",
           "Zoom", "+", "+/-"),
    Action("zoom-out", "minus", "app.look('zoom', 1)", "Zoom out: a longer time", "View",
           shown="-"),
    Action("log", "l", "app.look('log')", "Logarithmic latency axis on or off", "View",
           "Log scale"),
    Action("earlier", "left", "app.look('move', -1)", "Earlier (pauses the view)", "View",
           shown="←"),
    Action("later", "right", "app.look('move', 1)", "Later", "View", shown="→"),
    Action("now", "end", "app.look('now')", "Back to now", "View"),
    Action("fit", "0", "app.look('everything')", "The whole run", "View"),
    Action("inspect", "i", "app.look('inspect')", "Look at one second, or no longer",
           "Time"),
    Action("before", "left_square_bracket,ctrl+left", "app.look('jump', -1)",
           "The alert or mark before this", "Time", shown="["),
    Action("after", "right_square_bracket,ctrl+right", "app.look('jump', 1)",
           "The next alert or mark", "Time", shown="]"),
    Action("play", "p", "app.look('play')", "Play from here, or stop playing", "Time"),
    Action("pace", "full_stop", "app.look('pace')", "How fast: ×1, ×10, ×60", "Time", shown="."),
    Action("bookmark", "comma", "app.look('bookmark')",
           "Keep this moment: A, then B", "Time", shown=","),
    Action("difference", "d", "app.go('difference')", "What changed from A to B", "Time"),
    Action("next-panel", "tab", "app.focus_next", "The next panel into focus", "View"),
    Action("maximise", "enter", "app.maximise", "The panel in focus large, or back", "View"),
    Action("back", "escape", "app.restore", "Back to all panels", "View", shown="esc"),
    Action("tail", "t", "app.go('tail')", "The slowest requests, and why", "View"),
    Action("stop", "s", "app.drive('ask_stop')", "Stop the run (asks)", "Run", "Stop"),
    Action("adjust", "a", "app.drive('adjust')",
           "Adjust the run: load, arrivals, batcher settings", "Run"),
    Action("more", "U,shift+up", "app.steer('more')", "Load: 10 % more", "Run"),
    Action("less", "D,shift+down", "app.steer('less')", "Load: 10 % less", "Run"),
    Action("arrivals", "P", "app.steer('arrivals')", "Pause the arrivals, or resume them", "Run"),
    Action("spike", "exclamation_mark", "app.steer('spike')",
           "Spike: twice what is asked now, for 5 s", "Run", shown="!"),
    Action("mark", "m", "app.drive('ask_mark')", "Put a mark into the run", "Run"),
    Action("logs", "o", "app.logs", "What engine and load generator wrote", "Run"),
    Action("report", "r", "app.drive('report')", "Write its report (HTML), and open it", "Run"),
    Action("export", "x", "app.drive('export')", "Write its seconds as a table (CSV)", "Run"),
    Action("copy", "y", "app.drive('copy_command')", "Copy the command line that made it", "Run"),
    Action("again", "R,shift+r", "app.drive('again')", "Run it again (once it is over)", "Run"),
    Action("compare", "c", "app.drive('compare')",
           "Compare with the baseline, or the run before", "Run"),
    Action("new-run", "n", "app.new_run", "Put a new run together", "Run"),
    Action("live", "1", "app.go('live')", "Screen 1: Live", "Screens", "Screens",
           "1", "1-4"),
    Action("engine", "2", "app.go('engine')", "Screen 2: Engine", "Screens"),
    Action("alerts", "3", "app.go('alerts')", "Screen 3: Alerts", "Screens"),
    Action("runs", "4", "app.go('runs')", "Screen 4: Runs, old and new", "Screens"),
    Action("help", "question_mark", "app.help", "All keys, and how to read the screen", "Screens",
           "Help", "?"),
    Action("folder", "f", "app.drive('folder')", "Open the folder of all runs", "Screens"),
    Action("screenshot", "ctrl+s", "app.picture", "Save the screen as a picture (SVG)", "Screens"),
    Action("quit", "q,ctrl+c", "app.leave", "Quit", "Screens", shown="q"),
)  # fmt: skip

# of the screen that puts a new run together
NEW_RUN = (
    Action("launch-next", "tab", "next(1)", "Next field", "New run", "Next"),
    Action("launch-before", "shift+tab", "next(-1)", "Field before", "New run"),
    Action("launch-start", "ctrl+r", "start", "Start the run", "New run", "Start",
           first=True),
    Action("launch-dry", "ctrl+d", "dry_run", "Dry run: send one request, show its answer",
           "New run", "Dry run", first=True),
    Action("launch-edit", "e", "edit", "The scenario's file in $EDITOR", "New run", "Edit"),
    Action("launch-trust", "ctrl+t", "trust", "Allow the scenario's code, or no longer",
           "New run", first=True),
    Action("launch-copy", "ctrl+y", "copy", "Copy the command line", "New run", first=True),
    Action("launch-look", "f5", "look", "Look again: files, targets, machine", "New run"),
    Action("launch-back", "escape", "back", "Back to the run", "New run", "Back", shown="esc"),
)  # fmt: skip

# of the screen of alerts
ALERTS = (
    Action("acknowledge", "k", "acknowledge", "Acknowledge the alert: it leaves line 1", "Alerts",
           "Acknowledge"),
    Action("edit-rule", "e", "edit_rule", "Edit the rule, or add one", "Alerts", "Edit rule"),
    Action("filter", "slash", "filter", "Only alerts with some words", "Alerts", "Filter", "/"),
    Action("episode", "enter", "show_episode", "Show the episode in the charts", "Alerts"),
)  # fmt: skip

# of the list of runs; the first part of a call names no screen: they are that screen's own
RUNS = (
    Action("run-mark", "x", "mark_side", "Mark A, then B, to compare", "Runs", "Mark"),
    Action("run-compare", "c", "compare", "Compare A and B; again: whole page", "Runs",
           "Compare"),
    Action("run-open", "enter", "open", "Open: follow it, or replay it",
           "Runs"),
    Action("run-report", "r", "report", "Write its report (HTML), and open it", "Runs", "Report"),
    Action("run-summary", "v", "summary", "View the run's summary", "Runs"),
    Action("run-export", "w", "export", "Write its seconds as a table (CSV)", "Runs"),
    Action("run-copy", "y", "copy_command", "Copy the command line that made it", "Runs"),
    Action("run-filter", "slash", "filter", "Only the runs with these words", "Runs", "Filter",
           "/"),
    Action("run-baseline", "b", "baseline", "Make it the baseline, or no longer",
           "Runs"),
    Action("run-delete", "delete", "delete", "Delete the run (asks)", "Runs", shown="del"),
    Action("run-back", "escape", "back", "Back: filter, comparison, marks",
           "Runs", shown="esc"),
)  # fmt: skip


def written(action: Action) -> str:
    """The key as people know it."""
    return action.shown or action.key.split(",")[0].replace("ctrl+", "^")
