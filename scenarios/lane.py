"""Any loadbench scenario under Locust's own command line and web UI.

    loadbench serve mlp
    locust -f scenarios/lane.py --headless --scenario steady --host http://127.0.0.1:8477

One user offers the whole load of the scenario: the number of users and the spawn rate that Locust
asks for do not matter. Locust's statistics are fed once a second.
"""

from typing import Any

from locust import events

from loadbench.load.ready import Load
from loadbench.load.scenario import ready
from loadbench.load.user import LaneUser


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any, **_: Any) -> None:
    parser.add_argument("--scenario", default="steady", help="a scenario's name, or its .toml file")


class ScenarioUser(LaneUser):
    """Offers the load of --scenario."""

    def prepare(self) -> Load:
        return ready(self.environment.parsed_options.scenario, self.host)
