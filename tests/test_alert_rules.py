"""Rules changed while a run goes on, alerts acknowledged, and rules saved into a scenario."""

import threading
from pathlib import Path
from typing import Any

import pytest

from loadbench import alertfile, alerts, runlog, spec
from loadbench.episodes import following
from loadbench.errors import SpecError
from loadbench.model import AlertChange, End, Mark
from loadbench.runner.recorder import Recorder
from loadbench.runner.ruling import rewritten
from loadbench.standing import Standing
from loadbench.units import SECOND
from loadbench.view import View, fold
from tests.records import start, window

BUILT_IN = alerts.built_in(gpu=False)
P99 = alerts.parse_rule("p99 > 100 ms", 3 * SECOND)


def rule(text: str, seconds: int = 5) -> Any:
    return alerts.parse_rule(text, seconds * SECOND)


def test_a_command_changes_adds_or_ends_a_rule() -> None:
    after, text = rewritten({"when": "p99 > 200 ms", "for": "10s"}, BUILT_IN)
    assert after[0] == rule("p99 > 200 ms", 10)
    assert after[1:] == BUILT_IN[1:]
    assert text == "alert changed: p99 latency > 200 ms for 10 s (was > 100 ms for 5 s)"
    after, text = rewritten({"when": "cpu > 90 %"}, BUILT_IN)
    assert after == (*BUILT_IN, rule("cpu > 90 %"))
    assert text == "alert added: CPU > 90 % for 5 s"
    after, text = rewritten({"when": "errors > 1 %", "for": "off"}, BUILT_IN)
    assert "errors" not in [found.name for found in after]
    assert text == "alert off: errors > 1 % for 5 s"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ({}, "give a rule"),
        ({"when": 3}, "give a rule"),
        ({"when": "p99 > 100 ms" + " " * 200}, "give a rule"),
        ({"when": "p98 > 100 ms"}, "did you mean 'p95'|did you mean 'p99'"),
        ({"when": "p99 > 100"}, "not a duration"),
        ({"when": "p99 > 200 ms", "for": 5}, '"for" is a time'),
        ({"when": "p99 > 200 ms", "for": "soon"}, "soon"),
        ({"when": "p99 > 100 ms", "for": "5s"}, "so already"),
        ({"when": "cpu > 90 %", "for": "off"}, "no such rule"),
    ],
)
def test_what_is_no_change_is_refused(command: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rewritten(command, BUILT_IN)


def slow(second: int, latency_ms: float = 300.0) -> Any:
    return window(second, [latency_ms] * 100)


def test_a_changed_rule_goes_on_where_it_stood() -> None:
    watch = alerts.Watch([P99], None)
    for second in range(5):
        watch.see(slow(second))
    assert watch.change([rule("p99 > 500 ms", 3)], 5) == []
    changes = [c for second in range(5, 12) for c in watch.see(slow(second))]
    assert [(c.second, c.state, c.since, c.limit) for c in changes] == [(7, "ok", 0, 500.0)]


def test_a_rule_that_goes_while_it_fires_has_ended() -> None:
    watch = alerts.Watch([P99], None)
    for second in range(5):
        watch.see(slow(second))
    (gone,) = watch.change([], 5)
    assert (gone.rule, gone.state, gone.since, gone.limit) == ("p99", "ok", 0, 100.0)
    assert gone.peak == pytest.approx(300, rel=1e-3)
    assert watch.see(slow(6)) == []


def test_the_log_tells_what_was_changed_before_an_alert_began(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, start(rules=(P99,)), None, lambda _: None)
    for second in range(2):
        recorder.window(slow(second, 20.0))
    recorder.mark("engine: max_batch 8 → 2", 1, Standing())
    for second in range(2, 7):
        recorder.window(slow(second))
    recorder.end(End(7, "done"))
    told = [found for found in runlog.read(tmp_path) if isinstance(found, AlertChange)]
    assert "Likely: that change." in told[-1].words


def test_the_log_of_a_run_has_every_change_and_the_view_follows(tmp_path: Path) -> None:
    said: list[str] = []
    recorder = Recorder(tmp_path, start(rules=(P99,)), None, said.append)
    for second in range(5):
        recorder.window(slow(second))
    assert recorder.rule({"command": "acknowledge", "rule": "p99"}, 5) == (
        "acknowledged: p99 latency > 100 ms for 3 s"
    )
    with pytest.raises(ValueError, match="no alert 'errors' fires"):
        recorder.rule({"command": "acknowledge", "rule": "errors"}, 5)
    recorder.rule({"command": "alert", "when": "p99 > 400 ms", "for": "1s"}, 5)
    recorder.window(slow(6))
    recorder.rule({"command": "alert", "when": "p99 > 400 ms", "for": "off"}, 7)
    recorder.end(End(7, "done"))
    records = list(runlog.read(tmp_path))
    changes = [found for found in records if isinstance(found, AlertChange)]
    assert [(c.state, c.acknowledged, c.limit) for c in changes] == [
        ("pending", False, None), ("firing", False, 100.0), ("firing", True, 100.0),
        ("ok", False, 400.0),
    ]  # fmt: skip
    assert changes[1].words[0].startswith("p99 latency: up to 300 ms (limit 100 ms)")
    assert changes[1].words[-1].startswith("Try: ")
    assert [m.text for m in records if isinstance(m, Mark)] == [
        "alert changed: p99 latency > 400 ms for 1 s (was > 100 ms for 3 s)",
        "alert off: p99 latency > 400 ms for 1 s",
    ]
    views = [View()]
    for record in records:
        views.append(fold(views[-1], record))
    unheard = [view.unheard for view in views]
    assert max(unheard) == 1
    assert unheard[-1] == 0
    seen = next(view for view in views if view.spells and view.spells[0].acknowledged)
    assert seen.unheard == 0
    assert [found.name for found in seen.firing] == ["p99"]  # it still fires
    (spell,) = views[-1].spells
    assert (spell.began, spell.fired, spell.ended, spell.acknowledged) == (0, 2, 6, True)
    assert views[-1].changed == ()
    assert any("▲ p99 latency > 100 ms" in line for line in said)


def test_commands_and_windows_may_come_at_once(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, start(rules=(P99,)), None, lambda _: None)

    def change() -> None:
        for number in range(200):
            recorder.rule({"command": "alert", "when": f"p95 > {number + 1} ms"}, 1)

    thread = threading.Thread(target=change)
    thread.start()
    for second in range(100):
        recorder.window(slow(second))
    thread.join()
    recorder.end(End(100, "done"))
    rules = [m.rules for m in runlog.read(tmp_path) if isinstance(m, Mark)]
    assert len(rules) == 200
    assert rules[-1] == (P99, rule("p95 > 200 ms"))


def test_episodes_are_those_that_fired() -> None:
    def told(*changes: AlertChange) -> Any:
        spells: Any = ()
        for change in changes:
            spells = following(spells, P99, change)
        return spells

    pending = AlertChange(10, "p99", "pending", 120.0, 10, 120.0)
    (only,) = told(pending)
    assert (only.began, only.fired, only.firing) == (10, None, False)
    assert told(pending, AlertChange(12, "p99", "ok", 80.0)) == ()
    firing = AlertChange(13, "p99", "firing", 184.0, 10, 184.0, "busy", 150.0)
    ended = AlertChange(30, "p99", "ok", 44.0, 10, 250.0, limit=150.0)
    (one,) = told(pending, firing, ended)
    assert (one.began, one.fired, one.ended, one.peak, one.rule.limit) == (10, 13, 30, 250.0, 150.0)
    assert one.seconds(99) == 20
    again = told(pending, firing, ended, AlertChange(50, "p99", "firing", None, 45, limit=100.0))
    assert [(spell.began, spell.firing) for spell in again] == [(10, False), (45, True)]
    assert again[1].seconds(60) == 15


SCENARIO = """# what I measure
title = "mine"   # a title
[load]
phases = [ {rate = 300, for = "20s"} ]  # flat

[[alert]]
# the card's owner wants that
when = "gpu_memory > 90 %"   # of 141 GB
for = "5s"

[checks]
p99 = "< 100 ms"
"""


def test_a_saved_rule_leaves_everything_else_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO)
    path.chmod(0o640)
    assert alertfile.save(path, rule("gpu_memory > 95 %", 30)) == path
    changed = path.read_text()
    assert changed == SCENARIO.replace("> 90 %", "> 95 %").replace('"5s"\n\n[c', '"30 s"\n\n[c')
    assert path.stat().st_mode & 0o777 == 0o640
    alertfile.save(path, rule("p99 > 250 ms", 10))
    alertfile.save(path, rule("errors > 1 %"), off=True)
    text = path.read_text()
    for line in SCENARIO.splitlines():
        if "90 %" not in line and line != 'for = "5s"':
            assert line in text.splitlines()
    found = spec.load(str(path)).spec.alert
    assert [(a.when, a.length, a.off) for a in found] == [
        ("gpu_memory > 95 %", 30 * SECOND, False),
        ("p99 > 250 ms", 10 * SECOND, False),
        ("errors > 1 %", 5 * SECOND, True),
    ]
    alertfile.save(path, rule("errors > 2 %"))
    assert [a.off for a in spec.load(str(path)).spec.alert] == [False, False, False]
    assert list(tmp_path.iterdir()) == [path]


def test_a_rule_that_is_off_keeps_its_duration_until_it_is_wanted_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO)
    off = rule("gpu_memory > 90 %", 0)  # as `off` is typed in the place of a duration
    alertfile.save(path, off, off=True)
    assert path.read_text() == SCENARIO.replace('"5s"\n', '"5s"\noff = true\n')
    alertfile.save(path, rule("gpu_memory > 90 %", 5))
    (found,) = spec.load(str(path)).spec.alert
    assert (found.length, found.off) == (5 * SECOND, False)


def test_rules_in_one_line_stay_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    line = 'alert = [ {when = "p99 > 1 s", for = "3s"} ] # all\n'
    path.write_text(f'{line}[load]\nphases = [ {{rate = 300, for = "20s"}} ]\n')
    alertfile.save(path, rule("p99 > 250 ms", 3))
    alertfile.save(path, rule("memory > 90 %", 3))
    first = path.read_text().splitlines()[0]
    assert first.startswith('alert = [ {when = "p99 > 250 ms", for = "3 s"}')
    assert "memory > 90 %" in first
    assert first.endswith("# all")


def test_what_cannot_be_saved_changes_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="no place for alert rules"):
        alertfile.save(tmp_path / "users.py", P99)
    with pytest.raises(SpecError, match=r"gone\.toml"):
        alertfile.save(tmp_path / "gone.toml", P99)
    broken = tmp_path / "broken.toml"
    broken.write_text("[load]\nrampp = 3\n")
    with pytest.raises(SpecError, match="rampp"):
        alertfile.save(broken, P99)
    assert broken.read_text() == "[load]\nrampp = 3\n"
    shipped = spec.shipped()["steady"]
    before = shipped.read_text()
    assert alertfile.save(shipped, P99) == tmp_path / "steady.toml"
    assert shipped.read_text() == before
    assert spec.load("steady.toml").spec.alert[0].length == 3 * SECOND
    alertfile.save(shipped, rule("errors > 2 %"))
    assert len(spec.load("steady.toml").spec.alert) == 2


def test_limits_are_written_as_scenarios_have_them() -> None:
    for found in (*BUILT_IN, *alerts.built_in(gpu=True)):
        assert alerts.parse_rule(alerts.written(found), found.for_ns) == found
    assert alerts.written(rule("gpu_temperature > 85 °C")) == "gpu_temperature > 85 °C"
