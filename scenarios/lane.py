"""Any loadbench scenario under Locust's own command line and web UI.

    loadbench serve mlp
    locust -f scenarios/lane.py --scenario steady --host http://127.0.0.1:8477

then press Start at http://localhost:8089 (as often as you like), or add --headless. One user offers
the whole load of the scenario: the number of users and the spawn rate that Locust asks for do not
matter. Locust's statistics are fed once a second. Under --master one of the workers has that user.
"""

from typing import Any

from locust import events

from loadbench.load.ready import Load
from loadbench.load.scenario import ready
from loadbench.load.user import LaneUser, end_together

events.init.add_listener(end_together)


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any, **_: Any) -> None:
    parser.add_argument("--scenario", default="steady", help="a scenario's name, or its .toml file")


class ScenarioUser(LaneUser):
    """Offers the load of --scenario."""

    def prepare(self) -> Load:
        return ready(self.environment.parsed_options.scenario, self.host)
