"""What vanishes from what a server tells of its inside is a gap, and no zero; what it counted
meanwhile is there when it is back."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from loadbench.errors import TargetError
from loadbench.evidence import Evidence
from loadbench.merge import servers
from loadbench.metricspec import MetricsSpec
from loadbench.model import Machine, Note, Part, Server, decode, encode
from loadbench.plan import Endpoint, Tls
from loadbench.report.parts import made_of
from loadbench.runner.inside import Inside, Told
from loadbench.runner.readings import Readings
from loadbench.targets.ask import Asker
from loadbench.targets.exposition import page
from loadbench.targets.scrape import Scraper
from loadbench.trust import grade
from loadbench.units import SECOND
from tests.telling import Telling, telling

STATS = "/v2/models/m/stats"


@pytest.fixture
def server() -> Iterator[Telling]:
    with telling() as found:
        yield found


def counted(**parts: int) -> str:
    """Statistics of the model: how often and, of all but `success`, how long in ns."""
    told = {name: {"count": number, "ns": number} for name, number in parts.items()}
    return json.dumps({"model_stats": [{"name": "m", "version": "1", "inference_stats": told}]})


def course(server: Telling, *pages: Any) -> list[Server | None]:
    """What the inside view is from page to page of statistics."""
    server.pages[STATS] = pages[0]
    found = []
    with Asker(server.url) as asker:
        where = Endpoint("127.0.0.1", server.server_port, "kserve", model="m")
        inside = Inside([Told(asker, where, None)])
        for page in pages[1:]:
            server.pages[STATS] = page
            found.append(inside.read())
    return found


@pytest.mark.parametrize(
    "gap",
    [
        (400, '{"error":"Request for unknown model: m is not available"}'),  # while it is loaded
        (404, "{}"),
        '{"model_stats":[]}',
        '{"model_stats":[{"version":"1","inference_stats":{}}]}',
        '{"model_stats":[{"version":"1"}]}',
        b'{"model_stats":[{"version":"\xff"}]}',
        '{"a":' + "[" * 9000 + "]" * 9000 + "}",
        counted(success=-5),
        counted(success=1012, queue=-5),
    ],
)
def test_statistics_that_are_gone_for_a_while_are_a_gap(server: Telling, gap: Any) -> None:
    found = course(
        server, counted(success=1000), counted(success=1010), gap, gap, counted(success=1017)
    )
    assert [told and told.requests for told in found] == [10, None, None, 7]


def test_a_server_without_statistics_is_not_asked_again(server: Telling) -> None:
    assert course(server, (404, "{}"), (404, "{}"), counted(success=5)) == [None, None]
    assert [path for path, _ in server.asked] == [STATS]


def test_times_that_a_server_does_not_tell_are_no_zeros(server: Telling) -> None:
    with_queue, without = {"queue": 500}, dict[str, int]()
    found = course(
        server,
        *(
            counted(success=at * 10, **({"queue": at * 500} if told else {}))
            for at, told in enumerate([with_queue, with_queue, without, with_queue, with_queue], 1)
        ),
    )
    told = [server for server in found if server]
    assert [each.requests for each in told] == [10] * 4  # nothing was taken for a restart
    assert [each.queue for each in told] == [Part(10, 500), None, None, Part(10, 500)]
    assert {each.compute for each in told} == {None}


ALL = ("success", "fail", "queue", "cache_hit", "compute_input", "compute_infer")


@pytest.mark.parametrize(
    ("lost", "failed", "cached", "queue", "compute"),
    [
        ("fail", [1, None, None, 3, 1], [1] * 5, [9] * 5, [18] * 5),
        (
            "cache_hit",
            [1] * 5,
            [1, 0, 0, 3, 1],
            [9, None, None, None, 9],
            [18, None, None, None, 18],
        ),
        ("compute_infer", [1] * 5, [1] * 5, [9] * 5, [18, None, None, None, 18]),
        ("batch_stats", [1] * 5, [1] * 5, [9] * 5, [18] * 5),
    ],
)
def test_what_is_gone_from_statistics_that_go_on_is_no_restart(
    server: Telling,
    lost: str,
    failed: list[int | None],
    cached: list[int],
    queue: list[int | None],
    compute: list[int | None],
) -> None:
    def page(at: int, gap: bool) -> str:
        factor = {"success": 10, "queue": 9, "compute_input": 9, "compute_infer": 9}
        parts = {name: at * factor.get(name, 1) for name in ALL if not (gap and name == lost)}
        told = json.loads(counted(**parts))
        if not (gap and lost == "batch_stats"):
            ran = {"count": at, "ns": at}
            told["model_stats"][0]["batch_stats"] = [{"batch_size": 2, "compute_infer": ran}]
        return json.dumps(told)

    found = course(server, *(page(at, at in (52, 53)) for at in range(50, 56)))
    told = [server for server in found if server]
    assert [each.requests for each in told] == [10] * 5
    assert [each.failed for each in told] == failed
    assert [each.cached for each in told] == cached
    assert [each.queue and each.queue.total_ns for each in told] == queue
    assert [each.compute and each.compute.total_ns for each in told] == compute
    sizes = [1, 0, 0, 3, 1] if lost == "batch_stats" else [1] * 5
    assert [sum(size.batches for size in each.sizes.values()) for each in told] == sizes


@pytest.mark.parametrize("gap", ['{"inference_stats":{},"version":"2"}', ""])
def test_one_of_several_versions_that_is_gone_for_a_while_is_not_new(
    server: Telling, gap: str
) -> None:
    def page(n: int, m: int) -> str:
        one, two = (json.loads(counted(success=each))["model_stats"][0] for each in (n, m))
        two = {**two, "version": "2"} if m else gap and json.loads(gap)
        return json.dumps({"model_stats": [one, two] if two else [one]})

    found = course(server, page(10, 5000), page(11, 5002), page(13, 0), page(14, 0), page(15, 5009))
    assert [told and told.requests for told in found] == [3, 2, 1, 8]


def test_counts_that_a_server_does_not_tell_are_no_zeros(server: Telling) -> None:
    def page(at: int, told: bool) -> str:
        found = json.loads(counted(success=at * 10))
        if told:
            found["model_stats"][0] |= {"inference_count": at * 20, "execution_count": at * 5}
        return json.dumps(found)

    pages = enumerate([True, True, False, True, True], 1)
    found = [one for one in course(server, *(page(*one) for one in pages)) if one]
    assert [one.requests for one in found] == [10] * 4
    assert [one.rows for one in found] == [20, None, 40, 20]
    assert [one.batches for one in found] == [5, None, 10, 5]
    (never,) = course(server, page(1, False), page(2, False))
    assert never is not None
    assert (never.requests, never.rows, never.batches, never.mean_batch) == (10, None, None, None)
    whole = servers([never, *found])
    assert whole is not None
    assert (whole.rows, whole.batches) == (80, 20)


@pytest.mark.parametrize("lost", ["compute_input", "compute_infer"])
def test_a_size_of_which_a_time_is_gone_is_a_gap_and_no_restart(server: Telling, lost: str) -> None:
    def page(at: int, gap: bool) -> str:
        ran = {"count": at, "ns": at * 9}
        sizes = [
            {"batch_size": size, **dict.fromkeys(("compute_input", "compute_infer"), ran)}
            for size in (2, 4)
        ]
        if gap:
            sizes[0] = {key: part for key, part in sizes[0].items() if key != lost}
        found = json.loads(counted(success=at))
        found["model_stats"][0]["batch_stats"] = sizes
        return json.dumps(found)

    told = course(server, *(page(at, at in (52, 53)) for at in range(50, 56)))
    found = [one for one in told if one]
    assert [one.requests for one in found] == [1] * 5
    each = [{size: (b.batches, b.compute_ns) for size, b in one.sizes.items()} for one in found]
    four = {4: (1, 18)}
    assert each == [{2: (1, 18), **four}, four, four, {2: (3, 54), **four}, {2: (1, 18), **four}]


def test_a_restart_that_statistics_show_is_told_once(server: Telling) -> None:
    found = course(server, *(counted(success=n, queue=n) for n in (1000, 1050, 20, 70, 10, 60)))
    told = [one for one in found if one]
    assert [one.requests for one in told] == [50, 20, 50, 10, 50]
    assert codes(told) == [[], ["server-restarted"], [], [], []]
    (note,) = told[1].remarks
    assert f"the counters of {server.url} began anew" in note.text


@pytest.mark.parametrize("taken", [0, 3])  # of the old version's, by the end of that second
def test_a_version_that_takes_over_is_no_restart(server: Telling, taken: int) -> None:
    one, two = ([json.loads(counted(success=n))["model_stats"][0] for n in of]
                for of in ((1000, 1050, 1050 + taken), (0, 0, 40)))  # fmt: skip
    both = [{"model_stats": [a, {**b, "version": "2"}]} for a, b in zip(one, two, strict=True)]
    alone = {"model_stats": both[2]["model_stats"][1:]}
    found = course(server, *map(json.dumps, [*both, alone, alone]))
    assert [told and told.requests for told in found] == [50, 40 + taken, 0, 0]
    assert codes([one for one in found if one]) == [[]] * 4


REQUESTS = 'vllm:request_success_total{{finished_reason="stop",model_name="{m}"}} {n}\n'
QUEUE = 'vllm:request_queue_time_seconds_sum{{model_name="{m}"}} {n}\n' \
    'vllm:request_queue_time_seconds_count{{model_name="{m}"}} {n}\n'  # fmt: skip


def scraped(server: Telling, *pages: str, model: str = "a", **given: str) -> list[Server]:
    """The same of pages of metrics."""
    server.pages["/metrics"] = pages[0]
    found = []
    where = Endpoint("127.0.0.1", server.server_port, "openai", model=model)
    with Scraper(where, MetricsSpec(**given)) as scraper:
        assert scraper.find()
        for page in pages[1:]:
            server.pages["/metrics"] = page
            told = scraper.server()
            assert told is not None
            found.append(told)
    return found


def test_a_counter_of_requests_that_vanishes_is_no_zero(server: Telling) -> None:
    both = [(REQUESTS + QUEUE).format(m="a", n=n) for n in (100, 110, 130, 131)]
    found = scraped(server, both[0], both[1], QUEUE.format(m="a", n=120), both[2], both[3])
    assert [told.requests for told in found] == [10, None, 20, 1]
    assert [told.queue for told in found] == [
        Part(n, n * 1_000_000_000) for n in (10, 10, 10, 1)
    ]  # it went on


APP = 'app_requests_total{{{labels}}} {n}\n' \
    'app_queue_ms_sum{{{labels}}} {s}\napp_queue_ms_count{{{labels}}} {n}\n'  # fmt: skip
APP_NAMES = {"requests": "app_requests", "queue": "app_queue_ms"}


def app(n: int, labels: str = 'code="200"', ms: int = 2) -> str:
    """Each of so many requests waited for so long."""
    return APP.format(labels=labels, n=n, s=n * ms)


def codes(found: list[Server]) -> list[list[str]]:
    return [[note.code for note in told.remarks] for told in found]


@pytest.mark.parametrize(
    ("others", "comes"),
    [
        ("", app(3, 'code="503"')),  # a label that is made at its first use
        ('up{pod="b"} 1\n', app(3, 'code="200",pod="b"')),  # its process was there
    ],
)
def test_what_first_happens_amid_a_run_counts_from_zero(
    server: Telling, others: str, comes: str
) -> None:
    pages = [app(n) + others for n in (1000, 1050)]
    found = scraped(server, *pages, app(1100) + others + comes, model="", **APP_NAMES)
    assert [told.requests for told in found] == [50, 53]
    assert codes(found) == [[], []]
    names = "# TYPE app_requests counter\n# TYPE app_queue_ms histogram\n"
    found = scraped(server, others + names, app(7), model="", **APP_NAMES)
    assert [told.requests for told in found] == [7]


def test_what_counted_before_it_is_told_of_is_no_increase(server: Telling) -> None:
    """As of a pod whose page comes in with the others'."""
    ours = [app(n) for n in (1000, 1050, 1100, 1150, 1200)]
    b, c = ([app(n, f'code="200",pod="{pod}"', 900) for n in (10**6, 10**6 + 20)] for pod in "bc")
    pages = [*ours[:2], ours[2] + b[0], ours[3] + b[1] + c[0], ours[4] + b[1] + c[1]]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [50, 50, 70, 70]
    assert [told.queue and told.queue.mean_ns for told in found][:2] == [2_000_000] * 2
    assert codes(found) == [[], ["inside-late"], [], []]
    assert 'pod="b"' in found[1].remarks[0].text


@pytest.mark.parametrize("labels", ['code="200",pod="b"', 'code="200",zone="b"', 'code="OK"'])
def test_what_goes_by_other_labels_is_a_gap_and_goes_on(server: Telling, labels: str) -> None:
    pages = [app(n) for n in (1000, 1050)] + [app(n, labels) for n in (1100, 1150, 1200)]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [50, None, 50, 50]
    assert [told.queue and told.queue.count for told in found] == [50, None, 50, 50]
    assert codes(found) == [[], ["inside-late"], [], []]


def test_what_goes_by_other_labels_again_and_again_is_never_new(server: Telling) -> None:
    """What was gone before, in the same way, is not what it is to be compared with."""
    courses = enumerate(["a", "a", "b", "b", "c", "c", "", "d", "d"])
    pages = [app(1000 + 50 * at, f'zone="{zone}"') if zone else "up 1\n" for at, zone in courses]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [50, None, 50, None, 50, None, None, 50]


def test_a_version_that_takes_over_counts_from_zero(server: Telling) -> None:
    one, two = 'model="a",version="1"', 'model="a",version="2"'
    pages = [app(1000, one), app(1050, one), app(50, two), app(100, two)]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [50, 50, 50]
    assert codes(found) == [[], [], []]


def test_a_restart_is_told_once(server: Telling) -> None:
    pages = [app(n) for n in (1000, 1050, 20, 70, 120, 10, 60)]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [50, 20, 50, 50, 10, 50]
    assert codes(found) == [[], ["server-restarted"], [], [], [], []]


@pytest.mark.parametrize("label", ["pid", "worker", "node", "hostname", "instance"])
def test_one_of_several_processes_that_begins_anew_makes_its_own_counts_new(
    server: Telling, label: str
) -> None:
    one, two = (f'code="200",{label}="{name}"' for name in "ab")
    pages = [
        app(n, one) + app(m, two) for n, m in [(100, 9000), (150, 9050), (20, 9100), (70, 9150)]
    ]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [100, 70, 100]
    assert [told.queue and told.queue.count for told in found] == [100, 70, 100]
    assert codes(found) == [[], ["server-restarted"], []]


def test_of_several_servers_those_that_tell_nothing_are_known(server: Telling) -> None:
    server.pages["/metrics"] = app(100)
    server.pages[STATS] = (404, "{}")
    with telling() as other, ExitStack() as opened:
        told = []
        for each in (server, other):
            where = Endpoint("127.0.0.1", each.server_port, "http")
            scraper = opened.enter_context(Scraper(where, MetricsSpec(**APP_NAMES)))
            if each is server:
                assert scraper.find()
            asker = opened.enter_context(Asker(each.url))
            told.append(Told(asker, where, scraper if each is server else None))
        assert [one.port for one in Inside(told).silent] == [other.server_port]
        assert Inside(told[1:]).silent == ()  # nobody tells anything, which is told otherwise
        assert Inside(told[:1]).silent == ()


def test_servers_that_call_themselves_alike_are_told_apart_by_their_pages(server: Telling) -> None:
    """As the first process of each, on its own page."""
    with telling() as other:
        urls = [f"{each.url}/metrics" for each in (server, other)]
        server.pages["/metrics"] = app(100, 'instance="0"')
        other.pages["/metrics"] = app(9000, 'instance="0"')
        where = Endpoint("127.0.0.1", server.server_port, "http")
        with Scraper(where, MetricsSpec(url=urls, **APP_NAMES)) as scraper:
            assert scraper.find()
            server.pages["/metrics"] = app(150, 'instance="0"')
            other.pages["/metrics"] = app(9007, 'instance="0"')
            assert requests(scraper.server()) == 57
            server.pages["/metrics"] = app(20, 'instance="0"')
            assert requests(scraper.server()) == 20


@pytest.mark.parametrize("label", ["pid", "worker"])
def test_a_process_that_takes_the_place_of_another_counts_from_zero(
    server: Telling, label: str
) -> None:
    """As one of several workers of a server, which starts another in its stead."""
    ours, before, after = (f'code="200",{label}="{name}"' for name in "abc")
    others = [(before, 8000), (before, 8050), (after, 30), (after, 80)]
    pages = [app(9000 + 50 * at, ours) + app(n, who) for at, (who, n) in enumerate(others)]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [100, 80, 100]
    assert [told.queue and told.queue.count for told in found] == [100, 80, 100]
    assert codes(found) == [[], ["process-replaced"], []]
    assert f'{label}="b" is gone, and code' not in found[1].remarks[0].text
    assert f'{label}="b" is gone, and {label}="c" counts in' in found[1].remarks[0].text


def test_a_process_that_comes_later_than_the_one_before_it_went_has_replaced_it(
    server: Telling,
) -> None:
    ours, before, after = (f'pid="{name}"' for name in "abc")
    others = [app(8000, before), app(8050, before), "", "", app(30, after), app(80, after)]
    pages = [app(9000 + 50 * at, ours) + other for at, other in enumerate(others)]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [100, 50, 50, 80, 100]
    assert [told.queue and told.queue.count for told in found] == [100, 50, 50, 80, 100]
    assert codes(found) == [[], [], [], ["process-replaced"], []]


def test_a_process_that_is_told_of_again_has_a_gap_in_its_means(server: Telling) -> None:
    """It was only left out of a page: what it counted meanwhile is of a longer span."""
    ours, other = 'pid="a"', 'pid="b"'
    others = [app(8000 + 50 * at, other) if at != 2 else "" for at in range(5)]
    pages = [app(9000 + 50 * at, ours) + other for at, other in enumerate(others)]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [100, 50, 150, 100]
    assert [told.queue and told.queue.count for told in found] == [100, 50, None, 100]
    assert codes(found) == [[]] * 4


RANKS = [(9000, 8000), (9050, 8050), (9100, 20), (9150, 70)]


def ranks(gone: int = 9) -> list[str]:
    """Of two processes, one of which begins anew, told apart by a label that nobody knows."""
    return [app(a, 'rank="a"') + app(b, 'rank="b"') for a, b in RANKS[:gone]]


def test_processes_that_no_known_label_tells_apart_make_a_gap_and_no_spike(server: Telling) -> None:
    found = scraped(server, *ranks(), model="", **APP_NAMES)
    assert [told.requests for told in found] == [100, None, 100]
    assert [told.queue and told.queue.count for told in found] == [100, None, 100]
    assert codes(found) == [[], ["inside-unclear"], []]
    (note,) = found[1].remarks
    assert '{rank="b"} began anew and {rank="a"} did not' in note.text
    assert note.hint == 'name the label: [target.metrics] process = "rank"'


@pytest.mark.parametrize("named", ["rank", ["host", "rank"]])
def test_a_label_that_is_named_tells_processes_apart(server: Telling, named: Any) -> None:
    found = scraped(server, *ranks(), model="", process=named, **APP_NAMES)
    assert [told.requests for told in found] == [100, 70, 100]
    assert codes(found) == [[], ["server-restarted"], []]
    joins = [*ranks(2), ranks(3)[2].replace('"b"', '"c"'), ranks(4)[3].replace('"b"', '"c"')]
    found = scraped(server, *joins, model="", process=named, **APP_NAMES)
    assert [told.requests for told in found] == [100, 50, 100]
    assert codes(found) == [[], ["process-replaced", "inside-late"], []]
    assert 'rank="b" is gone, and rank="c" counts' in found[1].remarks[0].text
    assert 'tells of {rank="c"} only now' in found[1].remarks[1].text


@pytest.mark.parametrize("label", ["node", "hostname"])
def test_a_host_that_joins_may_have_counted_before(server: Telling, label: str) -> None:
    one, two = (f'code="200",{label}="{name}"' for name in "ab")
    pages = [app(100, one), app(150, one), app(200, one) + app(9000, two)]
    found = scraped(server, *pages, app(250, one) + app(9050, two), model="", **APP_NAMES)
    assert [told.requests for told in found] == [50, 50, 100]
    assert codes(found) == [[], ["inside-late"], []]


def test_a_counter_that_goes_back_by_little_is_no_restart(server: Telling) -> None:
    pages = [app(n) for n in (1000, 1050, 1049, 1049, 1150, 1200)]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [50, None, 0, 101, 50]
    assert codes(found) == [[], ["inside-back"], [], [], []]
    assert 'code="200"} went back by little, from ' in found[1].remarks[0].text
    few = [app(n) for n in (40, 39, 89)]  # as of one that was restarted at its first requests
    assert [told.requests for told in scraped(server, *few, model="", **APP_NAMES)] == [39, None]
    pages = [STARTED.format(at) + app(n) for at, n in ((1000, 1050), (2000, 1049), (2000, 1099))]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [1049, 50]


def test_buckets_are_read_where_they_are_named_alone(server: Telling) -> None:
    pages = [
        app(n) + f'app_bucket{{le="1"}} {n}\napp_bucket{{le="+Inf"}} {2 * n}\n' for n in (10, 15)
    ]
    given = {**APP_NAMES, "failed": 'app_bucket{le="1"}'}
    (found,) = scraped(server, *pages, model="", **given)
    assert (found.requests, found.failed) == (5, 5)
    assert "app_bucket" in page(pages[0], buckets=True)
    assert "app_bucket" not in page(pages[0])
    with pytest.raises(ValueError, match="float"):
        page(pages[0] + 'app_bucket{le="1')  # it breaks off there


STARTED = "process_start_time_seconds {}\n"


@pytest.mark.parametrize("starts", [(), (1000.0, 1003.0), (1003.0, 1000.0)])
@pytest.mark.parametrize("ahead", [500, 40])
def test_a_page_that_several_processes_answer_by_turns_has_no_figures(
    server: Telling, starts: tuple[float, ...], ahead: int
) -> None:
    """Each has counted half of the 50 a second: at most one second looks like a restart, which
    is told at first."""
    pages = []
    for at in range(12):
        start = STARTED.format(starts[at % 2]) if starts else ""
        pages.append(start + app(1000 + 25 * at - ahead * (at % 2)))
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert sum(told.requests is not None for told in found) <= 1
    assert {told.requests for told in found[3:]} == {None}
    assert {told.queue for told in found[3:]} == {None}
    assert [code for each in codes(found) for code in each].count("inside-by-turns") == 1


def test_a_counter_that_passes_where_it_was_after_a_restart_is_one_process(
    server: Telling,
) -> None:
    """Few had failed before, and fail again: the requests tell that it was a restart."""
    bad = 'code="503"'
    pages = [app(1000) + app(2, bad), app(20) + app(1, bad), app(70) + app(4, bad)]
    pages += [app(70 + 50 * at) + app(4, bad) for at in range(1, 30)]
    found = scraped(server, *pages, model="", **APP_NAMES)
    assert [told.requests for told in found] == [21, 53, *[50] * 29]


def test_what_a_server_has_no_name_for_is_not_told(server: Telling) -> None:
    (found,) = scraped(server, REQUESTS.format(m="a", n=1), REQUESTS.format(m="a", n=3))
    assert (found.requests, found.failed) == (2, None)
    (llama,) = scraped(server, "llamacpp:requests_deferred 1\n", "llamacpp:requests_deferred 2\n")
    assert (llama.requests, llama.waiting) == (None, 2)


def test_what_vllm_aborted_was_not_answered(server: Telling) -> None:
    """As of a client that went away."""

    def page(n: int, aborted: int, broken: int) -> str:
        ended = {"stop": n, "length": n, "abort": aborted, "error": broken}
        return "".join(
            f'vllm:request_success_total{{finished_reason="{why}",model_name="a"}} {number}\n'
            for why, number in ended.items()
        )

    (found,) = scraped(server, page(10, 1, 1), page(13, 5, 2))
    assert found.requests == 6


def test_the_counts_of_another_model_are_not_taken_for_those_that_vanished(
    server: Telling,
) -> None:
    def page(n: int, m: int) -> str:
        ours = (REQUESTS + QUEUE).format(m="a", n=n) if n else ""
        return (REQUESTS + QUEUE).format(m="b", n=m) + ours

    found = scraped(server, page(10, 5000), page(14, 5001), page(0, 5002), page(20, 5003))
    assert [told.requests for told in found] == [4, None, 6]
    assert [told.queue and told.queue.count for told in found] == [4, None, None]


def test_a_model_that_is_told_of_from_its_first_request_on_counts_alone_from_then(
    server: Telling,
) -> None:
    pages = [REQUESTS.format(m="b", n=5000 + at) for at in range(4)]
    ours = [REQUESTS.format(m="a", n=n) for n in (3, 7)]
    found = scraped(server, *pages[:2], pages[2] + ours[0], pages[3] + ours[1])
    assert [told.requests for told in found][1:] == [3, 4]


def test_names_that_are_given_with_their_model_are_read_beside_the_model_that_is_asked(
    server: Telling,
) -> None:
    """As of a model that an ensemble asks."""

    def page(n: int, m: int) -> str:
        return REQUESTS.format(m="a", n=n) + f'a_us{{model="b"}} {m}\nasked{{model="b"}} {m}\n'

    given = {"requests": 'asked{model="b"}', "queue": 'a_us{model!="a"} in us'}
    (found,) = scraped(server, page(10, 100), page(14, 120), **given)
    assert (found.requests, found.queue) == (20, Part(20, 20_000))


def test_a_line_that_breaks_off_is_no_page(server: Telling) -> None:
    """And ends no run: it is a gap."""
    page = REQUESTS.format(m="a", n=1)
    server.pages["/metrics"] = page
    where = Endpoint("127.0.0.1", server.server_port, "openai", model="a")
    with Scraper(where, MetricsSpec()) as scraper:
        assert scraper.find()
        server.pages["/metrics"] = page + 'a{y="1", ="x"} 1\n'
        assert scraper.server() is None
        with (
            Scraper(where, MetricsSpec(url=f"{server.url}/metrics")) as named,
            pytest.raises(TargetError, match="is no page of metrics"),
        ):
            named.find()


def test_gaps_go_through_the_log_and_add_up() -> None:
    gap = Server("metrics", requests=None, failed=None)
    assert decode(Server, encode(gap)) == gap
    assert decode(Server, b'{"source":"metrics"}').requests == 0  # as logs of old have it
    whole = servers([Server("metrics", requests=3), gap, Server("metrics", requests=4)])
    assert whole is not None
    assert (whole.requests, whole.failed) == (7, 0)
    assert servers([gap, gap]) == gap


def test_replicas_that_are_slow_do_not_add_up(server: Telling) -> None:
    number, pause_s = 12, 0.3
    server.pages[STATS] = counted(success=10)
    where = Endpoint("127.0.0.1", server.server_port, "kserve", model="m")
    with ExitStack() as opened:
        askers = [opened.enter_context(Asker(server.url)) for _ in range(number)]
        inside = Inside([Told(asker, where, None) for asker in askers])
        opened.callback(inside.close)
        server.pages[STATS], server.pause_s = counted(success=13), pause_s
        begun = time.monotonic()
        found = inside.read()
        took_s = time.monotonic() - begun
    assert found is not None
    assert found.requests == 3 * number
    assert took_s < pause_s * number / 2


def test_a_targets_headers_do_not_go_unencrypted_where_the_target_is(server: Telling) -> None:
    server.pages["/metrics"] = REQUESTS.format(m="a", n=1)
    plain = Endpoint("127.0.0.1", server.server_port, "http", headers={"X-Key": "open"})
    for where in (plain, replace(plain, tls=Tls())):
        with Scraper(where, MetricsSpec(url=f"{server.url}/metrics")) as scraper:
            assert scraper.find()
    assert [headers.get("X-Key") for _, headers in server.asked] == ["open", None]


def test_more_hits_than_answers_are_all_of_them() -> None:
    """A server may have counted a hit, and its answer only in the next window."""
    assert made_of({}, cached=12, requests=10) == "100 % from the cache"
    found = {note.code: note.text for note in grade(Evidence(cached=12, served=10))[1]}
    assert found["cached"].startswith("100 % of the answers")


# ---- one that hangs

SOON_S = 1.0  # for those that do not hang, on a machine that is busy


@pytest.fixture
def patient_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that hangs is not given up while a test goes on."""
    monkeypatch.setattr("loadbench.targets.scrape._TIMEOUT", 60.0)


def requests(found: Server | None) -> int | None:
    return found.requests if found else None


def caught_up(read: Callable[[], int | None], expected: int) -> None:
    """Reads until it has told so much in all, and never more."""
    told, end = 0, time.monotonic() + 20
    while told < expected and time.monotonic() < end:
        told += read() or 0
    assert told == expected


def settled() -> None:
    """Until nobody is asked any more."""
    until = time.monotonic() + 20
    while any(one.name == "question" for one in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def two_replicas() -> Iterator[tuple[Inside, list[Telling]]]:
    with ExitStack() as opened:
        servers = [opened.enter_context(telling()) for _ in range(2)]
        told = []
        for server in servers:
            server.pages[STATS] = counted(success=1000)
            where = Endpoint("127.0.0.1", server.server_port, "kserve", model="m")
            told.append(Told(opened.enter_context(Asker(server.url)), where, None))
        inside = Inside(told)
        opened.callback(inside.close)
        yield inside, servers


def test_a_replica_that_hangs_is_a_gap_in_its_own_part_alone() -> None:
    with two_replicas() as (inside, (healthy, frozen)):
        goes_on = frozen.hangs[STATS] = threading.Event()
        for at in (1, 2):
            healthy.pages[STATS] = counted(success=1000 + 100 * at)
            frozen.pages[STATS] = counted(success=1000 + 100 * at)
            assert requests(inside.read(SOON_S)) == 100
        assert len(frozen.asked) == 2  # at first, and once since
        goes_on.set()
        caught_up(lambda: requests(inside.read(SOON_S)), 200)
        del frozen.hangs[STATS]
        assert requests(inside.read()) == 0
    assert not [one for one in threading.enumerate() if one.name == "question"]


def test_the_last_reading_waits_for_what_is_late_and_asks_once_more() -> None:
    with two_replicas() as (inside, (_, frozen)):
        goes_on = frozen.hangs[STATS] = threading.Event()
        assert requests(inside.read(0.05)) is not None
        frozen.pages[STATS] = counted(success=1070)
        threading.Timer(0.2, goes_on.set).start()
        assert requests(inside.read()) == 70
        assert len(frozen.asked) == 3


@pytest.mark.usefixtures("patient_pages")
def test_a_page_that_hangs_is_a_gap_in_what_it_tells_alone(server: Telling) -> None:
    with telling() as other:
        urls = [f"{each.url}/metrics" for each in (server, other)]
        server.pages["/metrics"] = other.pages["/metrics"] = "asks_total 1000\n"
        where = Endpoint("127.0.0.1", server.server_port, "http")
        with Scraper(where, MetricsSpec(url=urls, requests="asks")) as scraper:
            assert scraper.find()
            goes_on = other.hangs["/metrics"] = threading.Event()
            for at in (1, 2):
                server.pages["/metrics"] = f"asks_total {1000 + 100 * at}\n"
                other.pages["/metrics"] = f"asks_total {1000 + 10 * at}\n"
                assert requests(scraper.server(time.monotonic() + SOON_S)) == 100
            goes_on.set()
            caught_up(lambda: requests(scraper.server(time.monotonic() + SOON_S)), 20)
    assert not [one for one in threading.enumerate() if one.name == "question"]


@pytest.mark.usefixtures("patient_pages")
@pytest.mark.parametrize("beside", [False, True])  # of that server alone, or one of all
def test_statistics_do_not_wait_for_a_page_that_hangs(server: Telling, beside: bool) -> None:
    server.pages = {STATS: counted(success=10), "/metrics": REQUESTS.format(m="m", n=1)}
    where = Endpoint("127.0.0.1", server.server_port, "kserve", model="m")
    spec = MetricsSpec(url=f"{server.url}/metrics")
    with Asker(server.url) as asker, Scraper(where, spec) as scraper:
        assert scraper.find()
        told = [Told(asker, where, None if beside else scraper)]
        inside = Inside(told, scraper if beside else None)
        goes_on = server.hangs["/metrics"] = threading.Event()
        for at in (1, 2):
            server.pages[STATS] = counted(success=10 + at)
            assert requests(inside.read(SOON_S)) == 1
        goes_on.set()
        inside.close()


def test_the_seconds_of_a_server_are_its_own_while_another_hangs() -> None:
    """As a run reads them."""
    with two_replicas() as (inside, (healthy, frozen)):
        origin, number = time.monotonic_ns(), 1000

        def tell() -> Machine:
            """Before each reading: what it finds."""
            nonlocal number
            number += 100
            healthy.pages[STATS] = counted(success=number)
            return Machine(cpu=0.5)

        goes_on = frozen.hangs[STATS] = threading.Event()
        readings = Readings(origin, 0, tell, inside.read)
        try:
            for second in range(3):
                while (pair := readings.of(second)) == (None, None):
                    assert time.monotonic_ns() < origin + 20 * SECOND
                assert requests(pair[1]) == 100
            frozen.pages[STATS] = counted(success=1007)
            goes_on.set()
            told = [readings.last(), readings.of(3)[1]]  # that second may have come meanwhile
            assert sum(requests(found) or 0 for found in told) % 100 == 7
        finally:
            readings.stop()


def test_who_is_late_again_and_again_is_told_of() -> None:
    """Its figures are beside those of another second."""
    with two_replicas() as (inside, (_, slow)):
        told = list[Note]()
        for _ in range(5):
            goes_on = slow.hangs[STATS] = threading.Event()
            told += getattr(inside.read(SOON_S), "remarks", ())
            del slow.hangs[STATS]
            goes_on.set()
            settled()
    (note,) = told
    assert note.code == "inside-behind"
    assert f"over {SOON_S:g} s after a second's end" in note.text


def test_who_takes_long_to_tell_again_and_again_is_told_of() -> None:
    """It has not been late for a second, and what it tells may be of any moment of that time."""
    with two_replicas() as (inside, (_, slow)):
        told = list[Note]()
        for _ in range(5):
            goes_on = slow.hangs[STATS] = threading.Event()
            answers = threading.Timer(0.3, goes_on.set)
            answers.start()
            told += getattr(inside.read(10), "remarks", ())
            del slow.hangs[STATS]
    (note,) = told
    assert note.code == "inside-behind"
    assert "takes 0.3 s and more to tell of its inside" in note.text


def test_who_is_late_is_one_and_not_all_of_them_together() -> None:
    """Of several each may be late once by chance."""
    with two_replicas() as (inside, servers):
        told = list[Note]()
        for at in range(4):
            slow = servers[at % 2]
            goes_on = slow.hangs[STATS] = threading.Event()
            told += getattr(inside.read(SOON_S), "remarks", ())
            del slow.hangs[STATS]
            goes_on.set()
            settled()
        told += getattr(inside.read(), "remarks", ())
    assert told == []
