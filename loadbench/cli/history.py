"""`loadbench history [SCENARIO]`: a metric over all snapshots, and where it changed."""

import json
import math
import shutil
from typing import Any

import click

from loadbench import runlog
from loadbench.cli.say import show
from loadbench.report.history import History, history
from loadbench.report.historypage import history_text


@click.command()
@click.argument("scenario", required=False)
@click.option("--metric", default="p99", help="p99 (default), p50, throughput, failed …")
@click.option("--like", metavar="RUN", help="The runs of the same work as this; default: the last.")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The history as one JSON object.")
def command(
    scenario: str | None, metric: str, like: str | None, out: str | None, as_json: bool
) -> None:
    """A metric of SCENARIO (default: that of the last run) over its finished runs and series.

    Only runs that did the same work are in one history: those of the last kind, or of --like. They
    stand in the order of their commits, if it is called in the repository that has these.

    Changes are found by E-divisive (Matteson and James) with 499 permutations, at 2 % chance for
    each stretch without any; with the first run and commit that is different. A run that is not to
    be trusted at all is left out.
    """
    found = history(runlog.results_folder(out), scenario, metric, like)
    if as_json:
        show(json.dumps(_facts(found), ensure_ascii=False))
    else:
        show(history_text(found, shutil.get_terminal_size((100, 24)).columns))


def _facts(found: History) -> dict[str, Any]:
    """Infinite figures, among the failed, are null. `before` and `after` are medians of runs that
    lie within `before_in` and `after_in`: that is their spread, they have no band."""
    return {
        "scenario": found.scenario,
        "metric": found.metric.name,
        "unit": found.metric.unit,
        "runs": [{**point._asdict(), "figure": _number(point.figure)} for point in found.points],
        "changes": [
            {
                "run": found.points[step.at].run,
                "commit": found.points[step.at].commit,
                "last_before": found.points[step.at - 1].run,
                "before": _number(step.before),
                "after": _number(step.after),
                "before_in": [_number(end) for end in step.before_in],
                "after_in": [_number(end) for end in step.after_in],
                "worse": step.worse,
                "p": step.p,
                "settings_changed": list(found.points[step.at].changed),
            }
            for step in found.steps
        ],
        "left_out": list(found.left_out),
        "damaged": list(found.damaged),
        "other_work": list(found.other),
        "notes": list(found.notes),
    }


def _number(figure: float) -> float | None:
    return None if math.isinf(figure) else figure
