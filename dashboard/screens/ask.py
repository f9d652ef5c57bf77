"""Questions over a screen: a choice, or a word."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label


class Choice(ModalScreen[str]):
    """A question with buttons; the answer is the chosen button's word, the last one on escape."""

    BINDINGS = [
        Binding("escape", "last", "Back", show=False),
        # from the last answer, which changes nothing, to the one beside it, not around to the first
        Binding("left,tab", "app.focus_previous", show=False),
        Binding("right,shift+tab", "app.focus_next", show=False),
    ]

    def __init__(self, question: str, answers: tuple[str, ...]) -> None:
        super().__init__()
        self._question, self._answers = question, answers

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, markup=False)
            with Horizontal():
                for at, answer in enumerate(self._answers):
                    yield Button(answer, id=f"answer-{at}", compact=True)

    def on_mount(self) -> None:
        self.query(Button).last().focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(str(event.button.label))

    def action_last(self) -> None:
        self.dismiss(self._answers[-1])


class Word(ModalScreen[str]):
    """One line of text; empty on escape."""

    BINDINGS = [Binding("escape", "nothing", "Back", show=False)]

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__()
        self._question, self._value = question, value

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_subtitle = "enter = done   esc = back"
            yield Label(self._question, markup=False)
            yield Input(self._value, max_length=120, compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_nothing(self) -> None:
        self.dismiss("")
