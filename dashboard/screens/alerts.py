"""Screen 3, Alerts: where each rule stands, what it did in this run, and why."""

from dataclasses import replace
from typing import TYPE_CHECKING

from textual import work
from textual.app import ComposeResult
from textual.screen import Screen

from dashboard.keys import ACTIONS, ALERTS
from dashboard.peaks import Peaks
from dashboard.scene import Scene
from dashboard.screens.ask import Word
from dashboard.screens.run import RunScreen
from dashboard.widgets.alerting import History, Rules, Why, spell_of
from dashboard.widgets.checks import Checks
from dashboard.widgets.picker import Picker
from loadbench.alerts import QUANTITIES
from loadbench.episodes import Spell

if TYPE_CHECKING:
    from dashboard.app import Dashboard

_ELSEWHERE = ("pause", "zoom-in", "log", "stop")  # not in this screen's footer
_AROUND = 0.5  # of an episode's length, to be seen before and after it


class Alerts(RunScreen, inherit_bindings=False):
    """Rules above, their history below, and why the picked one fires."""

    app: "Dashboard"
    AUTO_FOCUS = "#history"
    actions = ALERTS
    BINDINGS = [
        *(action.binding for action in ALERTS if action.key != "enter"),
        *(
            replace(action.binding, show=False) if action.id in _ELSEWHERE else action.binding
            for action in ACTIONS
        ),
        *Screen.BINDINGS,
    ]

    def body(self) -> ComposeResult:
        yield Rules(id="rules", classes="panel")
        yield Checks(id="checks", classes="panel")
        peaks = Peaks()
        yield History(peaks, id="history", classes="panel")
        yield Why(peaks, id="why", classes="panel")

    def show(self, scene: Scene) -> None:
        self.set_class(not scene.view.spells, "-calm")
        for board in self.query(Picker):
            board.show(scene)
        self._choose(scene)
        super().show(scene)

    def on_picker_picked(self) -> None:
        scene = self.query_one(Why).scene
        if scene is not None:
            self._choose(scene)
            self.query_one(Why).show(scene)

    def _choose(self, scene: Scene) -> None:
        """What the lower panel tells of: the episode under the cursor, or the rule."""
        rules, history, why = self.query_one(Rules), self.query_one(History), self.query_one(Why)
        spell = _spell(scene, history.picked)
        if rules.has_focus or spell is None:
            names = {rule.name: rule for rule in scene.view.rules}
            why.rule = names.get(str(rules.picked))
            spell = spell_of(scene, why.rule) if why.rule else None
        else:
            why.rule = spell.rule
        why.spell = spell

    # ── what keys ask ────────────────────────────────────────────────────────

    def action_show_episode(self) -> None:
        """Live, paused, with the episode in the middle."""
        why = self.query_one(Why)
        spell = why.spell
        if spell is None:
            self.app.say(f"{_calm(why)}: there is nothing to show.")
            return
        newest = self.app.run_view.newest or 0
        ended = newest if spell.ended is None else spell.ended
        around = max(15, round(_AROUND * (ended - spell.began)))
        self.app.bring(max(0, spell.began - around), min(newest, ended + around))

    def action_acknowledge(self) -> None:
        """The episode under the cursor, if it fires; else all that do."""
        view, spell = self.app.run_view, self.query_one(Why).spell
        firing = [s for s in view.spells if s.firing and not s.acknowledged]
        chosen = [s for s in firing if spell is not None and s.began == spell.began
                  and s.rule.name == spell.rule.name] or firing  # fmt: skip
        self.app.read_snapshot()
        if not chosen:
            self.app.say("No alert fires that nobody has seen.")
            return
        if not self.app.driver.listens:
            host = self.app.driver.elsewhere
            why = f"the run is driven at {host}" if host else "the run's own process has ended"
            self.app.say(f"Nobody is here to be told: {why}.")
            return
        for found in chosen:
            self.app.driver.command({"command": "acknowledge", "rule": found.rule.name})

    @work
    async def action_edit_rule(self) -> None:
        from dashboard.screens.rule import Edit  # reads scenarios: not for who only watches

        # a key may come before the screen is drawn for the first time
        rule = self.query_one(Why).rule or next(iter(self.app.run_view.rules), None)
        await self.app.push_screen_wait(Edit(rule))

    @work
    async def action_filter(self) -> None:
        rules = self.query_one(Rules)
        question = Word("Only alerts with these words (none: all):", rules.words)
        self.only(await self.app.push_screen_wait(question))

    def only(self, words: str) -> None:
        """Leaves out what has not these words; none: shows all."""
        for picker in self.query(Picker):
            picker.words = words
        self.app.redraw()


def _calm(why: Why) -> str:
    """What there is to say where the rule that is picked has no episode."""
    fired = why.scene is not None and any(s.fired is not None for s in why.scene.view.spells)
    if why.rule is None or not fired:
        return "No alert has fired"
    return f"{QUANTITIES[why.rule.quantity].title} has not fired"


def _spell(scene: Scene, key: object) -> Spell | None:
    return next((s for s in scene.view.spells if (s.rule.name, s.began) == key), None)
