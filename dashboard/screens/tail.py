"""The tail: the slowest requests in view, each with where its time went and the cause."""

from textual.app import ComposeResult

from dashboard.screens.run import RunScreen
from dashboard.widgets.panels import Ticker
from dashboard.widgets.xray import Xray


class Tail(RunScreen):
    """One panel."""

    AUTO_FOCUS = "#xray"

    def body(self) -> ComposeResult:
        yield Xray(id="xray", classes="panel")
        yield Ticker(id="ticker")
