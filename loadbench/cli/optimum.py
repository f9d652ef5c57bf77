"""`loadbench optimum RUN`: what the batcher reached of the best possible on the arrivals it saw."""

import json

import click

from loadbench import runlog, units
from loadbench.cli.say import give
from loadbench.report.optimum import optimum_page
from loadbench.snapshots.foreign import believable
from loadbench.summary import best_possible
from loadbench.yardstick import yardstick

_EXACTLY = 200_000  # arrivals looked at in one piece: at most ten seconds


@click.command()
@click.argument("run", default="last")
@click.option("--slo", metavar="TIME", help="What is in time; default: engine.slo of the run.")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON object.")
def command(run: str, slo: str | None, out: str | None, as_json: bool) -> None:
    """How many requests RUN served in time, of the most that anyone could have who had known all
    arrivals beforehand. RUN is a number (12), a folder, or `last`; its target a local engine.

    What was lost is split: to scheduling (which requests rode together, and when) and to host time
    (all that is not the model). The best is exact for one instance and up to some 200,000 arrivals
    (fewer, if many can be served within the SLO); else a bound, and the share is rather too low.
    """
    folder = runlog.single(runlog.find(run, runlog.results_folder(out)))
    limit = units.parse_duration(slo) if slo else None
    with believable(folder.name):
        optimum, costs = yardstick(folder, limit, _EXACTLY)
    found = best_possible(optimum)
    assert found is not None
    if as_json:
        sizes = range(1, len(costs.model))
        times = {
            name: {size: int(ns[size]) / units.MS for size in sizes}
            for name, ns in zip(("model_ms", "host_ms", "answer_ms"), costs, strict=True)
        }
        give(json.dumps({"run": runlog.called(folder), **found, **times}, ensure_ascii=False))
    else:
        give(optimum_page(runlog.called(folder), found, costs))
