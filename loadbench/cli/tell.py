"""`loadbench tell RUN COMMAND`: changes, marks or stops a run that is going on somewhere else."""

from typing import Any

import click

from loadbench import control, runlog
from loadbench.errors import RunError, SpecError

# the keys of what follows each command
_WORDS = {
    "rate": ("rate",),
    "scale": ("factor",),
    "pause": (),
    "resume": (),
    "spike": ("rate", "for"),
    "mark": ("text",),
    "alert": ("when", "for"),
    "acknowledge": ("rule",),
    "stop": (),
    "kill": (),
}


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("run")
@click.argument("name", metavar="COMMAND", type=click.Choice(list(_WORDS)))
@click.argument("words", nargs=-1)
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
def command(run: str, name: str, words: tuple[str, ...], out: str | None) -> int:
    """Tells RUN (a number, a folder, or `last`) what to do:

    \b
    rate 500         hold 500 requests per second from now on
    scale 1.5        1.5 times the scenario; 1 returns to it
    pause, resume    leave out what falls due, and no longer
    spike 1500 5s    1500 per second for 5 s, then as before
    mark TEXT        a mark in the log and the charts
    alert 'p99 > 200 ms' 10s   another limit and time from now on, or a new rule; `off` ends it
    acknowledge p99  somebody has seen that this alert fires
    stop, kill       end gently, or at once
    """
    folder = runlog.find(run, runlog.results_folder(out))
    keys = _WORDS[name]
    if name == "mark" and words:
        words = (" ".join(words),)
    if len(words) != len(keys):
        wanted = " ".join([name, *(key.upper() for key in keys)])
        raise SpecError(f"{name} takes {len(keys)} words, not {len(words)}", f"write: {wanted}")
    path = runlog.read_snapshot(folder).get("control")
    if not path or not runlog.goes_on(folder):
        raise RunError(f"{folder.name} is over: nothing listens", "loadbench list shows what runs")
    order: dict[str, Any] = {"command": name, **dict(zip(keys, words, strict=True))}
    if name == "alert" and order["for"] == "off":
        order = {"command": name, "when": order["when"], "off": True}
    answer = control.send(str(path), order)
    click.echo(answer.get("mark", name))
    return 0
