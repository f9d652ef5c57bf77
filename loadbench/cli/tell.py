"""`loadbench tell RUN COMMAND`: changes, marks or stops a run that is going on somewhere else."""

import click

from loadbench import control, runlog
from loadbench.errors import RunError


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("run")
@click.argument("name", metavar="COMMAND", type=click.Choice(control.NAMES))
@click.argument("words", nargs=-1)
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
def command(run: str, name: str, words: tuple[str, ...], out: str | None) -> int:
    """Tells RUN (a number, a folder, or `last`) what to do:

    \b
    rate 500         hold 500 requests per second from now on
    scale 1.5        1.5 times the scenario; 1 returns to it
    pause, resume    leave out what falls due, and no longer
    spike 1500 5s    1500 per second for 5 s, then as before
    engine KEY=VALUE …  of a local engine: max_batch=16 policy=fixed
                     slo=50ms max_wait=2ms hold=false
    mark TEXT        a mark in the log and the charts
    alert 'p99 > 200 ms' 10s  another limit and time, or a new rule; off: no longer
    acknowledge p99  somebody has seen that this alert fires
    stop, kill       end gently, or at once
    """
    folder = runlog.latest(runlog.find(run, runlog.results_folder(out)))
    order = control.order((name, *words))
    snapshot = runlog.read_snapshot(folder)
    path = snapshot.get("control")
    if not path or not runlog.goes_on(folder):
        raise RunError(f"{folder.name} is over: nothing listens", "loadbench list shows what runs")
    if host := control.elsewhere(snapshot):
        raise RunError(f"{folder.name} goes on at {host}, and is told there", "ask on that machine")
    click.echo(control.send(str(path), order).get("mark", name))
    return 0
