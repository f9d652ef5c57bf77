"""Runs of people's Locust files for tests: code → plan, and what came of it."""

import textwrap
from pathlib import Path
from typing import Any

from loadbench.plan import Journey, Plan, Started
from loadbench.shape import Phase
from loadbench.units import SECOND
from tests.lanes import Done, Process, plan

HEAD = """
import time, gevent, locust
from locust import *
from locust.exception import StopUser
"""
TAGGED = """
class Visitor(FastHttpUser):
    wait_time = between(0.01, 0.02)
    @tag("a")
    @task
    def one(self):
        self.client.get("/one")
    @tag("b", "c")
    @task
    def two(self):
        self.client.get("/two")
    @task
    def three(self):
        self.client.get("/three")
class Other(HttpUser):
    @task
    def four(self):
        self.client.get("/four")
"""


def journey(folder: Path, port: int, code: str, seconds: float = 0.6, **changed: Any) -> Plan:
    """A plan that runs `code`; fields of the plan and of its journey may be changed."""
    file = folder / "people.py"
    file.write_text(HEAD + textwrap.dedent(code))
    fields = {"file": str(file), "host": f"http://127.0.0.1:{port}", "users": 4}
    own = {key: changed.pop(key) for key in list(changed) if key in Journey.__struct_fields__}
    phases = (Phase(0, 0, round(seconds * SECOND)),) if seconds else ()
    return plan(
        port, arrivals="journey", phases=phases, journey=Journey(**{**fields, **own}), **changed
    )


def nothing(load: Process, started: Started) -> None:
    """Nothing is done to the run."""


def notes(found: Done) -> dict[str, str]:
    return {note.code: note.text for note in (*found.started.notes, *found.finished.notes)}


def by_name(found: Done) -> dict[str, tuple[int, dict[str, int]]]:
    """Done and failed of each request name."""
    total: dict[str, tuple[int, dict[str, int]]] = {}
    for window in found.recorded:
        for name, part in window.requests.items():
            done, failed = total.get(name, (0, {}))
            for failure, number in part.failed.items():
                failed[failure] = failed.get(failure, 0) + number
            total[name] = (done + part.done, failed)
    return total
