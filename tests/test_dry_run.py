"""`loadbench run --dry-run`: one request of each kind, its answer shown, nothing kept."""

import json
from pathlib import Path

from tests.running import loadbench, scenario


def test_the_answer_and_the_servers_own_times_are_shown(tmp_path: Path) -> None:
    own = scenario(tmp_path, 'a = "20 ms"')
    done = loadbench("run", own, "--dry-run", cwd=tmp_path)
    assert "dry run against local:fake · cpu" in done.stdout
    assert "POST /v2/models/fake/infer" in done.stdout
    assert "y FP32 [1, 16]: " in done.stdout
    assert "✓ as it should be" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"own.toml"}  # no run, no results
    [tried] = json.loads(loadbench("run", own, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert tried["status"] == 200
    assert tried["fault"] == ""
    assert tried["took_ms"] >= tried["parts"]["compute"] >= 20


def test_each_kind_of_request_is_sent_once(tmp_path: Path) -> None:
    kinds = '[[request]]\nname = "one"\n[[request]]\nname = "four"\nrows = 4\n'
    own = scenario(tmp_path, tables=kinds)
    found = json.loads(loadbench("run", own, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert [(tried["request"], tried["shown"][0][:16]) for tried in found] == [
        ("one", "y FP32 [1, 16]: "),
        ("four", "y FP32 [4, 16]: "),
    ]


def test_a_wrong_answer_is_named_and_ends_with_1(tmp_path: Path) -> None:
    own = scenario(tmp_path, 'a = "2 ms", wrong = "100 %"')
    done = loadbench("run", own, "--dry-run", cwd=tmp_path, code=1)
    assert "✗ bad_answer: y says 64 bytes, 60 are there" in done.stdout


def test_what_cannot_be_tried_says_why(tmp_path: Path) -> None:
    own = scenario(tmp_path)
    down = loadbench(
        "run", own, "--dry-run", "--target", "http://127.0.0.1:9", cwd=tmp_path, code=3
    )
    assert "is the server up" in down.stderr
    users = tmp_path / "users.py"
    users.write_text("raise SystemExit('this must not be run')\n")
    journey = loadbench("run", users, "--dry-run", cwd=tmp_path, code=2)
    assert "users.py is a Locust file" in journey.stderr or "users is a Locust" in journey.stderr
    own.write_text(own.read_text().replace("[engine]", '[engine]\npreprocess = "own:code"'))
    code = loadbench("run", own, "--dry-run", cwd=tmp_path, code=2)
    assert "read it, then allow that with --trust" in code.stderr
