"""Writes a made-up run into a folder as a runner would, at its own pace: for looking at screens
without an engine.    python tests/benchmarks/player.py FOLDER [SPEED] [RATE] [KEY=VALUE …]"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from loadbench import runlog
from loadbench.model import End, Start, Window
from tests.storyline import Story, records


def play(folder: Path, story: Story, speed: float, ahead: int = 0) -> None:
    """One window each 1/speed seconds, everything else at once, and so many seconds too."""
    folder.mkdir(parents=True, exist_ok=True)
    snapshot = {"run": folder.name, "state": "running", "pid": os.getpid(), "control": None}
    runlog.write_snapshot(folder, snapshot)
    writer = runlog.Writer(folder)
    for record in records(story):
        if isinstance(record, End):
            writer.close(record)
            checks = [{"name": "p99", "state": "passed"}, {"name": "errors", "state": "passed"}]
            summary = {"state": record.reason, "summary": {"checks": checks}}
            runlog.write_snapshot(folder, snapshot | summary)
            return
        writer.write(record)
        if isinstance(record, Start | Window) and getattr(record, "second", 0) >= ahead:
            time.sleep(1 / speed)


if __name__ == "__main__":
    place, *rest = sys.argv[1:]
    numbers = [float(text) for text in rest if "=" not in text]
    fields = {key: json.loads(value) for key, value in (t.split("=", 1) for t in rest if "=" in t)}
    for key in ("names", "spike"):
        if key in fields:
            fields[key] = tuple(fields[key])
    if len(numbers) > 1:
        fields["rate"] = numbers[1]
    ahead = int(fields.pop("ahead", 0))
    play(Path(place), Story(**fields), numbers[0] if numbers else 1.0, ahead)
