"""What the command palette offers: every action of the screen in front, by name, and the view's."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from textual.app import App, SystemCommand
from textual.screen import Screen

from dashboard.keys import ACTIONS
from dashboard.scene import ZOOMS, words
from dashboard.theme import DARK_THEME, LIGHT_THEME, SIXTEEN

_COLOURS = (
    ("dark terminals", DARK_THEME.name),
    ("light terminals", LIGHT_THEME.name),
    ("terminals with 16 colours", SIXTEEN),
)


def commands(app: App[None], screen: Screen[Any]) -> Iterator[SystemCommand]:
    """A screen with keys of its own lists them as `actions`; they come first."""
    for action in (*getattr(screen, "actions", ()), *ACTIONS):
        run = partial(app.run_action, action.call, screen)
        yield SystemCommand(f"{action.group}: {action.title}", "", run)
    for zoom in ZOOMS:
        run = partial(app.run_action, f"look('span', {zoom})")
        yield SystemCommand(f"View: the last {words(zoom)}", "", run)
    for name, theme in _COLOURS:
        run = partial(app.run_action, f"colours({theme!r})")
        yield SystemCommand(f"View: colours for {name}", "", run)
    yield SystemCommand("View: all themes", "", partial(app.run_action, "change_theme"))
