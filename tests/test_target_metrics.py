"""Servers of others that tell of their inside in Prometheus's format."""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from loadbench import runlog
from loadbench.errors import SpecError, TargetError
from loadbench.machine import Gpu, Machine
from loadbench.merge import machines
from loadbench.metricspec import MetricsSpec
from loadbench.model import AlertChange, Part, Server, Start, Window
from loadbench.plan import Endpoint
from loadbench.report.parts import mean_split
from loadbench.runner.target import Target
from loadbench.spec import load
from loadbench.summary import summarise
from loadbench.targets import figures, metrics
from loadbench.targets.cards import cards
from loadbench.targets.exposition import joined, page, parsed
from loadbench.targets.scrape import Scraper
from tests.answering import Answering, serve
from tests.answering import Handler as Answer
from tests.running import loadbench, summary
from tests.telling import telling
from tests.test_targets import replaying, trickling

QUEUE_MS, COMPUTE_MS = 3, 5
TRITON = """
nv_inference_request_success{{model="a",version="1"}} {a}
nv_inference_request_success{{model="b",version="1"}} 1000
nv_inference_request_failure{{model="a",version="1",reason="OTHER"}} 2
nv_inference_queue_duration_us{{model="a",version="1"}} {queue}
nv_inference_compute_input_duration_us{{model="a",version="1"}} 10
nv_inference_compute_infer_duration_us{{model="a",version="1"}} {infer}
nv_inference_compute_output_duration_us{{model="a",version="1"}} 20
nv_inference_pending_request_count{{model="a",version="1"}} 7
nv_gpu_utilization{{gpu_uuid="GPU-1"}} 0.25
nv_gpu_memory_used_bytes{{gpu_uuid="GPU-1"}} 900
nv_gpu_memory_total_bytes{{gpu_uuid="GPU-1"}} 1000
nv_gpu_power_usage{{gpu_uuid="GPU-1"}} 61.5
"""


def between(first: str, second: str, model: str = "", **given: str) -> Server:
    """What a server did between two pages."""
    earlier = page(first)
    asked = figures.wanted(earlier, given, model)
    assert asked is not None
    return metrics.difference(
        metrics.read(earlier, asked), metrics.read(page(second), asked), asked
    )


def test_triton_is_read_by_its_names_and_its_model() -> None:
    found = between(
        TRITON.format(a=10, queue=100, infer=50), TRITON.format(a=14, queue=500, infer=850), "a"
    )
    assert found.source == "metrics of Triton"
    assert (found.requests, found.failed, found.waiting) == (4, 0, 7)
    assert found.queue is not None
    assert found.queue.mean_ns == 100_000
    assert found.compute is not None
    assert found.compute.mean_ns == 200_000
    assert found.compute_parts_ms == pytest.approx({"input": 0, "infer": 0.2, "output": 0})


def test_what_tritons_cache_answered_is_told_by_its_metrics() -> None:
    page_ = TRITON + 'nv_cache_num_hits_per_model{{model="a",version="1"}} {hits}\n'
    page_ += 'nv_cache_num_misses_per_model{{model="a",version="1"}} {a}\n'
    found = between(
        page_.format(a=10, queue=100, infer=50, hits=5),
        page_.format(a=14, queue=500, infer=850, hits=8),
        "a",
    )
    assert (found.requests, found.cached, found.cache_misses) == (4, 3, 4)
    assert found.compute is not None
    assert found.compute.mean_ns == 800_000


def test_a_server_that_was_asked_nothing_yet_is_known_by_its_names() -> None:
    names = "# TYPE mosec_service_remaining_task gauge\nmosec_service_remaining_task 0\n"
    later = names + 'mosec_service_throughput_total{code="200",endpoint="/inference"} 3\n'
    assert between(names, later).requests == 3


def test_all_models_count_where_none_is_named() -> None:
    earlier, later = TRITON.format(a=10, queue=0, infer=0), TRITON.format(a=14, queue=0, infer=0)
    assert between(earlier, later.replace("1000", "1005")).requests == 9


HISTOGRAM = """
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{{le="0.5",model_name="m"}} {n}
vllm:request_queue_time_seconds_bucket{{le="+Inf",model_name="m"}} {n}
vllm:request_queue_time_seconds_sum{{model_name="m"}} {s}
vllm:request_queue_time_seconds_count{{model_name="m"}} {n}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{model_name="m"}} 3
# TYPE vllm:request_success_total counter
vllm:request_success_total{{finished_reason="stop",model_name="m"}} {n}
"""


def test_a_histogram_has_its_own_count() -> None:
    found = between(HISTOGRAM.format(n=2, s=0.5), HISTOGRAM.format(n=6, s=1.5), "m")
    assert found.queue is not None
    assert (found.queue.count, found.queue.total_ns) == (4, 1_000_000_000)
    assert (found.requests, found.waiting, found.compute) == (4, 3, None)
    assert (found.rows, found.batches) == (None, None)  # it does not tell them


def test_mosec_and_tensorflow_serving_tell_failures_and_batches() -> None:
    mosec = (
        'mosec_service_throughput_total{{code="200",endpoint="/inference"}} {a}\n'
        'mosec_service_throughput_total{{code="400",endpoint="/inference"}} {b}\n'
        'mosec_service_batch_size_sum{{stage="W_1",connection="1"}} {a}\n'
        'mosec_service_batch_size_count{{stage="W_1",connection="1"}} {c}\n'
    )
    found = between(mosec.format(a=3, b=0, c=3), mosec.format(a=11, b=2, c=5))
    assert (found.requests, found.failed, found.rows, found.batches) == (8, 2, 8, 2)
    assert found.mean_batch == 4
    flow = (
        "# TYPE :tensorflow:serving:request_count counter\n"
        ':tensorflow:serving:request_count{{model_name="m",status="OK"}} {a}\n'
        ':tensorflow:serving:runtime_latency_sum{{model_name="m",API="Predict"}} {b}\n'
        ':tensorflow:serving:runtime_latency_count{{model_name="m",API="Predict"}} {a}\n'
    )
    told = between(flow.format(a=1, b=100), flow.format(a=3, b=4100), "m")
    assert told.requests == 2
    assert told.compute is not None
    assert told.compute.mean_ns == 2_000_000


MOSEC = (
    'mosec_service_process_duration_second_sum{{stage="total",connection="total"}} {whole}\n'
    'mosec_service_process_duration_second_count{{stage="total",connection="total"}} {n}\n'
    'mosec_service_process_duration_second_sum{{stage="A_1",connection="1"}} {a}\n'
    'mosec_service_process_duration_second_count{{stage="A_1",connection="1"}} {batches}\n'
)
SECOND_STAGE = (
    'mosec_service_process_duration_second_sum{{stage="B_2",connection="1"}} {b}\n'
    'mosec_service_process_duration_second_count{{stage="B_2",connection="1"}} {n}\n'
)


def test_mosecs_queue_is_what_its_stages_leave_of_its_whole_time() -> None:
    """A stage counts its batches, the whole the requests."""
    earlier = MOSEC.format(whole=1, n=10, a=0.5, batches=5)
    later = MOSEC.format(whole=1.06, n=30, a=0.505, batches=15)
    found = between(earlier, later)
    assert found.compute == Part(20, 10_000_000)
    assert found.queue == Part(20, 50_000_000)
    found = between(
        earlier + SECOND_STAGE.format(b=0, n=10), later + SECOND_STAGE.format(b=0.02, n=30)
    )
    assert found.compute == Part(20, 30_000_000)  # a request goes through both
    assert found.queue == Part(20, 30_000_000)
    idle = between(later, later)
    assert (idle.queue, idle.compute) == (None, Part(0, 0))
    stages = [text.partition("\n")[2].partition("\n")[2] for text in (earlier, later)]
    found = between(*stages)  # where the whole is not told neither is a queue
    assert (found.queue, found.compute) == (None, Part(10, 5_000_000))
    answered = 'mosec_service_throughput_total{code="200"} '
    own = between(
        f"{earlier}{answered}10\nwork_ms 1\n", f"{later}{answered}30\nwork_ms 21\n",
        compute="work_ms",
    )  # fmt: skip
    assert (own.queue, own.compute) == (Part(20, 40_000_000), Part(20, 20_000_000))
    own = between(earlier + "wait_ms 1\n", later + "wait_ms 2\n", queue="wait_ms")
    assert own.queue is not None
    assert own.queue.total_ns == 1_000_000


def test_mlserver_tells_how_long_its_models_took() -> None:
    one = (  # as its page is; of who asks over HTTP the version is "None"
        "# TYPE model_infer_request_success_total counter\n"
        'model_infer_request_success_total{{model="sum",version="None"}} {a}\n'
        'model_infer_request_success_total{{model="sum",version=""}} 1.0\n'
        'model_infer_request_success_created{{model="sum",version="None"}} 1.7953670080695934e+09\n'
        "# TYPE model_infer_request_failure_total counter\n"
        'model_infer_request_failure_total{{model="sum",version="None"}} {b}\n'
        "# TYPE model_infer_request_duration summary\n"
        'model_infer_request_duration_count{{model="sum",version="None"}} {a}\n'
        'model_infer_request_duration_sum{{model="sum",version="None"}} {s}\n'
    )
    found = between(one.format(a=2, b=0, s=0.5), one.format(a=6, b=1, s=0.504), "sum")
    assert (found.source, found.requests, found.failed) == ("metrics of MLServer", 4, 1)
    assert found.compute is not None
    assert (found.compute.count, found.compute.mean_ns) == (4, 1_000_000)
    asked = figures.wanted(page(one.format(a=2, b=0, s=0.5)), {}, "sum")
    assert asked is not None
    (note,) = asked.notes  # one that batches holds them back within that duration
    assert note.code == "compute-whole"
    assert "wait for a batch" in note.text
    own = figures.wanted(page(one.format(a=2, b=0, s=0.5) + "own_sum 1\n"), {"compute": "own in s"})
    assert own is not None
    assert own.notes == ()


def test_a_server_that_began_anew_counts_from_zero() -> None:
    found = between(HISTOGRAM.format(n=900, s=90), HISTOGRAM.format(n=4, s=1.0))
    assert found.requests == 4
    assert found.queue is not None
    assert found.queue.mean_ns == 250_000_000


def course(*texts: str, **given: str) -> list[Server]:
    """What a server did from page to page."""
    asked = figures.wanted(page(texts[0]), given)
    assert asked is not None
    latest, found = metrics.read(page(texts[0]), asked), []
    for text in texts[1:]:
        now = metrics.read(page(text), asked)
        found.append(metrics.difference(latest, now, asked))
        latest = metrics.together(latest, now)
    return found


def test_what_is_gone_is_a_gap_and_its_counts_are_made_up_when_it_is_back() -> None:
    texts = [HISTOGRAM.format(n=n, s=s) for n, s in ((2, 0.5), (5, 2.0), (7, 3.0))]
    gap, back, on = course(texts[0], "other 1\n", *texts[1:])
    assert (gap.queue, gap.waiting, gap.requests) == (None, None, None)
    assert (back.queue, back.requests) == (None, 3)
    assert on.queue is not None
    assert (on.queue.count, on.queue.total_ns, on.requests) == (2, 1_000_000_000, 2)


def test_what_a_server_tells_again_only_when_it_happens_is_not_counted_twice() -> None:
    """A label that is made at its first use is not there after a restart, until it is used."""
    good, bad = 'app_total{{code="200"}} {}\n', 'app_total{{code="500"}} {}\n'
    counts = [(1000, 500), (50, None), (150, None), (250, 3), (350, 3)]
    texts = [good.format(a) + (bad.format(b) if b is not None else "") for a, b in counts]
    told = course(*texts, requests="app_total", failed='app_total{code="500"}')
    assert [server.requests for server in told] == [50, 100, 103, 100]
    assert [server.failed for server in told] == [None, 0, 3, 0]


TOTALS = "app_requests_total {n}\napp_q_seconds_total {s}\napp_rows_sum {r}\napp_rows_count {n}\n"
TOTAL_NAMES = {"requests": "app_requests", "queue": "app_q_seconds", "batch": "app_rows"}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "1e300", "1e30", "-1e9"])
@pytest.mark.parametrize("name", ["requests_total", "queue_seconds_sum", "queue_seconds_count"])
def test_what_no_counter_can_be_is_a_gap(name: str, value: str) -> None:
    """One second of it: the others are as they were, and nothing is lost."""
    page_ = "requests_total {n}\nqueue_seconds_sum {s}\nqueue_seconds_count {n}\nwait {w}\n"
    texts = [page_.format(n=100 * at, s=0.2 * at, w=at) for at in range(1, 6)]
    texts[2] = re.sub(rf"^{name} .*$", f"{name} {value}", texts[2], flags=re.MULTILINE)
    texts[2] = texts[2].replace("wait 3", f"wait {value}")
    given = {"requests": "requests", "queue": "queue_seconds", "waiting": "wait"}
    found = course(*texts, **given)
    assert [server.waiting for server in found] == [2, None, 4, 5]
    counted = [100, None, 200, 100] if name == "requests_total" else [100] * 4
    assert [server.requests for server in found] == counted
    times = [server.queue and server.queue.mean_ns for server in found]
    mean = pytest.approx(2_000_000)
    assert times == ([mean] * 4 if name == "requests_total" else [mean, None, None, mean])


def test_what_no_card_can_have_is_not_told() -> None:
    host = '{Level="Host",DeviceId="0",Hostname="x"}'
    for used, share in (("1e300", "1"), ("1", "1e-310"), ("-5", "50")):
        text = f"GPUUtilization{host} 40\nGPUMemoryUsed{host} {used}\n"
        (card,) = cards(page(text + f"GPUMemoryUtilization{host} {share}\n"))
        assert (card.utilization, card.memory_total) == (0.4, None)


@pytest.mark.parametrize("name", ["app_q_seconds", "app_requests"])
def test_a_time_and_its_requests_are_of_the_same_span(name: str) -> None:
    """Each request waits 2 ms; one of the two counters is gone for two seconds."""
    texts = [TOTALS.format(n=100 * at, s=0.2 * at, r=0) for at in range(6)]
    for at in (2, 3):
        texts[at] = "".join(line for line in texts[at].splitlines(True) if name not in line)
    found = [server.queue for server in course(*texts, **TOTAL_NAMES)]
    assert found[1:4] == [None] * 3
    assert [part.mean_ns for part in found if part] == [pytest.approx(2_000_000)] * 2
    assert sum(server.requests or 0 for server in course(*texts, **TOTAL_NAMES)) == 500


def test_rows_and_batches_are_of_the_same_span() -> None:
    texts = [TOTALS.format(n=10 * at, s=0, r=40 * at) for at in range(5)]
    texts[2] = texts[2].replace("app_rows_sum", "app_other")
    found = [server.mean_batch for server in course(*texts, **TOTAL_NAMES)]
    assert found == [4, None, None, 4]


def test_a_model_that_was_unloaded_does_not_make_the_others_a_gap() -> None:
    two = 'nv_inference_request_success{{model="{m}"}} {n}\n' \
        'nv_inference_queue_duration_us{{model="{m}"}} {q}\n'  # fmt: skip
    one, other = (two.format(m="a", n=n, q=20 * n) for n in (1, 2)), two.format(m="b", n=9, q=9)
    first, second = one
    gap, on = course(first + other, second, two.format(m="a", n=5, q=100))
    assert gap.queue is None
    assert on.queue is not None
    assert on.queue.mean_ns == 20_000


def test_one_counter_that_fell_makes_all_of_its_model_new() -> None:
    """Restarted under load, it had more requests than before already."""
    text = TRITON.replace("1000", "{b}")
    earlier = text.format(a=4, queue=900_000, infer=50, b=1000)
    later = text.format(a=50, queue=5_000, infer=70, b=1003)
    found = between(earlier, later, "a")
    assert found.requests == 50
    assert found.queue is not None
    assert found.queue.mean_ns == 100_000
    assert between(earlier, later).requests == 53  # that of the other model went on


def test_a_process_that_started_anew_counts_from_zero() -> None:
    """It was quick: all of its counters are beyond where they had been."""
    text = "process_start_time_seconds {at}\n" + HISTOGRAM
    found = between(text.format(at=10.5, n=2, s=0.5), text.format(at=30, n=5, s=1.0))
    assert found.requests == 5
    assert found.queue is not None
    assert found.queue.mean_ns == 200_000_000
    gone = course(
        text.format(at=10.5, n=2, s=0.5), "other 1\n", text.format(at=30, n=5, s=1.0)
    )  # fmt: skip
    assert [server.requests for server in gone] == [None, 5]
    same = between(text.format(at=10.5, n=2, s=0.5), text.format(at=11.5, n=5, s=1.0))
    assert same.requests == 3  # as where the boot time is told a second off


TORCHSERVE = """
# TYPE ts_inference_requests_total counter
ts_inference_requests_total{{model_name="sum",model_version="default",hostname="h"}} {came}
# TYPE ts_inference_latency_microseconds counter
ts_inference_latency_microseconds{{model_name="sum",model_version="default",hostname="h"}} {all}
# TYPE ts_queue_latency_microseconds counter
ts_queue_latency_microseconds{{model_name="sum",model_version="default",hostname="h"}} {queue}
"""
# as its metrics.yaml has it under `histogram`; of all answers, of whichever model
ANSWERED = """
# TYPE QueueTime histogram
QueueTime_bucket{{Level="Host",Hostname="h",le="+Inf"}} {n}
QueueTime_count{{Level="Host",Hostname="h"}} {n}
QueueTime_sum{{Level="Host",Hostname="h"}} 12
"""
HANDLER = """
# TYPE {name} histogram
{name}_bucket{{ModelName="sum",Level="Model",Hostname="h",le="+Inf"}} {batches}
{name}_count{{ModelName="sum",Level="Model",Hostname="h"}} {batches}
{name}_sum{{ModelName="sum",Level="Model",Hostname="h"}} {ms}
"""
GAUGE = '# TYPE HandlerTime gauge\nHandlerTime{ModelName="sum",Level="Model",Hostname="h"} 90\n'


def torchserve(answered: int, whole_us: int, queue_us: int) -> str:
    """Its page, of a server that has refused as many as it answered."""
    told = TORCHSERVE.format(came=2 * answered, all=whole_us, queue=queue_us)
    return told + ANSWERED.format(n=answered)


def test_torchserves_queue_is_over_what_it_answered_not_over_what_came() -> None:
    found = between(torchserve(10, 9_000, 4_000), torchserve(14, 90_000, 84_000), "sum")
    assert (found.requests, found.queue) == (4, Part(4, 80_000_000))
    other = torchserve(14, 90_000, 84_000).replace('model_name="sum"', 'model_name="b"')
    later = other.replace(ANSWERED.format(n=14), "") + torchserve(20, 9_000, 4_000)
    earlier = other.replace(ANSWERED.format(n=14), "") + torchserve(14, 9_000, 4_000)
    beside_ = between(earlier, later.replace(" 84000", " 90000"), "sum")
    assert (beside_.requests, beside_.queue) == (None, None)  # its count is of both models


def test_of_which_of_its_models_torchserves_answers_were_is_not_told() -> None:
    """Two models, or one that came while the run went on."""
    one, two = torchserve(14, 90_000, 84_000), TORCHSERVE.format(came=3, all=9, queue=4)
    handled = HANDLER.format(name="HandlerTime", batches=4, ms=20)
    both = one + two.replace('model_name="sum"', 'model_name="b"') + handled
    asked = figures.wanted(page(both), {}, "sum")
    assert asked is not None
    assert asked.figures.keys() == {"compute"}
    (note,) = asked.notes
    assert note.code == "queue-untold"
    assert "all its models together" in note.text
    own = figures.wanted(page(both), {"requests": "ts_inference_requests"}, "sum")
    assert own is not None
    assert {"queue", "compute"} <= own.figures.keys()  # as the scenario wants it
    busy = "# TYPE x counter\n" + TORCHSERVE.replace('model_name="sum"', 'model_name="b"')
    first = torchserve(10, 100_000, 40_000) + busy.format(came=3, all=9, queue=4)
    last = torchserve(15, 200_000, 60_000) + busy.format(came=9, all=9_000_000, queue=8_000_000)
    given = between(first, last, "sum", requests="ts_inference_requests")
    assert given.queue == Part(10, 20_000_000)  # none of the other's
    alone = figures.wanted(page(one), {}, "sum")
    assert alone is not None
    later = torchserve(18, 95_000, 88_000)
    came = [metrics.read(page(text), alone) for text in (one, later, both)]
    assert metrics.difference(came[0], came[1], alone).queue == Part(4, 4_000_000)
    after = metrics.difference(came[1], came[2], alone)
    assert (after.requests, after.queue) == (None, None)
    kept = metrics.together(came[1], came[2])
    after = metrics.difference(kept, metrics.read(page(both), alone), alone)
    assert (after.requests, after.queue) == (None, None)


def test_a_second_model_that_is_asked_amid_a_run_is_told_of() -> None:
    alone = torchserve(14, 90_000, 84_000)
    other = TORCHSERVE.format(came=3, all=9, queue=4).replace('model_name="sum"', 'model_name="b"')
    with telling() as server:
        server.pages["/metrics"] = alone
        where = Endpoint("127.0.0.1", server.server_port, "http", model="sum")
        with Scraper(where, MetricsSpec()) as scraper:
            assert scraper.find()
            server.pages["/metrics"] = alone + other
            told, again = scraper.server(), scraper.server()
    assert told is not None
    assert again is not None
    assert [note.code for note in told.remarks] == ["queue-untold"]
    assert "it has several" in told.remarks[0].text
    assert again.remarks == ()


def test_of_torchserve_as_it_comes_several_models_are_no_reason() -> None:
    two = TORCHSERVE.format(came=3, all=9, queue=4)
    two += two.replace('model_name="sum"', 'model_name="b"')
    asked = figures.wanted(page(two), {}, "sum")
    assert asked is not None
    (note,) = asked.notes
    assert "as they arrive" in note.text
    assert "one model alone" in note.hint


def test_how_long_torchserves_queue_is_is_not_told_where_it_does_not_count_its_answers() -> None:
    """As it comes: arrivals, the refused ones too, are all that is counted for a model."""
    text = TORCHSERVE.format(came=10, all=100_000, queue=40_000)
    text += '# TYPE QueueTime gauge\nQueueTime{Level="Host",Hostname="h"} 997\n'
    asked = figures.wanted(page(text), {}, "sum")
    assert asked is not None
    assert asked.figures == {}
    (note,) = asked.notes
    assert note.code == "queue-untold"
    assert "QueueTime" in note.hint
    one = HANDLER.format(name="PredictionTime", batches=4, ms=20)
    two = HANDLER.format(name="PredictionTime", batches=9, ms=120)
    found = between(text + one, text.replace(" 40000", " 90000") + two, "sum")
    assert (found.requests, found.queue, found.compute) == (None, None, Part(5, 100_000_000))
    own = figures.wanted(page(text), {"requests": "ts_inference_requests"}, "sum")
    assert own is not None
    assert {"queue", "compute"} <= own.figures.keys()  # as the scenario wants it


def test_torchserves_compute_is_its_handlers_time_where_that_has_a_mean() -> None:
    """As its metrics.yaml has it under `histogram`; of two what all handlers have."""
    before, after = torchserve(10, 100_000, 40_000), torchserve(20, 200_000, 60_000)
    one = HANDLER.format(name="HandlerTime", batches=4, ms=20)
    two = HANDLER.format(name="HandlerTime", batches=9, ms=35)
    found = between(before + one, after + two, "sum")
    assert found.compute == Part(5, 15_000_000)
    assert found.queue == Part(10, 20_000_000)
    around = HANDLER.format(name="PredictionTime", batches=9, ms=99)
    ready = "# TYPE PredictionTime histogram\n# TYPE HandlerTime gauge\n"  # before its first batch
    found = between(torchserve(0, 0, 0) + ready, after + around + two, "sum")
    assert found.compute == Part(9, 99_000_000)


@pytest.mark.parametrize("page_", ["", GAUGE])
def test_torchserves_compute_is_what_its_queue_leaves_where_it_has_none(page_: str) -> None:
    """A gauge is of the last batch alone. That is said."""
    before, after = torchserve(10, 100_000, 40_000), torchserve(20, 200_000, 60_000)
    assert between(before + page_, after + page_, "sum").compute == Part(10, 80_000_000)
    with telling() as server:
        server.pages["/metrics"] = before + page_
        where = Endpoint("127.0.0.1", server.server_port, "http", model="sum")
        with Scraper(where, MetricsSpec()) as scraper:
            assert scraper.find()
            (note,) = scraper.notes
            assert note.code == "compute-derived"
            assert "without the queue" in note.text
        with Scraper(where, MetricsSpec(compute="ts_queue_latency_microseconds")) as scraper:
            assert scraper.find()
            assert scraper.notes == ()  # the scenario says what it is
        server.pages["/metrics"] = TORCHSERVE.format(came=1, all=9, queue=4)
        with Scraper(where, MetricsSpec()) as scraper:
            assert scraper.find()
            assert [note.code for note in scraper.notes] == ["queue-untold"]
            assert not scraper.timed
        server.pages["/metrics"] = before + HANDLER.format(name="HandlerTime", batches=4, ms=20)
        with Scraper(where, MetricsSpec()) as scraper:
            assert scraper.find()
            assert [note.code for note in scraper.notes] == ["compute-handler"]


def test_what_bentoml_calls_a_requests_duration_is_said_to_hold_its_queue() -> None:
    found = page(
        "# TYPE bentoml_service_request_duration_seconds histogram\n"
        'bentoml_service_request_duration_seconds_sum{endpoint="/predict"} 1.5\n'
        'bentoml_service_request_duration_seconds_count{endpoint="/predict"} 3\n'
        "own_model_seconds_sum 0.5\nown_model_seconds_count 3\n"
    )
    asked = figures.wanted(found, {})
    assert asked is not None
    (note,) = asked.notes
    assert note.code == "compute-whole"
    assert "no queue is told" in note.text
    own = figures.wanted(found, {"compute": "own_model_seconds"})
    assert own is not None
    assert own.notes == ()  # the scenario says what it is


def test_names_taken_from_one_another_leave_nothing_negative() -> None:
    text = "asks_total {n}\nwhole_us {a}\nwait_us {b}\n"
    found = between(
        text.format(n=1, a=50, b=10), text.format(n=2, a=60, b=40),
        requests="asks_total", compute="whole_us - wait_us",
    )  # fmt: skip
    assert found.compute is None


def test_a_total_of_time_is_nothing_without_the_number_of_its_requests() -> None:
    asked = figures.wanted(page("wait_us 3\nwork_ms_sum 4\n"), {"queue": "wait_us"})
    assert asked is None
    both = {"queue": "wait_us", "compute": "work_ms"}
    asked = figures.wanted(page("wait_us 3\nwork_ms_sum 4\n"), both)
    assert asked is not None
    assert asked.figures.keys() == {"compute"}


def test_a_scenarios_own_names_come_first() -> None:
    text = "work_ms {a}\nwait_us {b}\nasks_total {c}\n"
    found = between(
        text.format(a=10, b=1, c=1), text.format(a=30, b=2001, c=5),
        requests="asks_total", compute="work_ms", queue="wait_us",
    )  # fmt: skip
    assert found.requests == 4
    assert found.compute is not None
    assert found.compute.mean_ns == 5_000_000
    assert found.queue is not None
    assert found.queue.mean_ns == 500_000


@pytest.mark.parametrize("text", ["", "a b", "{x}", "a +", "a{b=c}", 'a{b="c"', "1a", "a in km"])
def test_what_names_no_metric_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="names no metric"):
        parsed(text)


def test_a_time_says_its_unit() -> None:
    with pytest.raises(SpecError, match="unit"):
        figures.expression("queue", "waited")
    assert figures.expression("queue", "waited in ms").ns == 1_000_000


def test_names_that_the_server_does_not_tell_are_refused() -> None:
    with pytest.raises(SpecError, match="tells of no 'absent'"):
        figures.wanted(page("there 1\n"), {"requests": "absent"})


def test_a_page_without_known_names_has_nothing_to_read() -> None:
    assert figures.wanted(page("process_cpu_seconds_total 3\n"), {}) is None


def test_cards_of_the_dcgm_exporter_and_of_torchserve() -> None:
    labels = '{{gpu="{}",UUID="GPU-{}",modelName="NVIDIA A10"}}'
    text = "".join(
        f"DCGM_FI_DEV_{name}{labels.format(index, index)} {value}\n"
        for index, busy in ((1, 80), (0, 20))
        for name, value in (
            ("GPU_UTIL", busy), ("FB_USED", 100), ("FB_FREE", 300), ("POWER_USAGE", 70.5),
            ("GPU_TEMP", 55), ("SM_CLOCK", 1500),
        )
    )  # fmt: skip
    first, second = cards(page(text))
    assert (first.index, second.index, first.name) == (0, 1, "NVIDIA A10")
    assert (first.utilization, second.utilization) == (0.2, 0.8)
    assert (first.memory_used, first.memory_total) == (100 << 20, 400 << 20)
    assert (first.power_w, first.temperature_c, first.sm_clock_mhz) == (70.5, 55, 1500)
    host = '{Level="Host",DeviceId="0",Hostname="x",}'
    (card,) = cards(
        page(f"GPUUtilization{host} 40\nGPUMemoryUsed{host} 50\nGPUMemoryUtilization{host} 25\n")
    )
    assert (card.utilization, card.memory_used, card.memory_total) == (0.4, 50 << 20, 200 << 20)


def test_cards_of_several_hosts_are_told_apart() -> None:
    text = "".join(
        f'DCGM_FI_DEV_{name}{{gpu="0",UUID="GPU-{host}",Hostname="{host}"}} {value}\n'
        for host, busy in (("a", 20), ("b", 80))
        for name, value in (("GPU_UTIL", busy), ("GPU_TEMP", busy + 1))
    )
    found = [(c.index, c.uuid, c.utilization, c.temperature_c) for c in cards(page(text))]
    assert found == [(0, "GPU-a", 0.2, 21), (1, "GPU-b", 0.8, 81)]


def test_parts_of_a_card_are_cards_of_their_own() -> None:
    """As dcgm-exporter 4 names instances of MIG: their UUID is the whole card's."""
    parts = (("7", "1g.10gb", 0.4, 9), ("1", "3g.40gb", 0.9, 20))
    text = "".join(
        f'DCGM_FI_{name}{{gpu="0",UUID="GPU-0",pci_bus_id="1",device="nvidia0",modelName="A100",'
        f'GPU_I_PROFILE="{profile}",GPU_I_ID="{part}",Hostname="x"}} {value}\n'
        for part, profile, busy, used in parts
        for name, value in (
            ("PROF_GR_ENGINE_ACTIVE", busy), ("DEV_FB_USED", used), ("DEV_FB_FREE", 30 - used),
        )
    ) + "".join(
        f'DCGM_FI_DEV_{name}{{gpu="1",UUID="GPU-1",modelName="A100",Hostname="x"}} {value}\n'
        for name, value in (("GPU_UTIL", 50), ("FB_USED", 3), ("FB_FREE", 7))
    )  # fmt: skip
    found = cards(page(text))
    assert [(card.title, card.name, card.utilization, card.filled) for card in found] == [
        ("0 MIG 1", "A100 MIG 3g.40gb", 0.9, 20 / 30),
        ("0 MIG 7", "A100 MIG 1g.10gb", 0.4, 9 / 30),
        ("1", "A100", 0.5, 0.3),
    ]
    second = Machine(gpus=found, told=True)
    merged = machines([second, second])
    assert merged == second  # each is told apart


def test_the_most_memory_used_stands_beside_the_total_of_that_moment() -> None:
    before, after = (
        Machine(gpus=(Gpu(0, "A", memory_used=used, memory_total=total),), told=True)
        for used, total in ((75, 80), (40, 50))
    )
    merged = machines([before, after])
    assert merged is not None
    assert [(card.memory_used, card.memory_total) for card in merged.gpus] == [(75, 80)]


def test_this_machines_cards_are_not_mixed_with_those_that_a_target_tells_of_later() -> None:
    here, there = Machine(gpus=(Gpu(0, "here"),)), Machine(gpus=(Gpu(0, "there"),), told=True)
    merged = machines([here, there, Machine(told=True)])
    assert merged is not None
    assert ([card.name for card in merged.gpus], merged.told) == (["there"], True)


def test_a_second_copy_of_a_cards_readings_is_no_second_card() -> None:
    """Where pods share a card the exporter tells of it once for each."""
    text = "".join(
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-0",pod="{pod}"}} 40\n' for pod in ("a", "b")
    )
    assert [card.title for card in cards(page(text))] == ["0"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('url = "somewhere"', "is no address"),
        ("url = []", "one to 4 pages"),
        ('url = ["http://127.0.0.1:1/metrics", "off"]', "is no address"),
        ('queue = "a b"', "names no metric"),
        ('queue = "waited"', "does not say its unit"),
        ('quue = "a_s"', "unknown key"),
        ('process = "my rank"', "is no name of a label"),
        ('url = "http://me:SECRET@127.0.0.1:1/metrics"', "holds no name and no password"),
        ('url = "http://me:SECRET@h:99999/metrics"', "holds no name and no password"),
        ('url = "http://127.0.0.1:99999/metrics"', "is no address"),
        ('url = "http://a..b/metrics"', "is no address"),
        ('url = "http:///metrics"', "is no address"),
    ],
)
def test_faults_of_the_table_name_their_key(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        f'[target]\nurl = "http://127.0.0.1:1"\n[target.metrics]\n{line}\n'
        '[load]\nphases = [{rate = 10, for = "1s"}]\n'
    )
    with pytest.raises(SpecError, match=words) as caught:
        load(str(path), {})
    assert "target.metrics" in str(caught.value)
    assert "SECRET" not in str(caught.value)


# ---- a whole run against a server that tells


class Service(ThreadingHTTPServer):
    """Answers, counts, and tells what it counted; `cards` says that its card is almost full."""

    daemon_threads = True
    count = 0
    of: "tuple[Service, ...]" = ()  # those whose page it has, if not its own
    dcgm: Callable[[int], str] | None = None  # its cards, by what it counted, as an exporter says
    tells = math.inf  # so many requests; then its page hangs

    def text(self) -> str:
        count = sum(one.count for one in self.of or (self,))
        if self.dcgm:
            return f"asks_total {count}\n{self.dcgm(count)}"
        return (
            f"asks_total {count}\n"
            f"waited_seconds_sum {count * QUEUE_MS / 1000}\n"
            f"waited_seconds_count {count}\n"
            f"worked_seconds_sum {count * COMPUTE_MS / 1000}\n"
            f"worked_seconds_count {count}\n"
            'nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5\n'
            'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 900\n'
            'nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 1000\n'
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service
    lock = threading.Lock()

    def do_GET(self) -> None:
        if self.path == "/metrics" and self.server.count > self.server.tells:
            time.sleep(1.5)
            return
        pages = {
            "/metrics": self.server.text(),
            "/strange": "strange_total 3\n",
            "/cards": "".join(
                f'DCGM_FI_DEV_{name}{{gpu="3",UUID="GPU-3"}} {value}\n'
                for name, value in (("GPU_UTIL", 40), ("FB_USED", 600), ("FB_FREE", 400))
            ),
        }
        self._say(pages.get(self.path, "hello"))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            self.server.count += 1
        self._say("done")

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def service() -> Iterator[tuple[Service, str]]:
    with Service(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


SCENARIO = """
[target]
url = "{url}"
method = "POST"
[target.metrics]
{names}
[[request]]
name = "ask"
body = "x"
[load]
arrivals = "constant"
warmup = "1s"
phases = [{{ rate = 60, for = "4s" }}]
[[alert]]
when = "gpu_memory > 80 %"
for = "1s"
"""
NAMES = 'requests = "asks"\nqueue = "waited_seconds"\ncompute = "worked_seconds"'


def test_a_run_shows_what_the_server_tells(tmp_path: Path) -> None:
    with service() as (server, url):
        path = tmp_path / "own.toml"
        path.write_text(SCENARIO.format(url=url, names=NAMES))
        found = summary(path, cwd=tmp_path)
        counted = server.count
    records = list(runlog.read(runlog.find("last", tmp_path / "results")))
    windows = [record for record in records if isinstance(record, Window)]
    asked = sum(window.server.requests or 0 for window in windows if window.server)
    sent = sum(window.sent + window.tail_sent for window in windows)
    assert asked == sent == counted
    assert found["server"]["queue_ms"]["mean"] == pytest.approx(QUEUE_MS)
    assert found["server"]["compute_ms"]["mean"] == pytest.approx(COMPUTE_MS)
    assert found["server"]["source"] == "metrics"
    card = next(w.machine.gpus[0] for w in windows if w.machine and w.machine.gpus)
    assert (card.utilization, card.memory_used) == (0.5, 900)
    fired = {r.rule for r in records if isinstance(r, AlertChange) and r.state == "firing"}
    assert any("gpu_memory" in rule for rule in fired), fired


def exported(index: int, busy: int, used: int, uuid: str = "") -> str:
    """A card of 100 MiB."""
    labels = f'{{gpu="{index}",UUID="{uuid or f"GPU-{index}"}"}}'
    told = (("GPU_UTIL", busy), ("FB_USED", used), ("FB_FREE", 100 - used))
    return "".join(f"DCGM_FI_DEV_{name}{labels} {value}\n" for name, value in told)


Cards = Callable[[int], str]


@pytest.mark.parametrize(
    ("one", "other", "fired"),
    [
        # one of them is idle, and another one full: it is the busiest that must not idle
        (lambda _: exported(0, 0, 2) + exported(1, 95, 98), None, {"gpu_memory": "GPU 1"}),
        pytest.param(
            lambda _: exported(0, 5, 2) + exported(1, 15, 50),
            None,
            {"gpu_utilization": "GPU 1"},
            marks=pytest.mark.long,
        ),
        pytest.param(
            lambda _: exported(0, 50, 2, "A"),
            lambda _: exported(0, 50, 91, "B"),
            {"gpu_memory": "GPU 1"},
            marks=pytest.mark.long,
        ),
        (
            lambda count: exported(0, 15, 90) if count > 90 else "",
            None,
            {"gpu_memory": "", "gpu_utilization": ""},
        ),
    ],
    ids=["one is idle, one full", "none is busy", "the second replica's", "one that comes later"],
)
def test_all_cards_of_a_target_are_watched(
    tmp_path: Path, one: Cards, other: Cards | None, fired: dict[str, str]
) -> None:
    """Which of them serves the model nobody tells: the busiest must not idle, none may be full."""
    with service() as (first, url), service() as (second, further):
        first.dcgm, second.dcgm = one, other
        text = SCENARIO.format(url=url, names='requests = "asks"')
        if other:
            text = text.replace("[target]", f"[target]\nreplicas = ['{further}']", 1)
        path = tmp_path / "own.toml"
        path.write_text(text + '[[alert]]\nwhen = "gpu_utilization < 30 %"\nfor = "1s"\n')
        told = loadbench("run", path, cwd=tmp_path, code=None).stdout
    records = list(runlog.read(runlog.find("last", tmp_path / "results")))
    seen = {
        change.rule: change
        for change in records
        if isinstance(change, AlertChange) and change.context and change.rule.startswith("gpu_")
    }
    which = {name: "GPU 1" * change.context.startswith("GPU 1, ") for name, change in seen.items()}
    assert which == fired, told
    for name, card in fired.items():
        assert any(f"{card or 'GPU 0'}" in line for line in seen[name].words), seen[name].words
    start = next(record for record in records if isinstance(record, Start))
    # as long as there is no card the host's memory is watched, too
    watched = {rule.quantity for rule in start.rules} & {"memory", "gpu_memory"}
    assert watched == ({"gpu_memory"} if start.device else {"memory", "gpu_memory"})


@pytest.mark.parametrize("unit", [pytest.param("s", marks=pytest.mark.long), "ms", "us"])
def test_a_metric_in_the_wrong_unit_is_no_time_of_these_requests(tmp_path: Path, unit: str) -> None:
    """It counts microseconds."""
    with serve(OneByOne()) as server:
        path = tmp_path / "own.toml"
        names = NAMES.replace("worked_seconds", f"worked_us in {unit}")
        path.write_text(SCENARIO.format(url=server.url, names=names))
        found = summary(path, cwd=tmp_path)
    said = [note for note in found["notes"] if note["code"] == "inside-longer"]
    assert bool(said) == (unit != "us")
    if said:
        (one,) = said
        assert "inside it for the mean request" in one["text"]
        assert "units of [target.metrics]" in one["hint"]


@pytest.mark.long
def test_a_run_whose_page_hangs_to_its_end_says_of_what_its_figures_are(tmp_path: Path) -> None:
    with service() as (server, url):
        server.tells = 180
        path = tmp_path / "own.toml"
        path.write_text(SCENARIO.format(url=url, names=NAMES))
        found = summary(path, cwd=tmp_path)
    (note,) = [note for note in found["notes"] if note["code"] == "inside-partly"]
    assert re.search(r"are missing for [23] of 4 seconds", note["text"])  # 60 a second, warm-up 60
    assert found["machine"] is not None


class OneByOne(Answering):
    """Takes 10 ms for each request, one at a time, and tells how long those it answered waited."""

    def __init__(self) -> None:
        super().__init__(_Queued)
        self.turn, self.counts = threading.Lock(), threading.Lock()
        self.answered = self.waited_ns = self.worked_ns = 0


class _Queued(Answer):
    server: OneByOne

    def do_GET(self) -> None:
        one = self.server
        with one.counts:
            text = "".join(
                f"{name}_seconds_sum {ns / 1e9}\n{name}_seconds_count {one.answered}\n"
                for name, ns in (("waited", one.waited_ns), ("worked", one.worked_ns))
            )
            text += f"worked_us {one.worked_ns // 1000}\n"
            self.say(200, f"asks_total {one.answered}\n{text}")

    def do_POST(self) -> None:
        self.body()
        one, came = self.server, time.monotonic_ns()
        with one.turn:
            began = time.monotonic_ns()
            time.sleep(0.01)
            ended = time.monotonic_ns()
        with one.counts:
            one.answered += 1
            one.waited_ns += began - came
            one.worked_ns += ended - began
        self.say(200, "done")


@pytest.mark.long
def test_what_warm_up_left_in_the_queue_is_no_time_on_the_network(tmp_path: Path) -> None:
    """The server's first seconds are of warm-up's last requests as well, which have waited less
    than those that came behind them: on loopback nothing takes long but the queue."""
    with serve(OneByOne()) as server:
        path = tmp_path / "own.toml"
        text = SCENARIO.format(url=server.url, names=NAMES)
        path.write_text(text.replace("rate = 60", "rate = 140").replace('"1s"', '"2s"'))
        found = summary(path, cwd=tmp_path)
    records = list(runlog.read(runlog.find("last", tmp_path / "results")))
    windows = [record for record in records if isinstance(record, Window)]
    tail = sum(window.tail_done for window in windows)
    assert tail > 40
    whole = summarise(records)
    assert whole is not None
    split = mean_split(whole)
    assert split["queue"] > 500
    assert split["network"] < 0.02 * sum(split.values())
    assert abs(found["service_ms"]["mean"] - sum(split.values())) > 20  # of the recorded alone


def test_a_page_that_is_named_tells_of_all_replicas_once(tmp_path: Path) -> None:
    with service() as (one, url), service() as (two, other), service() as (pages, where):
        path = tmp_path / "own.toml"
        names = f'url = "{where}/metrics"\n{NAMES}'
        text = SCENARIO.format(url=url, names=names)
        path.write_text(text.replace("[target]", f"[target]\nreplicas = ['{other}']"))
        pages.of = (one, two)
        loadbench("run", path, cwd=tmp_path, code=None)
        counted = one.count + two.count
    records = list(runlog.read(runlog.find("last", tmp_path / "results")))
    windows = [record for record in records if isinstance(record, Window)]
    assert sum(window.server.requests or 0 for window in windows if window.server) == counted > 0
    assert {len(w.machine.gpus) for w in windows if w.machine and w.machine.gpus} == {1}


def test_several_pages_are_read_as_one(tmp_path: Path) -> None:
    """The servers' own, of which each has the same names, and that of their cards' exporter."""
    with service() as (one, url), service() as (two, other):
        path = tmp_path / "own.toml"
        pages = json.dumps([f"{url}/metrics", f"{other}/metrics", f"{other}/cards"])
        text = SCENARIO.format(url=url, names=f"url = {pages}\n{NAMES}")
        path.write_text(text.replace("[target]", f"[target]\nreplicas = ['{other}']"))
        found = summary(path, cwd=tmp_path)
        counted = one.count + two.count
    assert not [note for note in found["notes"] if note["code"] == "metrics-unread"]
    records = list(runlog.read(runlog.find("last", tmp_path / "results")))
    windows = [record for record in records if isinstance(record, Window)]
    assert sum(window.server.requests or 0 for window in windows if window.server) == counted > 0
    assert found["server"]["compute_ms"]["mean"] == pytest.approx(COMPUTE_MS)
    (shown,) = {tuple(c.uuid for c in w.machine.gpus) for w in windows if w.machine}
    assert shown == ("GPU-1",)  # both servers tell of the same one


def test_the_page_of_an_exporter_gives_the_cards_that_the_server_does_not_tell_of() -> None:
    own = page("asks_total 3\nworked_seconds_sum 1.5\nworked_seconds_count 3\n")
    cards = page('DCGM_FI_DEV_GPU_UTIL{gpu="3",UUID="GPU-3"} 40\n')
    whole = joined({"h:1/metrics": own, "h:2/metrics": cards})
    asked = figures.wanted(whole, {"requests": "asks", "compute": "worked_seconds"})
    assert asked is not None
    before = metrics.read(whole, asked)
    assert [(card.index, card.utilization) for card in before.gpus] == [(3, 0.4)]
    alone = joined({"h:2/metrics": cards})  # the server does not answer
    gap = metrics.difference(before, metrics.read(alone, asked), asked)
    assert (gap.requests, gap.compute) == (None, None)


def test_a_page_of_another_server_on_the_same_host_gives_its_cards_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is found at Triton's usual port, and tells of models, but not of ours."""
    text = TRITON.format(a=1, queue=1, infer=1)
    with replaying() as url, replaying({"/metrics": (200, text)}) as other:
        monkeypatch.setattr("loadbench.targets.scrape._TRITON", urlsplit(other).port)
        port = urlsplit(url).port or 0
        for model, tells in (("a", True), ("c", False)):
            where = Endpoint("127.0.0.1", port, "kserve", model=model)
            with Scraper(where, MetricsSpec()) as scraper:
                assert scraper.find()
                assert (scraper.tells, len(scraper.cards)) == (tells, 1)


def test_a_second_without_the_servers_cards_is_not_filled_with_this_machines() -> None:
    here = Machine(cpu=0.5, gpus=(Gpu(0, "this machine's"),))
    theirs = (Gpu(3, "the server's"),)
    where = Endpoint("h", 80, "http")
    cards: list[tuple[Gpu, ...] | None] = [None, theirs, ()]
    target = Target(where, (), "", "", None, "", {}, (), lambda: None, cards=partial(cards.pop, 0))
    seen = [target.seen(here) for _ in range(3)]
    assert [(machine.gpus, machine.told) for machine in seen] == [
        (here.gpus, False), (theirs, True), ((), True),
    ]  # fmt: skip


def test_a_page_that_does_not_end_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadbench.targets.scrape._WHOLE_S", 0.3)
    with trickling() as url:
        where = Endpoint("127.0.0.1", 1, "http")
        begun = time.monotonic()
        with (
            Scraper(where, MetricsSpec(url=f"{url}/metrics")) as scraper,
            pytest.raises(TargetError, match="did not end"),
        ):
            scraper.find()
    assert time.monotonic() - begun < 4


def test_a_page_that_is_not_there_is_told_before_the_run(tmp_path: Path) -> None:
    with service() as (_, url):
        path = tmp_path / "own.toml"
        path.write_text(SCENARIO.format(url=url, names=f'url = "{url}/nothing"'))
        told = loadbench("run", path, cwd=tmp_path, code=None)
        assert told.returncode in (2, 3)
        assert "/nothing" in told.stderr
        path.write_text(SCENARIO.format(url=url, names='requests = "absent"'))
        told = loadbench("run", path, cwd=tmp_path, code=2)
        assert "tells of no 'absent'" in told.stderr
    assert not (tmp_path / "results").exists() or not any((tmp_path / "results").iterdir())


def test_a_page_that_was_asked_for_and_is_not_understood_is_told(tmp_path: Path) -> None:
    with service() as (_, url):
        path = tmp_path / "own.toml"
        path.write_text(SCENARIO.format(url=url, names=f'url = "{url}/strange"'))
        found = loadbench("run", path, "--duration", "1s", "--json", cwd=tmp_path)
        told = [n for n in json.loads(found.stdout)["notes"] if n["code"] == "metrics-unread"]
        assert len(told) == 1
        assert f"{url}/strange" in told[0]["text"]
        assert "it tells of strange" in told[0]["hint"]
        path.write_text(SCENARIO.format(url=url, names=""))
        found = loadbench("run", path, "--duration", "1s", "--json", cwd=tmp_path)
    assert "metrics-unread" not in found.stdout


def test_nothing_is_asked_where_nobody_wants_to_know(tmp_path: Path) -> None:
    with service() as (_, url):
        path = tmp_path / "own.toml"
        path.write_text(SCENARIO.format(url=url, names='url = "off"'))
        found = loadbench("run", path, "--duration", "1s", "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["server"] is None
