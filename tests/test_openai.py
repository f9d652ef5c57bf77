"""OpenAI-compatible targets: recognised, asked, and when each of their tokens came."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.experiments.shadowing import beside
from loadbench.histogram import Histogram
from loadbench.merge import merge
from loadbench.model import Start, Window
from loadbench.plan import Endpoint, Plan, RequestPlan
from loadbench.shape import Phase
from loadbench.spec import load
from loadbench.streams import Stream
from loadbench.targets import inputs, openai
from loadbench.targets.ask import Asker
from loadbench.targets.events import Events
from loadbench.targets.wire import BadAnswer, OverLong, Prepared
from loadbench.targetspec import TargetSpec
from loadbench.tokens import together
from loadbench.units import MS, SECOND
from tests.completions import MODEL, completions
from tests.lanes import Done, drive
from tests.running import loadbench, summary

ENDPOINT = Endpoint(
    host="h", port=1, protocol="openai", model=MODEL, path=openai.CHAT, method="POST"
)


def pool(endpoint: Endpoint = ENDPOINT, **more: Any) -> list[Prepared]:
    ((*found,),), _ = inputs.prepare(endpoint, [RequestPlan("chat", **more)], seed=1)
    return found


def body(request: Prepared) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.data.partition(b"\r\n\r\n")[2])
    return found


def driven(port: int, rate: float = 20, seconds: float = 2, **more: Any) -> Done:
    options = {"first_ms": 30, "gap_ms": 10, **more.pop("options", {})}
    fields: dict[str, Any] = {"max_tokens": "8", "options": options, **more}
    changed: dict[str, Any] = {
        key: fields.pop(key)
        for key in ("timeout_ns", "warmup_ns", "arrivals", "concurrency", "drain_ns")
        if key in fields
    }
    path = fields.pop("target", openai.CHAT)
    endpoint = Endpoint(
        host="127.0.0.1", port=port, protocol="openai", model=MODEL, path=path, method="POST"
    )
    wanted: dict[str, Any] = {
        "endpoint": endpoint,
        "requests": (RequestPlan("chat", **fields),),
        "arrivals": "constant",
        "phases": (Phase(rate, rate, round(seconds * SECOND)),),
        "drain_ns": 2 * SECOND,
        **changed,
    }
    return drive(Plan(**wanted))


def stream(found: Done) -> Stream:
    told = merge(found.recorded).stream
    assert told is not None
    return told


# ---- recognised


def test_it_is_recognised_by_the_models_it_tells() -> None:
    with completions() as server, Asker(server.url) as asker:
        found = asker.describe(TargetSpec(url=server.url))
        assert "/v1/models" in asker.known_by
        assert (found.protocol, found.model, found.path) == ("openai", MODEL, openai.CHAT)
        assert not found.closes
        with pytest.raises(SpecError, match="no model 'other'") as caught:
            asker.describe(TargetSpec(url=server.url, model="other"))
        assert MODEL in caught.value.hint
        text = asker.describe(TargetSpec(url=server.url, path="/v1/completions"))
        assert text.path == "/v1/completions"


@pytest.mark.parametrize("given", ["/openai/v1", "/openai/v1/", "/openai/v1/chat/completions"])
def test_it_is_recognised_behind_a_path_of_its_own(given: str) -> None:
    with completions(root="/openai/v1") as server:
        for url, path in ((server.url + given, "/"), (server.url, given)):
            with Asker(url) as asker:
                found = asker.describe(TargetSpec(url=url, path=path))
            assert (found.protocol, found.model) == ("openai", MODEL)
            assert found.path == "/openai/v1/chat/completions"
            with Asker(url) as asker:
                said = asker.describe(TargetSpec(url=url, path=path, protocol="openai"))
            assert said.path == found.path


@pytest.mark.parametrize("told", [None, [], {}, {"data": 3}, {"data": [3]}, {"models": []}])
def test_other_answers_are_not_taken_for_it(told: object) -> None:
    assert openai.models(told) is None


# ---- requests


def test_made_up_prompts_differ_from_their_first_word_on() -> None:
    found = [body(one) for one in pool(pool=50, words="uniform(3, 9)", max_tokens="uniform(1, 5)")]
    firsts = {one["messages"][0]["content"].split()[0] for one in found}
    assert len(firsts) == len(found) == 50
    lengths = {len(one["messages"][0]["content"].split()) for one in found}
    assert lengths == set(range(3, 10))
    assert {one["max_tokens"] for one in found} == {1, 2, 3, 4, 5}
    assert all(one["stream"] and one["stream_options"] for one in found)


@pytest.mark.parametrize("path", [openai.CHAT, "/v1/completions"])
def test_a_seed_gives_the_same_prompts_but_for_their_first_words(path: str) -> None:
    """A server that has kept the prompts of the run before has no beginning of these."""
    runs = [list(map(said, pool(pool=500, words="uniform(1, 30)", path=path))) for _ in range(2)]
    one, other = ([words[1:] for words in run] for run in runs)
    assert one == other
    firsts, others = ({words[0] for words in run} for run in runs)
    assert len(firsts) == len(others) == 500
    assert len(firsts & others) < 5  # of 900 million
    assert {len(first) for first in firsts | others} == {9}
    tokens = [[body(found)["max_tokens"] for found in pool(pool=50)] for _ in range(2)]
    assert tokens[0] == tokens[1]


def said(request: Prepared) -> list[str]:
    found = body(request)
    text: str = found["messages"][0]["content"] if "messages" in found else found["prompt"]
    return text.split()


def test_prompts_from_a_file_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one two\nthree\n")
    assert pool(data=str(path)) == pool(data=str(path))


def test_two_targets_whose_answers_are_compared_are_asked_the_same() -> None:
    spec = load("steady", {"target.protocol": "openai", "load.arrivals": "constant"}).spec
    with completions() as a, completions() as b:
        targets = [_target(server.port, server.url) for server in (a, b, a, b)]
        for pair in (targets[:2], targets[2:]):
            beside((pair[0], pair[1]), (spec, spec), rate=10, seconds=1)
    asked = [
        sorted(one["messages"][0]["content"] for one in server.did["asked"]) for server in (a, b)
    ]
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == len(asked[0]) == 20  # and not what they were asked before


def _target(port: int, url: str) -> Any:
    where = replace(ENDPOINT, host="127.0.0.1", port=port)
    return SimpleNamespace(endpoint=where, url=url)


def test_prompts_come_from_a_file(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "c"}]
    lines = [{"prompt": "a"}, {"prompt": "b", "max_tokens": 7}, {"messages": said}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = [body(one) for one in pool(data=str(path), max_tokens="3")]
    assert [one["messages"][0]["content"] for one in found] == ["a", "b", "c"]
    assert [one["max_tokens"] for one in found] == [3, 7, 3]
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    found = [body(one) for one in pool(data=str(tmp_path / "lines.txt"), path="/v1/completions")]
    assert [one["prompt"] for one in found] == ["one", "two"]


def test_options_go_into_the_body_and_a_body_of_ones_own_is_left_alone() -> None:
    options = {"temperature": 0, "stream": False, "max_completion_tokens": 5}
    (found,) = map(body, pool(pool=1, options=options))
    assert found["temperature"] == 0
    assert "max_tokens" not in found
    assert "stream_options" not in found
    (own,) = pool(body='{"mine": 1}')
    assert body(own) == {"mine": 1}
    assert own.data.startswith(b"POST /v1/chat/completions ")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"words": "0"}, "words 0 gives 0"),
        ({"max_tokens": "uniform(0, 4)"}, "max_tokens"),
        ({"max_tokens": "1e9"}, "max_tokens"),
        ({"expect": "out.npz"}, "expect has no use"),
        ({"check": 0.5}, "check has no use"),
        ({"shapes": {"x": (3,)}}, "shapes is only of KServe"),
        ({"path": "chat"}, "path"),
    ],
)
def test_requests_that_cannot_be_are_said(more: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        pool(**more)


def test_rows_without_a_prompt_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n{"question": "b"}\n')
    with pytest.raises(SpecError, match=r"rows.jsonl line 2: neither prompt nor messages"):
        pool(data=str(path))
    path.write_text('{"prompt": "a", "max_tokens": "many"}\n')
    with pytest.raises(SpecError, match=r"line 1: max_tokens is 'many'"):
        pool(data=str(path))
    path.write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    with pytest.raises(SpecError, match="messages are of chats"):
        pool(data=str(path), path="/v1/completions")


@pytest.mark.parametrize("protocol", ["http", "kserve"])
def test_other_protocols_do_not_know_prompts(protocol: Any) -> None:
    other = Endpoint(host="h", port=1, protocol=protocol)
    with pytest.raises(SpecError, match="words is only of OpenAI's API"):
        pool(other, words="5")


# ---- events


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("part", [1, 2, 3, 7, 1000])
def test_events_come_in_any_pieces(end: str, part: int) -> None:
    text = ": hello||data: one||event: x|data:two|data: three|id: 7|||data||"
    data = text.replace("|", end).encode()
    events = Events()
    found = [one for at in range(0, len(data), part) for one in events.feed(data[at : at + part])]
    assert [*found, *events.end()] == [b"one", b"two\nthree", b""]


def test_the_last_event_may_end_with_the_answer() -> None:
    events = Events()
    assert events.feed(b"data: a\n\ndata: [DONE]") == [b"a"]
    assert events.end() == [b"[DONE]"]
    assert events.end() == []


def test_an_event_has_an_end() -> None:
    with pytest.raises(OverLong):
        Events().feed(b"x" * 2_000_000)


@pytest.mark.parametrize(
    ("event", "says", "ends"),
    [
        ('{"choices":[{"delta":{"role":"assistant","content":""}}]}', False, False),
        ('{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}', True, False),
        ('{"choices":[{"delta":{"reasoning_content":"a"}}]}', True, False),
        ('{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}', True, False),
        ('{"choices":[{"text":"a"}]}', True, False),
        ('{"choices":[{"text":"","finish_reason":"stop"}]}', False, True),
        ('{"choices":[],"usage":{"completion_tokens":3,"prompt_tokens":4}}', False, False),
        ("[DONE]", False, True),
    ],
)
def test_what_an_event_says(event: str, says: bool, ends: bool) -> None:
    found = openai.piece(event.encode())
    assert (found.says, found.ends) == (says, ends)


@pytest.mark.parametrize("event", ["", "x", "[]", "3", '{"choices":3}', "\xff", "[" * 100_000])
def test_what_is_no_part_of_a_completion_is_a_bad_answer(event: str) -> None:
    with pytest.raises(BadAnswer, match="no part of a completion"):
        openai.piece(event.encode("latin-1"))


def test_the_servers_own_word_that_it_failed_is_heard() -> None:
    with pytest.raises(BadAnswer, match="broke off: too much") as caught:
        openai.piece(b'{"error": {"message": "too\\n much"}}')
    assert caught.value.failure == "stream_error"


# ---- runs


@pytest.mark.parametrize("path", [openai.CHAT, "/v1/completions"])
@pytest.mark.parametrize("part", [None, 3])
def test_tokens_are_timed_and_counted_as_the_server_sent_them(path: str, part: int | None) -> None:
    with completions() as server:
        options = {} if part is None else {"part": part}
        found = driven(server.port, target=path, options=options)
    found.check()
    told = stream(found)
    assert found.failed == {}
    assert found.sum("done") == 40 == server.did["answered"] == told.told
    assert told.pieces == told.tokens == told.generated == 40 * 8 == server.did["tokens"]
    assert told.first.count == 40
    assert told.gaps.count == 40 * 7
    assert told.pace.count == 40
    assert told.prompt > 40
    assert told.barren == 0
    assert 29 * MS < (told.first.quantile(0.5) or 0) < 60 * MS
    assert 9 * MS < (told.gaps.quantile(0.5) or 0) < 12 * MS
    assert 9 * MS < (told.pace.quantile(0.5) or 0) < 12 * MS
    assert 98 * MS < (found.latency.quantile(0.5) or 0) < 140 * MS
    assert all(one["path"] == path for one in server.did["asked"])
    slowest = merge(found.recorded).slowest
    assert slowest
    firsts = [(one.first or 0) - one.sent for one in slowest]
    assert 25 * MS < min(firsts) < 70 * MS  # the slowest of them may have had no processor
    rests = [one.done - (one.first or one.done) for one in slowest]
    assert max(rests) > 60 * MS  # a first piece that is read late makes the rest look short


def test_several_tokens_in_an_event_are_counted_by_the_server() -> None:
    with completions() as server:
        found = driven(server.port, options={"per_event": 4})
    told = stream(found)
    assert (told.pieces, told.tokens, told.generated) == (40 * 2, 40 * 8, 40 * 8)
    assert told.counted == told.pieces
    assert 9 * MS / 7 < (told.pace.quantile(0.5) or 0) < 13 * MS / 7


def test_tokens_that_come_in_one_read_have_come_at_once() -> None:
    """Four times two of them: no time is between the two."""
    with completions() as server:
        told = stream(driven(server.port, options={"together": 2}))
    assert (told.pieces, told.gaps.count) == (40 * 8, 40 * 7)
    assert told.together == pytest.approx(40 * 4, abs=8)  # a chunk that is read in two is not
    assert (told.gaps.quantile(0.9) or 0) > 15 * MS


def test_an_answer_in_one_event_has_no_pace() -> None:
    with completions() as server:
        told = stream(driven(server.port, rate=10, options={"per_event": 8}))
    assert (told.tokens, told.first.count, told.pace.count) == (20 * 8, 20, 0)


def test_a_server_that_does_not_count_is_counted_by_its_events() -> None:
    with completions() as server:
        found = driven(server.port, options={"usage": False})
    told = stream(found)
    assert (told.told, told.tokens, told.pieces, told.generated) == (0, 0, 320, 320)
    assert told.pace.count == 0


def test_an_answer_that_comes_whole_has_tokens_and_no_times_of_them() -> None:
    with completions() as server:
        found = driven(server.port, options={"stream": False})
    told = stream(found)
    assert found.failed == {}
    assert (told.tokens, told.pieces, told.first.count) == (320, 0, 0)


@pytest.mark.parametrize(
    ("options", "failure", "words", "began"),
    [
        ({"breaks": 3, "by": "error"}, "stream_error", "out of memory", True),
        ({"breaks": 3, "by": "silence"}, "bad_answer", "without a finish_reason", True),
        ({"breaks": 3, "by": "hanging up"}, "truncated", "closed", True),
        ({"breaks": 0, "by": "error"}, "stream_error", "out of memory", False),
        ({"status": 429}, "http_429", "429", False),
        ({"empty": True}, "bad_answer", "no choices", False),
    ],
)
def test_failures_have_their_names(
    options: dict[str, Any], failure: str, words: str, began: bool
) -> None:
    with completions() as server:
        found = driven(server.port, rate=10, options=options)
    found.check()
    assert found.failed == {failure: 20}
    assert words in found.examples[failure].reason
    told = stream(found)
    assert told.barren == (0 if began else 20)
    assert told.first.count == (20 if began else 0)
    assert told.pieces == (60 if began else 0)


def test_a_whole_answer_without_a_choice_is_none() -> None:
    with completions() as server:
        found = driven(server.port, rate=10, options={"stream": False, "empty": True})
    assert found.failed == {"bad_answer": 20}


def test_a_good_answer_without_a_token_counts_among_the_first_tokens() -> None:
    with completions() as server:
        found = driven(server.port, rate=10, options={"max_tokens": 0})
    assert (found.failed, found.sum("done")) == ({}, 20)
    assert (stream(found).barren, stream(found).first.count) == (20, 0)


def test_answers_that_take_too_long_keep_the_tokens_that_came() -> None:
    with completions() as server:
        options = {"gap_ms": 200}
        found = driven(server.port, rate=5, seconds=1, options=options, timeout_ns=500 * MS)
    assert found.failed == {"timeout": 5}
    told = stream(found)
    assert told.first.count == 5
    assert 10 <= told.pieces <= 15
    assert told.barren == 0


def test_nobody_there_is_barren() -> None:
    found = driven(1, rate=10, seconds=1)
    assert found.failed == {"refused": 10}
    assert stream(found).barren == 10


def test_warm_up_is_in_no_figure_of_tokens() -> None:
    with completions() as server:
        found = driven(server.port, warmup_ns=SECOND)
    warm = [window for window in found.windows if window.stage == "warmup"]
    assert sum(window.stream.pieces for window in warm if window.stream) > 0
    assert stream(found).pieces == 320
    assert stream(found).first.count == 40


def test_a_closed_loop_streams_too() -> None:
    with completions() as server:
        found = driven(server.port, seconds=1, arrivals="closed", concurrency=3)
    found.check()
    told = stream(found)
    assert told.told == found.sum("done") > 20
    assert 29 * MS < (told.first.quantile(0.5) or 0) < 60 * MS


def test_a_window_has_the_tokens_of_its_second() -> None:
    """Answers of two seconds: tokens come in each of them, not when the answer is done."""
    with completions() as server:
        options = {"first_ms": 100, "gap_ms": 100}
        found = driven(server.port, rate=2, seconds=3, max_tokens="20", options=options)
    pieces = [window.stream.pieces if window.stream else 0 for window in found.recorded]
    assert len(pieces) >= 4
    assert all(8 <= number <= 45 for number in pieces[:4])
    assert sum(pieces) == 6 * 20


# ---- the whole


def _scenario(folder: Path, url: str, tables: str = "") -> Path:
    path = folder / "llm.toml"
    path.write_text(
        f"""
[target]
url = "{url}"
[load]
arrivals = "constant"
warmup = "1s"
phases = [{{ rate = 20, for = "3s" }}]
[[request]]
name = "chat"
words = "uniform(5, 10)"
max_tokens = "uniform(4, 8)"
options = {{ first_ms = 20, gap_ms = 5 }}
{tables}
"""
    )
    return path


def test_a_run_tells_of_tokens_and_checks_them(tmp_path: Path) -> None:
    tables = """
[checks]
first_token_p99 = "< 2 s"
token_gap_p50 = "> 1 ms"
token_pace_p95 = "< 1 s"
tokens = "> 20 /s"
"""
    with completions() as server:
        path = _scenario(tmp_path, server.url, tables)
        told = summary(path, cwd=tmp_path)
    assert told["failed"] == {}
    tokens = told["tokens"]
    assert told["done"] == 60
    assert len(server.did["asked"]) >= 60
    assert tokens["counted"] == tokens["pieces"] == tokens["generated"]
    assert tokens["per_s"] == pytest.approx(20 * 6, rel=0.2)
    assert 19 < tokens["first_token_ms"]["p50"] < 60
    assert 4 < tokens["token_gap_ms"]["p50"] < 8
    assert [check["state"] for check in told["checks"]] == ["passed"] * 4
    assert tokens["prompt"] > 0
    page = loadbench("show", "last", cwd=tmp_path).stdout
    assert "TOKENS" in page
    assert "as the server counts" in page
    windows = [
        one
        for one in runlog.read(runlog.find("last", tmp_path / "results"))
        if isinstance(one, Window) and one.stage != "warmup"
    ]
    assert sum(window.stream.pieces for window in windows if window.stream) == tokens["pieces"]


def test_a_run_says_that_its_tokens_came_several_at_once(tmp_path: Path) -> None:
    with completions() as server:
        path = _scenario(tmp_path, server.url)
        options = "options = { first_ms = 20, gap_ms = 20, together = 2 }"
        path.write_text(path.read_text().replace("options = { first_ms = 20, gap_ms = 5 }", options)
                        .replace("uniform(4, 8)", "8"))  # fmt: skip
        told = summary(path, cwd=tmp_path)
    said = {note["code"]: note for note in told["notes"]}
    assert told["tokens"]["token_gap_ms"]["p50"] < 0.001  # which by itself would be false
    share = int(said["tokens-together"]["text"].partition(" % of the tokens ")[0])
    assert share == pytest.approx(57, abs=4)  # a chunk that is read in two is not, as above
    assert "this process came late" in said["tokens-together"]["hint"]
    assert "in one read" in loadbench("show", "last", cwd=tmp_path).stdout


@pytest.mark.parametrize(("number", "told"), [(0, False), (4, False), (5, True)])
def test_a_few_tokens_together_are_nothing_to_tell_of(number: int, told: bool) -> None:
    gaps = Histogram.of([0] * number + [20 * MS] * (100 - number))
    total: Any = SimpleNamespace(whole=SimpleNamespace(stream=Stream(gaps=gaps)))
    assert (together(total) is not None) is told


def test_a_check_on_the_first_token_fails_where_it_is_slow(tmp_path: Path) -> None:
    with completions() as server:
        path = _scenario(tmp_path, server.url, '[checks]\nfirst_token_p50 = "< 5 ms"\n')
        told = summary(path, cwd=tmp_path, code=1)
    (check,) = told["checks"]
    assert check["state"] == "failed"
    assert check["value"] > 19


def test_the_scenario_that_is_copied_runs(tmp_path: Path) -> None:
    copied = Path(__file__).parents[1] / "scenarios/targets/openai.toml"
    with completions() as server:
        more = ("--target", server.url, "--rate", "10", "--duration", "2s")
        told = summary(copied, *more, cwd=tmp_path)
    assert told["failed"] == {}
    assert told["tokens"]["pieces"] == told["tokens"]["counted"] > 100
    start = next(iter(runlog.read(runlog.find("last", tmp_path / "results"))))
    assert isinstance(start, Start)
    assert start.limit_ns is None  # nobody expects all of an answer in a tenth of a second
    assert [rule.limit for rule in start.rules if rule.quantity == "first_token_p99"] == [1000.0]
    names = [check["name"] for check in told["checks"]]
    assert names == ["first_token_p99", "token_gap_p99", "errors"]


def test_a_dry_run_shows_an_answer(tmp_path: Path) -> None:
    with completions() as server:
        path = _scenario(tmp_path, server.url)
        found = loadbench("run", path, "--dry-run", cwd=tmp_path)
        asked = "options = { first_ms = 20, gap_ms = 5, breaks = 1, by = 'silence' }"
        path.write_text(path.read_text().replace("options = { first_ms = 20, gap_ms = 5 }", asked))
        broken = loadbench("run", path, "--dry-run", cwd=tmp_path, code=None)
    assert "data: " in found.stdout
    assert "without a finish_reason" in broken.stdout + broken.stderr
