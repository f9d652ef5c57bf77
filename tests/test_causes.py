"""Why a request was slow: every sentence where the log shows it, and none where it does not."""

from typing import Any

import pytest

from loadbench.causes import CAUSES, Around, explain, seconds, slowest, stretches
from loadbench.histogram import Histogram
from loadbench.merge import merge
from loadbench.model import Gpu, Ground, Machine, Part, Ride, Sample, Server, Window
from loadbench.report.text import summary_text
from loadbench.summary import summarise
from loadbench.units import MS, SECOND
from tests.records import start, window

ORIGIN = 50 * SECOND
START = start(origin_ns=ORIGIN, device="cuda:0", planned_ns=None)
FULL = Ride(812, "late-bind", False, 280 * MS, 32, "full")


def request(
    late: float = 0.1,
    sending: float = 0.1,
    queue: float | None = None,
    wait: float | None = None,
    compute: float | None = None,
    rest: float = 0.5,
    **fields: Any,
) -> Sample:
    """A request that ended at 2.5 s of the run, its way in ms."""
    parts = [None if part is None else round(part * MS) for part in (queue, wait, compute)]
    server = sum(part or 0 for part in parts)
    done = ORIGIN + 5 * SECOND // 2
    sent = done - server - round(rest * MS)
    begun = sent - round(sending * MS)
    times: dict[str, Any] = dict(
        zip(("queue_ns", "batch_wait_ns", "compute_ns"), parts, strict=True)
    )
    return Sample("infer", begun - round(late * MS), begun, sent, done, **times, **fields)


def around(**then: Any) -> Around:
    """Usual: 10 ms, of them 1 in the queue and 6 computing; `then` is the second it ended in."""
    queue, wait, compute = (
        Part(100, 100 * ns, Histogram.of([ns] * 100)) for ns in (MS, MS, 6 * MS)
    )
    usual = window(0, [10.0] * 100, server=Server("loadbench", queue, wait, compute))
    return Around((window(1, **then), window(2, **then)), usual, START)


SERVED = {"queue": 1.0, "wait": 0.5, "compute": 6.0, "batch": 8}
CARD = Gpu(0, "card", utilization=0.99, throttle=("power cap",), processes=((4121, None),))
FIRST = Ride(5, "idle", True)
END = ORIGIN + 5 * SECOND // 2
CASES = [
    ("first-token", request(rest=796, first=END - 6 * MS), {}, "its first token took 790 ms"),
    ("tokens", request(rest=796, first=END - 700 * MS), {}, "after the first took 700 ms"),
    ("generator-late", request(late=40, **SERVED), {}, "generator late 40.0 ms: not the server's"),
    (
        "generator-stall",
        request(late=40, **SERVED),
        {"stall_ns": 60 * MS, "stall_cause": "gc"},
        "generator late 40.0 ms: not the server's fault (Python looked for garbage, for 60.0 ms)",
    ),
    (
        "answer-unread",
        request(rest=50, **SERVED),
        {"stall_ns": 45 * MS, "stall_cause": "cpu"},
        "stood still for 45.0 ms in that second: the kernel gave the core to others",
    ),
    (
        "untold-unread",
        request(rest=50),
        {"stall_ns": 45 * MS, "stall_cause": "cpu"},
        "the target does not tell where 50.0 ms went; the load generator stood still for 45.0 ms",
    ),
    (
        "connections",
        request(late=90, held=True, **SERVED),
        {"connections": 256},
        "waited 90.0 ms for a free connection: all 256 were busy",
    ),
    ("connecting", request(sending=30, **SERVED), {}, "connecting and sending took 30.0 ms"),
    ("failed", request(rest=1000, failure="timeout"), {}, "failed as timeout after 1000 ms"),
    (
        "after-full",
        request(queue=11.6, compute=6, batch=7, ride=Ride(4, "idle", False, 12 * MS, 32, "full")),
        {},
        "arrived 0.400 ms after a full batch of 32 closed, and waited 11.6 ms for it",
    ),
    (
        "slow-before",
        request(queue=279.6, compute=20, batch=7, ride=FULL),
        {},
        "arrived 0.400 ms after a batch of 32 closed, and waited 280 ms for it: 6.00 ms is usual",
    ),
    (
        "after-batch",
        request(queue=11, compute=6, batch=3, ride=Ride(4, "idle", False, 12 * MS, 4, "idle")),
        {},
        "arrived 1.00 ms after a batch of 4 closed (instance was idle), and waited 11.0 ms",
    ),
    (
        "behind-cold",
        request(queue=200, compute=6, ride=Ride(4, "idle", False, 201 * MS, 4, "idle", True)),
        {},
        "waited 200 ms for a cold shape: the batch before it was the first of its kind",
    ),
    (
        "backlog",
        request(queue=300, compute=20, batch=32, ride=FULL),
        {},
        "waited 300 ms behind others",
    ),
    ("queue", request(queue=300, compute=6), {}, "waited 300 ms in the server's queue"),
    (
        "held-back",
        request(wait=30, compute=6, batch=3, ride=Ride(4, "deadline")),
        {},
        "held back 30.0 ms: rode in a batch of 3 (deadline near)",
    ),
    ("batch-wait", request(wait=30, compute=6), {}, "held back 30.0 ms for a batch"),
    (
        "cold",
        request(compute=212, batch=17, ride=FIRST),
        {},
        "its batch ran a cold shape: 212 ms, the first of its kind (6.00 ms is usual)",
    ),
    (
        "throttled",
        request(compute=40, batch=8),
        {"machine": Machine(gpus=(CARD,))},
        "computed 40.0 ms while the GPU was throttled (power cap)",
    ),
    (
        "shared-gpu",
        request(compute=40, batch=8),
        {"server": Server("loadbench", grounds=(Ground("cuda:0", 8, "", others=(77,)),))},
        "computed 40.0 ms while others used the GPU (pid 77)",
    ),
    ("slow-compute", request(compute=40, batch=8), {}, "its batch of 8 computed 40.0 ms; 6.00 ms"),
    ("compute", request(compute=11.9, rest=3, batch=32), {}, "its batch of 32 computed 11.9 ms"),
    (
        "busy-machine",
        request(rest=40, **SERVED),
        {"machine": Machine(cpu=0.99)},
        "40.0 ms passed outside of queue, batch and compute: CPU 99 % busy",
    ),
    (
        "busy-untold",
        request(compute=6, rest=40),
        {"machine": Machine(cpu=0.99)},
        "the target does not tell where 40.0 ms went; the CPU here was 99 % busy",
    ),
    ("outside", request(rest=40, **SERVED), {}, "nothing explains 40.0 ms outside of queue"),
    ("server", request(compute=40), {}, "the server took 40.0 ms for it, by its own account"),
    (
        "server-part",
        request(compute=40, parts={"db": 30 * MS, "model": 10 * MS}),
        {},
        "most of it db, 30.0 ms",
    ),
    ("untold", request(rest=40), {}, "the target does not tell where 40.0 ms went"),
    ("usual", request(rest=2, **SERVED), {}, "nothing stands out: it took 9.70 ms, half of all"),
]


@pytest.mark.parametrize(("code", "sample", "then", "text"), CASES, ids=[case[0] for case in CASES])
def test_each_cause_where_the_log_shows_it(
    code: str, sample: Sample, then: dict[str, Any], text: str
) -> None:
    found = explain(sample, around(**then))
    assert (found.code, text in found.text) == (code, True), found


def test_there_is_a_case_for_each_of_the_list() -> None:
    assert {case[0] for case in CASES} == set(CAUSES)


def test_where_nothing_is_known_nothing_is_claimed() -> None:
    found = explain(request(rest=40), Around())
    assert found.code == "untold"
    assert explain(request(late=0, sending=0, rest=0), Around()).code == "untold"


def test_a_standstill_elsewhere_is_no_excuse() -> None:
    """The server's queue is its own, and a standstill shorter than half of the delay is too."""
    stalled = around(stall_ns=60 * MS, stall_cause="gc")
    assert explain(request(queue=300, compute=6), stalled).code == "queue"
    assert explain(request(late=200, **SERVED), stalled).code == "generator-late"


def test_the_stretches_are_the_whole_way() -> None:
    sample = request(late=2, queue=5, wait=3, compute=6, rest=1)
    found = dict(stretches(sample))
    assert sum(found.values()) == sample.done - sample.due
    assert found == {
        "late": 2 * MS, "sending": MS // 10, "queue": 5 * MS, "batch wait": 3 * MS,
        "compute": 6 * MS, "network": MS,
    }  # fmt: skip
    lying = Sample("infer", 0, 0, 0, MS, "", 5 * MS, None, 9 * MS)  # more than there was
    assert dict(stretches(lying)) == {"queue": MS}
    assert "held" in dict(stretches(request(late=2, held=True)))


def test_of_a_server_that_tells_nothing_nothing_is_called_network() -> None:
    plain = request(sending=0.4, rest=796)
    assert dict(stretches(plain))["answer"] == 796 * MS
    assert "network" not in dict(stretches(plain))
    streamed = request(sending=0.4, rest=796, first=END - 700 * MS)
    found = dict(stretches(streamed))
    assert (found["first token"], found["the others"]) == (96 * MS, 700 * MS)
    assert sum(found.values()) == streamed.done - streamed.due
    told = request(queue=1, compute=6, rest=796)
    assert "network" in dict(stretches(told))
    streamed = request(queue=1, compute=6, rest=796, first=ORIGIN)
    assert "network and stream" in dict(stretches(streamed))


def test_of_a_server_that_tells_no_queue_the_rest_is_not_called_network() -> None:
    """Its requests may have waited for a batch of it."""
    found = request(compute=6, rest=796)
    assert dict(stretches(found))["untold"] == 796 * MS
    assert explain(found, around()).text.startswith("the target does not tell where 796 ms went")


def test_all_seconds_of_its_way_are_looked_at() -> None:
    assert list(seconds(request(rest=1700), START))[-2:] == [1, 2]
    assert 0 in seconds(request(rest=1700), START)
    assert len(seconds(request(rest=3_600_000), START)) < 100
    assert not seconds(request(), start())  # the log does not tell when the run began


def test_a_run_names_its_slowest_and_why() -> None:
    slow = request(queue=279.6, compute=20, batch=7, ride=FULL)
    late = request(late=40, **SERVED)
    windows = [window(s, [10.0] * 200, slowest=(slow, late) if s == 2 else ()) for s in range(4)]
    found = list(slowest(windows, merge(windows), START, 3))
    assert [cause.code for _, cause in found] == ["after-full", "generator-late"]
    summary = summarise([START, *windows])
    assert summary is not None
    first = summary.slowest[0]
    assert (first["second"], first["cause"]) == (2, "after-full")
    assert first["batch"] == {"rows": 7, "number": 812, "closed": "late-bind"}
    assert first["parts_ms"]["queue"] == 279.6
    text = summary_text(summary)
    assert "SLOWEST   300 ms at 00:02, infer: arrived 0.400 ms after a full batch" in text
    assert "            47.7 ms at 00:02" in text or "generator late 40.0 ms" in text


def test_windows_without_any_have_none() -> None:
    assert list(slowest([], Window(0, "load"), START, 3)) == []
