"""Each screen in each state at each size as stored text: whatever moves a cell is seen in a diff.

The records are made up and the same each time. After a wanted change: `make golden`, and look at
what `git diff tests/golden` shows. What the figures mean is tested elsewhere; here it is that no
word is cut, nothing overlaps and every state has its words at every size.
"""

import asyncio
import difflib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

import dashboard.app
from dashboard.app import NO_RUN, Dashboard
from dashboard.asking import Finding, Model, Report
from dashboard.follow import Follow
from dashboard.scene import Scene
from dashboard.screens.launcher import Launcher
from dashboard.series import Series
from loadbench import baseline, runlog
from loadbench.view import View
from tests.ended import GONE, finished, killed
from tests.records import start, window
from tests.stage import Script, folded, settle, text, told
from tests.storyline import Story
from tests.test_dashboard_tail import view as slow_requests

GOLDEN = Path(__file__).parent / "golden"
RENEW = "RENEW_GOLDEN"
WHOLE = ((60, 16), (80, 24), (120, 40), (200, 60))
Change = Callable[[Dashboard], None]


class Still(Dashboard):
    """Of a run that was never written. Its clock stands: the newest record came `age` s ago."""

    CSS_PATH = str(Path(dashboard.app.__file__).with_name("dashboard.tcss"))

    def __init__(self, view: View, folder: Path, age: float = 0.0) -> None:
        super().__init__(folder, Script(view, folder), theme="loadbench")
        self._age = age

    def hurry(self) -> None:
        self.redraw()

    def scene(self) -> Scene:
        found = super().scene()
        if found.source.age_s is None:
            return found
        return replace(found, source=replace(found.source, age_s=self._age))


@dataclass(frozen=True)
class Shot:
    """One state of a run, and the keys that lead to the screen looked at. `snapshot` is the
    run.json beside it, `age` how long nothing has come."""

    name: str
    view: Callable[[], View]
    keys: str = ""
    sizes: tuple[tuple[int, int], ...] = WHOLE
    snapshot: tuple[tuple[str, Any], ...] = ()
    age: float = 0.0
    change: Change | None = None


def warming() -> View:
    begun = start(warmup_ns=3_000_000_000, planned_ns=60_000_000_000)
    return folded([begun, *(window(at, [5.0] * 60, stage="warmup") for at in (-3, -2))])


def of(**how: Any) -> Callable[[], View]:
    return lambda: told(Story(**how))


def looked_for(app: Dashboard) -> None:
    for _ in range(3):
        app._tick()


def paused(app: Dashboard) -> None:
    app.travel.drag(165)


def played(app: Dashboard) -> None:
    """As it is while it plays: half way, and the clock of this test stands."""
    app.sight = replace(app.sight, at=165, speed=10, played=True)
    app.travel.tick = lambda: None  # type: ignore[method-assign]


def repeated(app: Dashboard, words: str = "repeat 2 of 6") -> None:
    """One of a series that goes on."""
    app.part.series, app.part.goes_with = Series(words, None, True), True
    app._follow_series = lambda: None  # type: ignore[method-assign]


CHECKED = (
    ("summary", {"checks": [{"name": "p99", "state": "passed"}, {"name": "e", "state": "failed"}]}),
)
OVER = {"seconds": 60, "spike": (900, 900)}
LOAD_GONE = "the load generator stopped (killed: out of memory?); see /there/0147-ramp/load.log"
DEAD: dict[str, Any] = {"snapshot": (("pid", GONE), ("state", "running")), "change": looked_for}
STATES: tuple[tuple[str, Callable[[], View], dict[str, Any]], ...] = (
    ("warm-up", warming, {}),
    ("paused", of(end=None), {"change": paused}),
    ("no-data", of(end=None), {"age": 6.2}),
    ("failed", of(seconds=30, end="failed"), {}),
    ("killed", of(seconds=30, end=None), DEAD),
    ("done", of(**OVER), {"snapshot": CHECKED}),
    ("replay", of(), {"change": played}),
    ("no-gpu", of(gpu=False, end=None), {}),
    ("remote", of(server="none", end=None), {}),
)  # fmt: skip
SHOTS = (
    Shot("live-starting", View),
    Shot("live-warm-up", warming),
    Shot("live-running", of(end=None)),
    Shot("live-alert", of(seconds=165, end=None)),
    Shot("live-paused", of(end=None), "left"),
    Shot("live-no-data", of(end=None), age=6.2),
    Shot("live-failed", of(seconds=30, end="failed")),
    Shot("live-stopped", of(seconds=30, end="stopped")),
    Shot("live-done", of(**OVER), snapshot=CHECKED),
    Shot("live-killed", of(seconds=30, end=None), snapshot=(("pid", GONE), ("state", "running")),
         change=looked_for),
    Shot("live-no-gpu", of(gpu=False, end=None)),
    Shot("live-remote", of(server="none", end=None)),
    Shot("engine-starting", View, "2"),
    Shot("engine-running", of(end=None), "2"),
    Shot("engine-means", of(server="means", end=None), "2"),
    Shot("engine-remote", of(server="none", end=None), "2"),
    Shot("alerts-starting", View, "3"),
    Shot("alerts-firing", of(seconds=165, end=None), "3"),
    Shot("alerts-over", of(seconds=240, end="done"), "3"),
    Shot("alerts-checks", slow_requests, "3"),
    Shot("latency-starting", View, "enter"),
    Shot("latency-running", of(end=None), "enter"),
    Shot("tail-none", of(end=None), "t"),
    Shot("tail-running", slow_requests, "t"),
    *(
        Shot(f"{screen}-{state}", view, key, **more)
        for screen, key in (("engine", "2"), ("alerts", "3"), ("latency", "enter"))
        for state, view, more in STATES
        if (screen, state) != ("engine", "remote")  # above
    ),
    Shot("live-replay", of(), change=played),
    Shot("live-repeat", of(end=None), change=repeated),
    Shot("live-repeat-over", of(**OVER), change=repeated),
    Shot("live-repeat-last", of(**OVER), change=lambda app: repeated(app, "repeat 6 of 6")),
    Shot("live-load-lost", of(seconds=30, end="failed", why=LOAD_GONE)),
    Shot("live-worker-lost", of(seconds=30, end=None, lost=20)),
    Shot("live-bands", slow_requests),
    Shot("latency-bands", slow_requests, "enter"),
    Shot("live-second", of(end=None), "i"),
    Shot("difference", of(end=None), "left comma left left comma d"),
    Shot("rule", of(end=None), "3 e"),
    Shot("steer-running", of(end=None), "a"),
    Shot("help", of(end=None), "question_mark"),
    Shot("logs", of(end=None), "o"),
    Shot("stop", of(end=None), "s"),
    Shot("mark", of(end=None), "m"),
)  # fmt: skip


async def pictures(
    app: Dashboard, sizes: Iterable[tuple[int, int]], reach: Callable[[Pilot[Any]], Any]
) -> str:
    """The screen that `reach` leads to, at each size."""
    found = []
    first, *others = sizes
    async with app.run_test(size=first) as pilot:
        await settle(pilot)
        await reach(pilot)
        for width, height in (first, *others):
            await pilot.resize_terminal(width, height)
            await settle(pilot)
            lines = text(app).split("\n")
            assert len(lines) == height
            assert max(map(len, lines)) <= width
            found.append(f"{width}×{height}\n" + "".join(f"{line}\n" for line in lines))
    return "\n".join(found)


def hold(name: str, found: str) -> None:
    """It is what is stored; renews what is stored where that is asked for."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get(RENEW):
        path.write_text(found, encoding="utf-8")
        return
    stored = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    differ = "\n".join(
        difflib.unified_diff(stored, found.splitlines(), "stored", "now", lineterm="")
    )
    assert not differ, f"{name} looks different; if that is wanted: make golden\n{differ}"


@pytest.mark.parametrize("shot", SHOTS, ids=lambda shot: shot.name)
def test_a_run(shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that no path of this machine is on a screen
    folder = Path("results/0147-ramp-resnet-tiny")
    folder.mkdir(parents=True)
    if shot.snapshot:
        runlog.write_snapshot(folder, dict(shot.snapshot))
    (folder / "engine.log").write_text("ready on 127.0.0.1:8000\nCUDA out of memory\n")

    async def reach(pilot: Pilot[Any]) -> None:
        if shot.keys:
            await pilot.press(*shot.keys.split())
            await settle(pilot)
        if shot.change:
            shot.change(app)
            app.redraw()

    app = Still(shot.view(), folder, shot.age)
    hold(shot.name, asyncio.run(pictures(app, shot.sizes, reach)))


def some_runs(results: Path) -> None:
    finished(results, "one", 20.0)
    finished(results, "two", 10.0, max_batch=8)
    finished(results, "three", 10.0, {"http 503": 400}, scenario="spike")
    killed(results, "four")
    killed(results, "five", pid=os.getpid())
    baseline.put(results, "steady", results / "0001-one")


@pytest.mark.parametrize(
    ("name", "fill", "keys", "words"),
    [("runs-none", None, "", "No runs in"),
     ("runs-several", some_runs, "", "0005-five"),
     ("runs-killed", some_runs, "down", "0004-four"),
     ("runs-compared", some_runs, "end up c", "max_batch: 32"),
     ("runs-report", some_runs, "end v", "LATENCY")],
)  # fmt: skip
def test_the_list_of_runs(
    name: str,
    fill: Callable[[Path], None] | None,
    keys: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    results = Path("results")
    if fill:
        fill(results)

    async def reach(pilot: Pilot[Any]) -> None:
        await come(pilot, "No runs in" if fill is None else "0001")
        await pilot.press(*keys.split())
        await pilot.resize_terminal(120, 40)
        await come(pilot, words)

    async def come(pilot: Pilot[Any], words: str) -> None:
        for _ in range(400):
            if words in text(app):
                return
            await pilot.pause(0.05)
        raise AssertionError(f"{words!r} never came:\n{text(app)}")

    none = results / NO_RUN
    app = Dashboard(none, Follow(none), theme="loadbench", first="runs")
    hold(name, asyncio.run(pictures(app, WHOLE, reach)))


@pytest.mark.parametrize(
    ("name", "keys", "sizes"),
    [("new-run", "", WHOLE),
     ("new-run-settings", "tab tab tab", WHOLE[:2]),  # one step at a time where there is no room
     ("new-run-wrong", "tab tab tab x", WHOLE),
     ("new-run-ready", "shift+tab", WHOLE[:2])],
)  # fmt: skip
def test_a_new_run(
    name: str,
    keys: str,
    sizes: tuple[tuple[int, int], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine is made up: what a doctor finds differs from one to the next."""
    found = Report(
        (Finding("✓", "device", "cpu, 8 cores"), Finding("▲", "load", "2 of 8 cores are busy")),
        (Model("local:mlp", "4 kB, made here", ""), Model("local:m.onnx", "", "no onnxruntime")),
        ("torch",),
        ("cpu",),
    )

    async def doctor(_: object) -> Report:
        return found

    async def reach(pilot: Pilot[Any]) -> None:
        await pilot.press("n")
        screen = app.screen
        assert isinstance(screen, Launcher)
        await looked_at(screen, pilot)
        await pilot.press(*keys.split())
        await looked_at(screen, pilot)

    async def looked_at(screen: Launcher, pilot: Pilot[Any]) -> None:
        """Until what was typed has been checked, and the doctor asked."""
        for _ in range(400):
            await pilot.pause(0.05)
            if screen._reported == screen.draft:
                return
        raise AssertionError(text(app))

    monkeypatch.setattr("dashboard.screens.launcher.ask", doctor)
    monkeypatch.delenv("LOADBENCH_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = Path("results/0147-ramp-resnet-tiny")
    folder.mkdir(parents=True)
    found_at = []
    for size in sizes:
        app = Still(told(Story(end=None)), folder)
        found_at.append(asyncio.run(pictures(app, (size,), reach)))
    hold(name, "\n".join(found_at))


def test_every_state_is_told_without_colour() -> None:
    """By line 1 of what is stored, which knows no colours: a sign and a word of its own."""
    told_by = {
        "starting": "○ STARTING", "warm-up": "◔ WARM-UP", "running": "● RUNNING",
        "alert": "▲ 1 alert", "paused": "‖ VIEW PAUSED", "no-data": "▲ no data",
        "failed": "✗ FAILED", "killed": "✗ KILLED", "stopped": "■ STOPPED", "done": "■ DONE",
    }  # fmt: skip
    for state, words in told_by.items():
        lines = (GOLDEN / f"live-{state}.txt").read_text(encoding="utf-8").splitlines()
        firsts = [lines[at + 1] for at, line in enumerate(lines) if re.match(r"\d+×\d+$", line)]
        assert len(firsts) >= 3
        assert all(words in first for first in firsts), state
