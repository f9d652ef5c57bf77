"""The verdict in words: each cause from figures that have it, and none from figures that do not."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from loadbench import alerts
from loadbench.diagnoses import diagnoses
from loadbench.failing import AWAY
from loadbench.histogram import EMPTY, Histogram
from loadbench.merge import merge
from loadbench.model import (
    AlertChange,
    BatchSize,
    Gpu,
    Machine,
    Mark,
    Part,
    Process,
    Rule,
    Server,
    Window,
)
from loadbench.runner.verdicts import Verdicts
from loadbench.situation import Changed, Situation, Stretch, stretches
from loadbench.units import MS, SECOND
from loadbench.words import Verdict, explain
from tests.records import window

P99 = alerts.parse_rule("p99 > 100 ms", 5 * SECOND)
GB = 10**9


def part(ms: float, count: int = 100) -> Part:
    return Part(count, round(ms * count * MS))


def server(queue: float = 0.4, compute: float = 6.4, size: int = 16, **fields: Any) -> Server:
    """A second of an engine: mean ms in queue and compute, its batches of one size."""
    sizes = {size: BatchSize(batches=10, requests=10 * size, compute_ns=10 * 6 * MS)}
    given: dict[str, Any] = {
        "queue": part(queue), "batch_wait": part(0.1), "compute": part(compute), "sizes": sizes,
        "batches": 10, "rows": 10 * size, "instances": 1, "busy_ns": int(0.6 * SECOND),
        "max_batch": 32, "waiting": 0, "closed": {"late-bind": {size: 10}}, **fields,
    }  # fmt: skip
    return Server(source="loadbench", **given)


MLSERVER = Server("metrics of MLServer", compute=part(20.9), requests=100)


def card(utilization: float = 0.88, **fields: Any) -> Machine:
    gpu = Gpu(0, "H200", utilization=utilization, memory_used=31 * GB, memory_total=141 * GB)
    return Machine(cpu=0.5, gpus=(replace(gpu, **fields),))


def calm(latency_ms: float = 8.0, **fields: Any) -> Window:
    given = {"server": server(), "machine": card(), **fields}
    return window(0, [latency_ms] * 100, **given)


def look(now: Window, quantity: str = "p99", **fields: Any) -> Situation:
    return Situation(now, 1, quantity, "cuda:0", **fields)


def late(ms: float) -> Histogram:
    return Histogram.of([round(ms * MS)] * 100)


LOW = card(0.12)
BUSY = {"busy_ns": int(0.95 * SECOND)}
CASES = {
    "generator late": (calm(lateness=late(12)), "p99", "generator-late",
                       "12.0 ms late (p99): not the target's fault. Nothing that is measured",
                       "what else this machine did"),
    "generator late, of others": (
        calm(lateness=late(12), machine=Machine(cpu=1.0, processes={"load": Process(0.04, 1)})),
        "lateness", "generator-late", "12.0 ms late (p99): not the target's fault.", "stop them"),
    "generator late, of the engine": (
        calm(lateness=late(12), machine=Machine(cpu=1.0, processes={"engine": Process(1.9, 1)})),
        "p99", "generator-late", "12.0 ms late (p99)", "engine.threads"),
    "generator late, its core full": (
        calm(cpu_ns=int(0.97 * SECOND), lateness=late(12)), "p99", "generator-late",
        "is 12.0 ms late (p99) and uses 97 % of a core: not the target's fault.", "--workers"),
    "generator full": (calm(cpu_ns=int(0.97 * SECOND)), "p99", "generator-full",
                       "The load generator uses 97 % of a core.", "--workers"),
    "generator stood": (calm(stall_ns=400 * MS, stall_cause="gc"), "p99", "generator-late",
                        "stood still for 400 ms", "keep fewer objects"),
    "worker killed": (calm(unsent=25, lost=3), "p99", "unsent", "28 of 100 asked were not sent",
                      "load.log"),
    "worker killed, so errors": (calm(unsent=28), "errors", "unsent", "has not failed these",
                                 "which one"),
    "another process": (calm(machine=card(processes=((4121, 2 * GB),))), "p99", "other-process",
                        "pid 4121, 2.0 GB", "stop it"),
    "throttled": (calm(machine=card(throttle=("power cap",))), "p99", "throttled", "power cap",
                  "cool it"),
    "CPU full": (calm(machine=Machine(cpu=0.98, processes={"engine": Process(1.7, 1)})), "p99",
                 "cpu", "98 % busy: engine 170 % of a core", "engine.threads"),
    "CPU taken": (calm(machine=Machine(cpu=0.98, processes={"engine": Process(0.2, 1)})), "p99",
                  "cpu", "98 % busy: engine 20 % of a core", "stop them"),
    "card full": (calm(machine=card(memory_used=138 * GB)), "p99", "memory", "138 of 141 GB",
                  "max_batch"),
    "card filling": (calm(machine=card(memory_used=115 * GB)), "gpu_memory", "memory",
                     "115 of 141 GB", "max_batch"),
    "host full": (calm(machine=Machine(memory_used=31 * GB, memory_total=32 * GB)), "memory",
                  "memory", "31 of 32 GB", "smaller model"),
    "one kind of error": (window(0, [5.0] * 60, {"http_503": 38, "reset": 2}), "errors", "errors",
                          "40 % fail, 95 % of them by http_503 (38)", "ask for less"),
    "calls that are refused": (window(0, [5.0] * 60, {"grpc_RESOURCE_EXHAUSTED": 40}), "errors",
                               "errors", "all by grpc_RESOURCE_EXHAUSTED (40)", "ask for less"),
    "a key that is refused": (window(0, [5.0] * 60, {"http_401": 40}), "errors", "errors",
                              "all by http_401 (40)", "target.headers"),
    "forgotten memory": (window(0, [5.0] * 60, {"refused": 15, "no_region": 25}), "errors",
                         "errors", "40 % fail: refused 15, no_region 25.", "registers it again"),
    "forgotten memory, the least of it": (
        window(0, [5.0] * 10, {"http_503": 80, "no_region": 10}), "errors", "errors",
        "90 % fail, 89 % of them by http_503 (80).", "ask for less"),
    "forgotten memory, and more": (
        window(0, [5.0] * 60, {"http_500": 16, "no_region": 14, "reset": 10}), "errors", "errors",
        "in several ways: http_500 16, no_region 14, reset 10", "read its log"),
    "forgotten memory, for a restart that took long": (
        window(0, [5.0] * 10, {"refused": 80, "no_region": 10}), "errors", "errors",
        "90 % fail: refused 80, no_region 10.", "read its log: why it ended"),
    "kinds of errors": (window(0, [5.0] * 60, {"http_500": 20, "reset": 20}), "errors", "errors",
                        "in several ways: http_500 20, reset 20", "read its log"),
    "small batches": (calm(80.0, server=server(70.0, size=4, closed={"deadline": {4: 10}})), "p99",
                      "small-batches", "4.00 of 32 rows though requests wait", "engine.slo"),
    "overload": (replace(calm(80.0, server=server(70.0, **BUSY)), asked=160, in_flight=61), "p99",
                 "overload", "160/s are asked, 100/s get done, 61 are open", "ask for less"),
    "outside": (calm(40.0), "p99", "outside",
                "33.1 of a request's 40.0 ms pass outside the server.", "smaller bodies"),
    "untold": (calm(78.9, server=MLSERVER), "p99", "outside",
               "The server does not tell where 58.0 of a request's 78.9 ms went.", "ask for less"),
    "hangs": (window(0, asked=100, in_flight=300, oldest_ns=4 * SECOND), "p99", "standstill",
              "300 requests are open, the oldest for 4 s", "alive"),
    "silence": (calm(), "silence", "silent", "told nothing", "load.log"),
    "no more is asked": (calm(), "throughput", "as-asked", "100/s are asked, and 100/s get done",
                         "another rate"),
    "nothing": (calm(), "p99", "nothing", "Nothing else", "log of the target"),
    # what a GPU that is hardly used means
    "little asked": (calm(machine=LOW, server=server(busy_ns=SECOND // 10)), "gpu_utilization",
                     "idle-gpu", "the engine 10 %; all of the 100/s", "higher rate"),
    "starved": (calm(machine=LOW, server=server(busy_ns=SECOND // 10), cpu_ns=SECOND),
                "gpu_utilization", "idle-gpu", "the engine 10 %", "--workers"),
    "starved by what is late": (
        calm(machine=LOW, server=server(busy_ns=SECOND // 10), lateness=late(30)),
        "gpu_utilization", "idle-gpu", "the engine 10 %", "what else this machine did"),
    "few users": (calm(machine=LOW, server=server(busy_ns=SECOND // 10), rate=None, in_flight=4),
                  "gpu_utilization", "idle-gpu", "only 4 requests are open", "load.concurrency"),
    "CPU-bound preprocessing": (
        calm(machine=LOW, server=server(
            parts={"preprocess image": part(5.0), "model": part(2.0)}, **BUSY)),
        "gpu_utilization", "idle-gpu", "preprocessing takes 71 %", "engine.instances"),
    "tiny batches": (calm(machine=LOW, server=server(size=2, **BUSY)), "gpu_utilization",
                     "idle-gpu", "batches have 2.00 of 32 rows", "engine.graphs"),
    "host paces": (calm(machine=LOW, server=server(**BUSY)), "gpu_utilization", "idle-gpu",
                   "GPU 0 is busy 12 % of the time.", "engine.graphs"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_cause_is_told_with_its_numbers_and_what_to_try(name: str) -> None:
    now, quantity, code, text, hint = CASES[name]
    found = diagnoses(look(now, quantity))[0]
    assert found.code == code
    assert text in found.text
    assert hint in found.hint


def test_an_outage_is_no_want_of_memory() -> None:
    """Of a card that is filled once and for all, as servers of language models do, nor where the
    server has forgotten the memory that was shared with it as it came back."""
    full = card(memory_used=135 * GB)
    for failed in ({"refused": 40}, {"refused": 30, "no_region": 10}, {"http_503": 40}):
        now = window(0, [5.0] * 60, failed, machine=full)
        for quantity in ("p99", "errors", "throughput"):
            found = diagnoses(look(now, quantity))
            assert found[0].code == "errors"
            assert "memory" not in found[0].guess
    assert diagnoses(look(calm(machine=full)))[0].code == "memory"


@pytest.mark.parametrize("mark", [".", "?", "!", "…"])
def test_a_sentence_ends_in_one_mark(mark: str) -> None:
    verdict = Verdict((), f"a guess{mark}", f"a hint{mark}", "nothing")
    assert verdict.lines == (f"Likely: a guess{mark}", f"Try: a hint{mark}")
    done = Changed(Mark(0, f"a change{mark}"), during=False)
    assert diagnoses(look(calm(), changed=done))[0].text.endswith(f" a change{mark}")
    assert Verdict((), "a", "b", "").lines == ("Likely: a.", "Try: b.")


def test_a_generator_that_gets_no_core_is_not_said_to_need_more_processes() -> None:
    taken = Machine(cpu=1.0, processes={"load": Process(0.04, 1)})
    found = explain(look(calm(lateness=late(12), machine=taken), "lateness"), P99)
    assert found.likely == "other programs take this machine's cores"
    assert "--workers" not in " ".join(found.lines)
    assert explain(look(calm(lateness=late(12))), P99).likely == ""


def test_throughput_is_bound_by_the_load_only_where_all_of_it_gets_done() -> None:
    for now in (replace(calm(), asked=160), replace(calm(), rate=None)):  # slow; users wait
        assert "as-asked" not in [found.code for found in diagnoses(look(now, "throughput"))]
    assert "as-asked" not in [found.code for found in diagnoses(look(calm()))]


def test_compute_that_got_slower_is_told_only_for_batches_of_the_same_size() -> None:
    now = calm(30.0, server=server(compute=22.0))
    found = diagnoses(look(now, before=calm()))
    assert [finding.code for finding in found] == ["slower"]
    assert "Compute takes 22.0 ms; before it took 6.40 ms for batches of 16.0 rows" in found[0].text
    larger = calm(30.0, server=server(compute=22.0, size=32))
    assert [finding.code for finding in diagnoses(look(larger, before=calm()))] == ["nothing"]


def test_what_spoils_the_measurement_comes_first_and_what_the_alert_is_about_before_it() -> None:
    now = replace(calm(lateness=late(12)), machine=card(memory_used=140 * GB))
    assert [found.code for found in diagnoses(look(now))] == ["generator-late", "memory"]
    failing = window(0, [5.0] * 90, {"http_500": 30}, lateness=late(12), machine=now.machine)
    about = [found.code for found in diagnoses(look(failing, "errors"))]
    assert about == ["errors", "generator-late", "memory"]


def test_the_verdict_says_what_is_measured_first_and_guesses_last() -> None:
    slow = calm(80.0, server=server(70.0, **BUSY), machine=card(processes=((4121, None),)))
    change = AlertChange(171, "p99", "firing", 184.0, 150, 184.0)
    found = explain(look(replace(slow, asked=160), before=calm()), P99, change)
    assert found.lines == (
        "p99 latency: up to 184 ms (limit 100 ms) for the last 22 s.",
        "Queue wait makes up 88 % of the mean request; compute is unchanged (6.40 ms).",
        "Another process is on cuda:0 (pid 4121).",
        "160/s are asked, 100/s get done, 0 are open; the engine is busy 95 % of the time.",
        "Likely: another process is using the GPU.",
        "Try: stop it, or measure on a card of your own.",
    )


def test_a_hint_that_asks_ends_so() -> None:
    assert Verdict((), *AWAY, "errors").lines[-1] == "Try: is it up, and is this its port?"
    assert Verdict((), "", "read its log", "errors").lines == ("Try: read its log.",)


def test_of_a_long_episode_it_is_said_which_seconds_the_cause_is_of() -> None:
    for state, second, told in (
        ("firing", 309, "for the last 2m 40s; what follows is of 04:40-05:10."),
        ("ok", 324, "for 2m 54s; what follows is of 04:40-05:10."),  # clean for 10 s and 5 s
        ("firing", 179, "for the last 30 s."),
    ):
        change = AlertChange(second, "p99", state, 184.0, 150, 184.0)  # type: ignore[arg-type]
        assert explain(look(calm(80.0)), P99, change).said[0].endswith(told)


def test_a_percentile_among_the_failed_has_no_time_that_it_came_up_to() -> None:
    fires = AlertChange(171, "p99", "firing", None, 150)
    found = explain(look(window(0, [80.0] * 90, {"http_500": 10})), P99, fires)
    assert found.said[0] == "p99 latency: among the failed (limit 100 ms) for the last 22 s."
    hangs = explain(look(calm(80.0, in_flight=30)), P99, fires)  # for longer than the limit
    assert "among those still unanswered (limit 100 ms)" in hangs.said[0]


def test_a_generator_a_little_late_is_not_what_makes_a_slow_target_slow() -> None:
    slow = calm(400.0, lateness=late(12), server=server(380.0, **BUSY))
    assert diagnoses(look(slow))[0].code == "overload"
    assert diagnoses(look(slow, "lateness"))[0].code == "generator-late"


def test_a_full_generator_that_is_on_time_is_no_excuse_for_the_target() -> None:
    busy = calm(80.0, server=server(70.0, **BUSY), cpu_ns=int(0.91 * SECOND))
    found = diagnoses(look(replace(busy, asked=160)))
    assert [finding.code for finding in found] == ["overload", "generator-full"]
    assert "not the target's fault" not in " ".join(finding.text for finding in found)


def test_a_full_generator_of_a_closed_loop_is_never_known_to_be_on_time() -> None:
    full = calm(80.0, server=server(70.0, **BUSY), cpu_ns=int(0.97 * SECOND), rate=None)
    found = diagnoses(look(full))
    assert found[0].code == "generator-late"
    assert found[0].text == ("The load generator uses 97 % of a core: not the target's fault.")
    assert "generator-full" not in [finding.code for finding in found]
    trace = diagnoses(look(replace(full, lateness=late(0.1))))  # due, without a rate
    assert "generator-late" not in [finding.code for finding in trace]


def test_where_nothing_stands_out_there_is_no_guess() -> None:
    found = explain(look(calm()), P99)
    assert found.likely == ""
    assert not any(line.startswith("Likely") for line in found.lines)


def test_a_target_that_tells_nothing_is_judged_from_outside() -> None:
    plain = window(0, [80.0] * 100)
    found = explain(Situation(plain, 1, "p99"), P99, AlertChange(9, "p99", "ok", 4.0, 2, 90.0))
    assert found.said[0] == "p99 latency: up to 90.0 ms (limit 100 ms) for 7 s."
    assert "This target does not tell what it does" in found.said[-1]


def test_of_a_server_without_a_queue_nothing_is_said_to_pass_outside_it() -> None:
    found = explain(look(calm(78.9, server=MLSERVER)), P99)
    text = " ".join(found.lines)
    assert "What the server does not tell makes up 74 % of the mean request" in text
    assert "outside" not in text
    assert "network" not in text
    assert "host" not in text
    told = explain(look(calm(78.9, server=replace(MLSERVER, queue=part(0.4)))), P99)
    assert "Outside the server makes up 73 % of the mean request" in told.said[0]


def codes(now: Window, quantity: str, **fields: Any) -> list[str]:
    return [found.code for found in diagnoses(look(now, quantity, **fields))]


def test_a_late_generator_is_never_said_to_be_the_targets_fault() -> None:
    rule = alerts.parse_rule("lateness > 5 ms", 5 * SECOND)
    busy = replace(calm(80.0, server=server(70.0, **BUSY)), asked=160, in_flight=1024)
    full = replace(busy, machine=card(memory_used=140 * GB))
    failing = window(0, [5.0] * 90, {"http_500": 30}, server=server(70.0, **BUSY))
    for now in (busy, full, failing):
        for lateness in (EMPTY, late(0.1), late(12)):  # cannot be told, over, goes on
            found = explain(look(replace(now, lateness=lateness), "lateness"), rule)
            assert found.code == ("generator-late" if lateness == late(12) else "nothing")
            assert found.likely == ""
            assert "target" not in " ".join(found.lines).replace("not the target's fault", "")
    assert "cannot be told" in explain(look(busy, "lateness"), rule).said[-1]


def test_what_cannot_be_behind_a_quantity_is_no_cause_of_it() -> None:
    failing = replace(window(0, [5.0] * 60, {"http_500": 40}, lateness=late(30)), unsent=9)
    assert codes(failing, "errors") == ["unsent", "errors", "generator-late"]
    assert codes(failing, "lateness") == ["generator-late", "unsent"]
    assert codes(failing, "queue_growth") == ["generator-late"]
    assert codes(failing, "memory") == ["nothing"]
    assert codes(calm(unsent=28), "gpu_temperature") == ["nothing"]


def test_other_programs_are_not_the_cause_where_compute_did_not_get_slower() -> None:
    taken = Machine(cpu=0.98, processes={"engine": Process(0.2, 1)})
    slow = replace(calm(80.0, server=server(70.0, 7.55, **BUSY), machine=taken), asked=160)
    assert codes(slow, "p99", before=calm(server=server(compute=11.1))) == ["overload"]
    assert codes(slow, "p99") == ["overload"]
    assert codes(slow, "p99", before=calm(server=server(compute=4.0)))[0] == "cpu"
    assert codes(slow, "cpu", before=calm(server=server(compute=11.1)))[0] == "cpu"


def test_which_seconds_are_looked_at() -> None:
    fires = AlertChange(171, "p99", "firing", 184.0, 150, 184.0)
    assert stretches(fires, P99) == (Stretch(150, 172), Stretch(117, 147))
    long = replace(fires, second=400)
    assert stretches(long, P99)[0] == Stretch(371, 401)
    ended = replace(fires, second=190, state="ok")
    assert stretches(ended, P99)[0] == Stretch(150, 176)  # not what was clean again


def test_of_a_long_episode_that_is_over_the_worst_seconds_are_looked_at() -> None:
    ended = AlertChange(600, "p99", "ok", 5.0, 150, 184.0, worst=300)
    assert stretches(ended, P99) == (Stretch(281, 311), Stretch(117, 147))  # 291-300 were read
    assert stretches(replace(ended, worst=151), P99)[0] == Stretch(150, 180)
    assert stretches(replace(ended, worst=590), P99)[0] == Stretch(556, 586)  # then it was clean
    assert stretches(replace(ended, second=170, worst=155), P99)[0] == Stretch(150, 156)
    goes_on = replace(ended, state="firing")
    assert stretches(goes_on, P99)[0] == Stretch(571, 601)  # what is the matter now
    told = explain(look(calm(80.0)), P99, ended).said[0]
    assert told.endswith("for 7m 30s; what follows is of its worst, 04:41-05:11.")


def ends_of(rule: Rule, windows: Iterable[Window]) -> AlertChange:
    """The end of the last episode of these windows, with its words, as a runner's log has it."""
    watch, verdicts = alerts.Watch([rule], 0), Verdicts("cuda:0")
    found = []
    for one in windows:
        firing = watch.standing(one.second)
        verdicts.see(one, [(rule, on) for on in firing])
        found += [replace(on, words=verdicts.words(rule, on)) for on in watch.see(one)]
    assert found[-1].state == "ok"
    return found[-1]


def episode(until: int, *worst: int, latency_ms: float = 150.0) -> Iterator[Window]:
    """Calm, then slow from 100 on, worst while another process was on the card, then calm."""
    for second in range(until + 60):
        slow, others = 100 <= second < until, ((4121, None),) if second in worst else ()
        length = (900.0 if others else latency_ms) if slow else 8.0
        yield replace(calm(length, machine=card(processes=others)), second=second)


def test_the_log_tells_of_a_long_alert_by_its_worst_seconds() -> None:
    ended = ends_of(P99, episode(500, *range(200, 210)))
    assert ended.worst == 200
    assert ended.words[0].endswith("what follows is of its worst, 03:01-03:31.")
    assert "Likely: another process is using the GPU." in ended.words
    assert "compute is unchanged (6.40 ms)." in ended.words[1]  # since before it


def test_an_alert_that_is_clean_for_long_is_not_told_by_its_clean_seconds() -> None:
    patient = alerts.parse_rule("p99 > 100 ms", 150 * SECOND)
    windows = [
        *episode(400, *range(300, 310)),
        *(replace(calm(), second=s) for s in range(460, 600)),
    ]
    ended = ends_of(patient, windows)
    assert "Likely: another process is using the GPU." in ended.words
    failing = [
        replace(one, requests={"infer": replace(one.requests["infer"], failed={"http_503": 9})})
        if 100 <= one.second < 400 else one
        for one in windows
    ]  # fmt: skip
    assert ends_of(patient, failing).words == ()  # nothing is known of it any more


@pytest.mark.parametrize("kind", ["http_401", "http_403", "grpc_UNAUTHENTICATED"])
def test_a_key_that_was_sent_is_not_said_to_be_missing(kind: str) -> None:
    now = window(0, [5.0] * 60, {kind: 40})
    found = diagnoses(look(now, "errors", sent=("Authorization", "X-API-Key")))[0]
    assert found.guess == "the target was sent Authorization and X-API-Key, and refuses that"
    assert "was not sent" in diagnoses(look(now, "errors"))[0].guess


def outage(*parts: tuple[int, int, dict[str, int]]) -> Iterator[Window]:
    """Windows of so many seconds, each with so many answers and these failures."""
    each = [part for part in parts for _ in range(part[0])]
    for second, (_, done, failed) in enumerate(each):
        yield replace(window(0, [5.0] * done, failed), second=second)


CALM: tuple[int, int, dict[str, int]] = (30, 50, {})
HALF, DOWN = (1, 25, {"closed": 2, "refused": 23}), (3, 0, {"refused": 50})


@pytest.mark.parametrize(
    ("parts", "back"),
    [
        ((CALM, HALF, DOWN, HALF, CALM), "about 4 s"),
        ((CALM, (1, 25, {"refused": 25}), CALM), "about 1 s"),
        ((CALM, HALF, (9, 0, {"connect_timeout": 9}), CALM), "about 10 s"),
        ((CALM, HALF, (149, 0, {"refused": 50}), HALF, CALM), "about 2m 30s"),
        ((CALM, (2, 25, {"reset": 25}), CALM), ""),  # one that runs, and breaks them off
        ((CALM, HALF, HALF, HALF, CALM), ""),
        ((CALM, HALF, (3, 0, {"timeout": 90}), HALF, CALM), ""),
        ((CALM, HALF, (3, 0, {"http_500": 50}), HALF, CALM), ""),
    ],
)
def test_a_server_that_was_away_is_said_to_be_back(parts: Any, back: str) -> None:
    rule = alerts.parse_rule("errors > 1 %", 5 * SECOND)
    words = " ".join(ends_of(rule, outage(*parts)).words)
    assert ("and is back" in words) is bool(back)
    assert f"the server was away for {back}" in words or not back
    assert ("nothing listens there" in words) is (parts == (CALM, HALF, HALF, HALF, CALM))


def test_a_server_that_is_away_still_is_not_said_to_be_back() -> None:
    rule, verdicts = alerts.parse_rule("errors > 1 %", 5 * SECOND), Verdicts("cuda:0")
    windows = list(outage(CALM, HALF, DOWN, HALF, CALM))
    for until, said in ((33, AWAY[0]), (35, AWAY[0]), (36, "and is back")):
        for one in windows[:until]:
            verdicts.see(one)
        fires = AlertChange(until - 1, "errors", "firing", 0.5, 30, 0.5)
        assert said in " ".join(verdicts.words(rule, fires))
        assert verdicts.words(rule, fires)[-1].count("engine.log (o)") == 1
        verdicts = Verdicts("cuda:0")


def test_figures_are_per_second_of_the_stretch() -> None:
    windows = [replace(calm(), asked=160) for _ in range(5)]
    found = Situation(merge(windows), 5)
    assert (found.asked, found.done, found.growth) == (160, 100, 60)
    assert found.busy == pytest.approx(0.6)


def test_what_to_try_at_a_server_of_others_is_no_setting_of_our_engine() -> None:
    """Its log is not here, and its settings have other names."""
    for now, quantity, *_ in CASES.values():
        told = now.server and replace(now.server, source="kserve statistics", parts={}, closed={})
        found = diagnoses(look(replace(now, server=told), quantity, ours=False))[0]
        assert "engine." not in found.hint, found
        assert "(o)" not in found.hint.replace("load.log (o)", ""), found
    ours = diagnoses(look(calm(machine=LOW, server=server(**BUSY)), "gpu_utilization", ours=False))
    assert "engine.graphs" in ours[0].hint  # `loadbench serve` on another machine


def test_a_question_has_one_mark() -> None:
    asked, told = (Verdict((), "", hint, "").lines[-1] for hint in ("is it up?", "ask for less"))
    assert (asked, told) == ("Try: is it up?", "Try: ask for less.")
