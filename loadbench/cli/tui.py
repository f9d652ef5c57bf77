"""`loadbench tui`: the dashboard on a run that it starts, that is going on, or that is over."""

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadbench import runlog
from loadbench.cli.say import say, show
from loadbench.errors import SpecError

if TYPE_CHECKING:
    from dashboard.app import Dashboard
    from dashboard.child import Child
    from dashboard.web import Pages

DEFAULT = "tour"
_NOTIFY = "loadbench.notify"
_IN_TAB = "TEXTUAL_DRIVER" in os.environ  # pipes lead to a browser
_END_S = 30.0  # for the runner to put its summary together after its last record


@click.command()
@click.argument("scenario", required=False)
@click.option("--attach", metavar="RUN", help="Follow a run that someone else started.")
@click.option("--replay", metavar="RUN", help="Play a run from its beginning.")
@click.option("--runs", "listed", is_flag=True, help="Begin with the list of runs.")
@click.option("--speed", type=click.IntRange(1, 1000), default=1, help="Of a replay: 1, 10, 60.")
@click.option("--target", metavar="URL", help="http(s):// or grpc(s)://host:port, or local:MODEL")
@click.option("--rate", metavar="RATE", help='Same rate throughout, like 300 or "80 %".')
@click.option("--duration", metavar="TIME", help='Length of the recorded load, like "30s".')
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any scenario key.")
@click.option("--workers", metavar="N", help="Load processes of this host.")
@click.option("--repeats", metavar="N", help="So many runs, one after the other, as one series.")
@click.option("--baseline", metavar="NAME|RUN", help="Is the run worse than this one?")
@click.option("--out", metavar="DIR", help="Where runs land; default: results.")
@click.option("--trust", is_flag=True, help="Allow scenarios and model files that run code.")
@click.option(
    "--notify",
    type=click.Choice(["auto", "osc9", "osc777", "off"]),
    default="auto",
    expose_value=False,
    callback=lambda context, _, value: context.meta.update({_NOTIFY: value}),
    help="How the terminal takes desktop notifications of alerts; auto: if it is known to.",
)
@click.option("--web", is_flag=True, help="In a browser of this machine instead of the terminal.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="Of --web; 0: any.")
def command(
    scenario: str | None,
    attach: str | None,
    replay: str | None,
    listed: bool,
    speed: int,
    target: str | None,
    rate: str | None,
    duration: str | None,
    settings: tuple[str, ...],
    workers: str | None,
    repeats: str | None,
    baseline: str | None,
    out: str | None,
    trust: bool,
    web: bool,
    port: int,
) -> int:
    """Watch SCENARIO run (without one: the tour), or a run: its folder, --attach or --replay.

    Without a terminal the scenario is run headless, with the same summary and exit code.
    """
    if _IN_TAB:
        from loadbench.orphan import die_with_parent

        die_with_parent()
    # Textual draws on stderr
    terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)) or _IN_TAB
    if scenario and not replay and not attach and (Path(scenario) / runlog.LOG).is_file():
        attach, scenario = scenario, None
    watched = attach or replay
    if listed and (watched or scenario):
        raise SpecError("--runs opens no run", "give it alone: enter opens the one you choose")
    if listed:
        results = runlog.results_folder(out)
        if web:
            return _in_tabs(_pages(port), "--runs", "--out", str(results.absolute()))
        if not terminal:
            raise SpecError("the dashboard needs a terminal", "loadbench list")
        return _list(results)
    if watched:
        if (attach and replay) or scenario:
            raise SpecError(
                "one run at a time", "give a SCENARIO, or --attach RUN, or --replay RUN"
            )
        if not (terminal or web):
            raise SpecError("the dashboard needs a terminal", f"loadbench show {watched}")
        folder = runlog.latest(runlog.find(watched, runlog.results_folder(out)))
        if web:
            how = ("--speed", str(speed), "--replay") if replay else ("--attach",)
            return _in_tabs(_pages(port), *how, str(folder.absolute()))
        return _watch(folder, speed if replay else None)
    given = {"--target": target, "--rate": rate, "--duration": duration}
    given |= {"--workers": workers, "--repeats": repeats, "--baseline": baseline, "--out": out}
    arguments = [scenario or DEFAULT]
    for option, value in given.items():
        arguments += [option, value] if value is not None else []
    for setting in settings:
        arguments += ["--set", setting]
    arguments += ["--trust"] if trust else []
    if not (terminal or web):
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "loadbench", "run", *arguments])
    return _start(arguments, _pages(port) if web else None)


def _watch(folder: Path, speed: int | None) -> int:
    from dashboard.app import Dashboard
    from dashboard.follow import Follow

    if speed is not None and not (folder / runlog.LOG).is_file():
        raise SpecError(f"{folder / runlog.LOG} is not there", "it was killed before it began")
    return _show(Dashboard(folder, Follow(folder, speed or 0)))


def _list(results: Path) -> int:
    from dashboard.app import NO_RUN, Dashboard
    from dashboard.follow import Follow

    none = results / NO_RUN
    return _show(Dashboard(none, Follow(none), first="runs"))


def _show(app: "Dashboard") -> int:
    """The dashboard until it ends, and then what to know of the run that it showed last, and of
    others that it has started."""
    gc.disable()  # the dashboard does it itself, when nobody waits for a picture
    app.notify_by = click.get_current_context().meta.get(_NOTIFY, "auto")
    app.run()
    if _IN_TAB:  # nobody reads on
        return app.return_code or 0
    try:
        for folder, child in app.started.items():
            if child is not app.child and child.code is None:
                _goes_on(folder)
        return _told(app) if app.child is None else _told_of(app, app.child)
    finally:
        for child in app.started.values():
            child.forget()


def _told(app: "Dashboard") -> int:
    """Of a run that somebody else started."""
    if app.return_code:
        return _broken(app.return_code)
    if not app.opened:
        return 0
    if not app.ended:
        _goes_on(app.whole)
    elif not app.folder.is_dir():  # deleted from the list of runs
        return 0
    else:
        from loadbench.report.text import run_text

        show(run_text(app.folder))
    return 0


def _told_of(app: "Dashboard", child: "Child") -> int:
    """Of a run that we started: its own words and exit code."""
    code = child.wait(_END_S if app.ended else 0.0)
    if code is None:
        _goes_on(app.whole)
        return _broken(app.return_code) if app.return_code else 0
    return _ended(child, code, app.whole)


def _ended(child: "Child", code: int, folder: Path) -> int:
    """Its own words and exit code."""
    if text := child.text():
        show(text.removesuffix("\n"))
    reasons = child.reasons() if code else []
    if child.killed:  # it could say nothing
        reasons = [
            f"loadbench: {child.failure()}",
            f"  → what it recorded: loadbench show {folder}",
        ]
    for line in reasons:
        say(line)
    return code


def _goes_on(folder: Path) -> None:
    show(f"the run goes on: loadbench tui --attach {folder}")


def _pages(port: int) -> "Pages":
    """For a browser, before anything is started. Raises SpecError and RunError."""
    try:
        from dashboard.web import Pages, free_port
    except ModuleNotFoundError as error:
        text = f"--web needs {(error.name or '').replace('_', '-')}"
        raise SpecError(text, "pip install 'loadbench[web]'") from error
    return Pages(free_port(port))


def _in_tabs(pages: "Pages", *arguments: str) -> int:
    """A dashboard for each tab, until a signal comes."""
    pages.show([sys.executable, "-m", "loadbench", "tui", *arguments])
    return 0


def _start(arguments: list[str], pages: "Pages | None") -> int:
    """A run of our own, in the terminal or in a browser."""
    from dashboard.child import Child

    child = Child(arguments)
    try:
        from dashboard.app import Dashboard  # loads while the runner starts
        from dashboard.follow import Follow

        folder = child.folder()
    except KeyboardInterrupt:
        child.give_up()
        raise
    if folder is None:
        click.echo(child.said(), err=True, nl=False)
        failed = child.code or 3
        child.forget()
        return failed
    if pages is not None:
        try:
            _in_tabs(pages, "--attach", str(folder.absolute()))
            if child.code is not None:
                return _ended(child, child.code, folder)
            _goes_on(folder)
            return 0
        finally:
            child.forget()
    return _show(Dashboard(folder, Follow(folder), child))


def _broken(code: int) -> int:
    """Of a dashboard that a signal ended what a shell says then; 3 if it failed itself."""
    return code if code > 128 else 3
