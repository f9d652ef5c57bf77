"""What is found out of a run before anything of it is begun: whether it may be made at all."""

from loadbench.bounds import require_bounded
from loadbench.errors import SpecError
from loadbench.plan import Workers
from loadbench.runner.decision import decidable
from loadbench.spec import Scenario


def may_run(scenario: Scenario, trust: bool, workers: Workers | None, decide: bool) -> None:
    """SpecError if the scenario brings code along that nobody has said may run, or that cannot."""
    if scenario.spec.load.locustfile and workers:
        raise SpecError(
            "a Locust file runs in one load process", "leave --workers and --master-bind out"
        )
    if decide:
        decidable(scenario)
    if scenario.foreign and not trust:
        raise SpecError(scenario.foreign, "read it, then allow that with --trust")
    require_bounded(scenario.spec)
    scenario.spec.alerts.address()  # before anything is begun: does the environment have it?
