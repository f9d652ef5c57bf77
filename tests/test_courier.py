"""Alerts that are sent out: a real receiver, real commands, and everything that can go wrong."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loadbench import alerts, runlog, spec
from loadbench.alertspec import AlertsSpec
from loadbench.errors import SpecError
from loadbench.model import AlertChange, Note, Remark
from loadbench.runner.courier import LOG, Courier, message
from loadbench.units import SECOND
from tests.receiver import receiver, until
from tests.records import start
from tests.running import loadbench, scenario

P99 = alerts.parse_rule("p99 > 100 ms", 5 * SECOND)
FIRING = AlertChange(
    151, "p99", "firing", 184.0, 146, 184.0, "200/s asked, 150/s done", 100.0,
    ("Queue wait makes up 71 %.", "Likely: overload.", "Try: less."),
)  # fmt: skip
SENT = message(start(), P99, FIRING)


def courier(folder: Path, **fields: Any) -> tuple[Courier, list[Note]]:
    notes: list[Note] = []
    return Courier(spec.checked(AlertsSpec, fields, "test"), folder, notes.append), notes


def test_a_message_says_what_happened_and_why() -> None:
    assert SENT["text"].split("\n") == [
        "loadbench 0001-steady-mlp: ▲ p99 latency > 100 ms for 5 s"
        " (184 ms; 200/s asked, 150/s done)",
        "Queue wait makes up 71 %.",
        "Likely: overload.",
        "Try: less.",
    ]
    assert (SENT["rule"], SENT["state"], SENT["value"], SENT["limit"], SENT["unit"]) == (
        "p99", "firing", 184.0, 100.0, "ms",
    )  # fmt: skip
    ended = message(start(), P99, AlertChange(180, "p99", "ok", 44.0, 146, 184.0, limit=100.0))
    assert ended["state"] == "ended"
    assert ended["text"] == "loadbench 0001-steady-mlp: ✓ p99 latency back under 100 ms"


def test_a_webhook_gets_the_message_and_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "s3cret")
    monkeypatch.setenv("HOOK_PATH", "T0/B0")
    with receiver() as hook:
        sender, notes = courier(tmp_path, webhook=f"{hook.url}/$HOOK_PATH", token="$HOOK_TOKEN")
        sender.send(SENT)
        sender.close()
    (came,) = hook.came
    assert (came.path, came.token) == ("/T0/B0", "Bearer s3cret")
    assert came.body == SENT
    assert notes == []


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_is_not_taken_is_a_note_without_the_address(tmp_path: Path, status: int) -> None:
    with receiver() as other, receiver(status, to=other.url) as hook:
        sender, notes = courier(tmp_path, webhook=f"{hook.url}/secret-path")
        for _ in range(3):
            sender.send(SENT)
        sender.close()
    assert len(hook.came) == 3
    assert other.came == []  # a redirection is not followed: the token was for this host
    (note,) = notes  # not one for each
    assert note.code == "alert-not-sent"
    assert note.text.endswith(f"the webhook at 127.0.0.1: it answered {status}")


def test_nobody_listens(tmp_path: Path) -> None:
    sender, notes = courier(tmp_path, webhook="http://127.0.0.1:9/hook")
    sender.send(SENT)
    sender.close()
    assert [note.text.rpartition(": ")[2] for note in notes] == ["connection refused"]


def test_a_receiver_that_hangs_costs_the_run_no_time_and_is_told(tmp_path: Path) -> None:
    with receiver(wait_s=60.0) as hook:
        sender, notes = courier(tmp_path, webhook=hook.url, timeout="200 ms")
        began = time.monotonic()
        for _ in range(200):  # more than wait
            sender.send(SENT)
        assert time.monotonic() - began < 5  # not 200 times its timeout
        until(lambda: hook.came and len(notes) >= 2)
        sender.close()
    told = " ".join(note.text for note in notes)
    assert "timed out" in told or "no answer within" in told
    assert "its queue is full: messages were dropped" in told


def test_a_command_gets_the_message_on_its_stdin_and_in_its_environment(tmp_path: Path) -> None:
    code = (
        "import json, os, sys; found = json.load(sys.stdin);"
        "found['env'] = os.environ['LOADBENCH_STATE'], os.environ['LOADBENCH_TEXT'];"
        "json.dump(found, open('out.json', 'w')); print('told')"
    )
    path = f"import os; os.chdir({str(tmp_path)!r}); {code}"
    sender, notes = courier(tmp_path, command=[sys.executable, "-c", path])
    sender.send(SENT)
    sender.close()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found.pop("env") == ["firing", SENT["text"]]
    assert found == SENT
    assert (tmp_path / LOG).read_text() == "told\n"
    assert notes == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nowhere/to-be-found"], "'to-be-found': no such file"),
        ([sys.executable, "-c", "import sys; sys.exit(7)"], "it ended with 7: see alerts.log"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "it did not end within 1 s"),
    ],
)
def test_a_command_that_fails_is_a_note(tmp_path: Path, command: list[str], words: str) -> None:
    sender, notes = courier(tmp_path, command=command, timeout="1 s")
    sender.send(SENT)
    sender.close()
    (note,) = notes
    assert words in note.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"webhook": "ftp://host/x"}, "not the address of a webhook"),
        ({"webhook": "https://me:pass@host/x"}, "holds no password"),
        ({"token": "s3cret"}, "never written into a scenario"),
        ({"command": [""]}, "not a command"),
        ({"timeout": "1h"}, "no time to wait"),
        ({"hook": "x"}, "unknown key"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec.checked(AlertsSpec, fields, "own.toml")


ALERTING = """
[[alert]]
when = "p99 > 1 ms"
for = "1s"
[alerts]
"""


def test_what_needs_trust_is_not_done_without_it(tmp_path: Path) -> None:
    for line, words in (
        ('command = ["touch", "been-here"]', "runs a command: touch been-here"),
        ('webhook = "http://127.0.0.1:9/$HOME"', "sends a value of your environment"),
    ):
        path = scenario(tmp_path, tables=f"{ALERTING}{line}")
        done = loadbench("run", path, cwd=tmp_path, code=2)
        assert words in done.stderr
        assert "--trust" in done.stderr
    path = scenario(tmp_path, tables=f'{ALERTING}webhook = "http://h/"\ntoken = "$NOT_SET_HERE"')
    done = loadbench("run", path, "--trust", cwd=tmp_path, code=2)
    assert "NOT_SET_HERE is not set" in done.stderr
    assert not (tmp_path / "been-here").exists()
    assert not (tmp_path / "results").exists()


def test_a_headless_run_sends_its_alerts_and_keeps_the_token_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "s3cret-token")
    command = json.dumps([sys.executable, "-c", "import sys; sys.exit(3)"])
    with receiver() as hook:
        sent = f'webhook = "{hook.url}/alerts"\ntoken = "$HOOK_TOKEN"\ncommand = {command}'
        path = scenario(tmp_path, fake='a = "20 ms"', tables=ALERTING + sent, s=4)
        done = loadbench("run", path, "--trust", cwd=tmp_path)
    states = [(came.body["rule"], came.body["state"]) for came in hook.came]
    assert ("p99", "firing") in states
    came = next(came for came in hook.came if came.body["rule"] == "p99")
    assert came.token == "Bearer s3cret-token"
    assert came.body["verdict"][0].startswith(("p99 latency: up to", "p99 latency: among"))
    assert came.body["verdict"][-1].startswith("Try: ")
    (folder,) = runlog.runs(tmp_path / "results")
    remarks = [found.note for found in runlog.read(folder) if isinstance(found, Remark)]
    assert "it ended with 3" in next(n.text for n in remarks if n.code == "alert-not-sent")
    for file in folder.iterdir():
        assert b"s3cret" not in file.read_bytes()
    assert "alert p99 latency > 1 ms" in done.stdout
    assert "Try: " in done.stdout
