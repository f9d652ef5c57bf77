"""Secrets that are typed, or stand in a scenario, though they should be named: they reach the
target, and are not written down anywhere."""

import time
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from loadbench import runlog
from loadbench.cli.find import _known
from loadbench.environment import hidden, kept, left_out, literal, shown, typed
from loadbench.errors import SpecError, TargetError
from loadbench.experiments.find import Finder
from loadbench.experiments.sides import Side, differences
from loadbench.judge.differences import settings, work
from loadbench.judge.searches import Hunt, Setting, parse_over
from loadbench.load.connection import Connection
from loadbench.load.exemplar import Parts, sample
from loadbench.machine import Gpu
from loadbench.metricspec import MetricsSpec
from loadbench.model import Note, Server
from loadbench.plan import Endpoint
from loadbench.report.page.again import scenario_text
from loadbench.runner import Options
from loadbench.runner.inside import Inside, Told
from loadbench.spec import load
from loadbench.targets.ask import Asker
from loadbench.targets.scrape import Scraper
from loadbench.units import MS
from tests.answering import Answering, Handler, serve
from tests.running import loadbench, summary
from tests.telling import telling
from tests.test_answer import kind
from tests.test_find_search import TERMS
from tests.test_lacking import BRIEF, counting
from tests.test_target_headers import SECRET, guarded, written

KEY = "target.headers.Authorization"
TYPED = ("--set", f"{KEY}=Bearer {SECRET}")
IN_FILE = f'headers = {{ Authorization = "Bearer {SECRET}" }}'


def holding(folder: Path) -> list[Path]:
    """The files that have the secret, but for the scenario."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".toml"]
    assert any(path.name == "run.json" for path in files)
    return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ("", TYPED),
        ("", (f"--set={KEY}=Bearer {SECRET}",)),
        ("", ("--set", f'target.headers={{ Authorization = "Bearer {SECRET}" }}')),
        (IN_FILE, ()),
    ],
)
def test_a_secret_that_is_written_out_is_kept_nowhere(
    tmp_path: Path, headers: str, own: tuple[str, ...]
) -> None:
    short = ("--duration", "1s", "--set", "load.warmup=0s")
    with guarded() as (server, url):
        found = summary(written(tmp_path, url, headers), *own, *short, cwd=tmp_path)
        assert (server.refused, found["failed"], found["done"]) == (0, {}, 40)
    loadbench("report", "last", cwd=tmp_path)
    assert holding(tmp_path) == []
    (folder,) = runlog.runs(tmp_path / "results")
    snapshot = runlog.read_snapshot(folder)
    assert snapshot["spec"]["target"]["headers"] == {"Authorization": "(left out)"}


def test_what_a_server_repeats_of_one_is_not_kept_either(tmp_path: Path) -> None:
    with guarded() as (server, url):
        server.repeats = True
        short = ("--duration", "1s", "--json")
        told = loadbench("run", written(tmp_path, url, ""), *TYPED, *short, cwd=tmp_path, code=None)
    assert '"http_500"' in told.stdout
    assert SECRET not in told.stdout + told.stderr
    assert holding(tmp_path) == []


def test_a_token_in_an_address_is_not_kept(tmp_path: Path) -> None:
    with guarded() as (_, url):
        own = ("--set", "target.protocol=http", *TYPED, "--duration", "1s")
        where = f"{url}/v2?user=me&api_key={SECRET}"
        loadbench("run", written(tmp_path, url, ""), "--target", where, *own, cwd=tmp_path)
    assert holding(tmp_path) == []
    assert SECRET not in "".join(map(str, tmp_path.rglob("*")))
    (folder,) = runlog.runs(tmp_path / "results")
    told = runlog.read_snapshot(folder)["target"]["url"]
    assert told.endswith("/v2?user=me&api_key=(left out)")


@pytest.mark.parametrize("gets", ["GET", "POST"])
def test_a_token_in_an_address_that_is_asked_before_is_not_kept(tmp_path: Path, gets: str) -> None:
    """Whether the path is there, or not to be got."""
    with counting((404, ""), gets) as (url, _):
        where = f"{url}/predict?api_key={SECRET}"
        own = ("run", "steady", "--target", where, *BRIEF)
        done = loadbench(*own, cwd=tmp_path, code=0 if gets == "GET" else 2)
    assert "GET /predict?api_key=(left out)" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert gets != "GET" or holding(tmp_path) == []


def test_a_token_in_the_address_of_metrics_is_not_kept(tmp_path: Path) -> None:
    with guarded() as (_, url), telling() as server:
        path = f"/metrics?token={SECRET}"
        server.pages[path] = "own_counter 1\n"
        own = ("--set", f"target.metrics.url={server.url}{path}", "--duration", "1s", *TYPED)
        done = loadbench("run", written(tmp_path, url, ""), *own, cwd=tmp_path)
    assert "/metrics?token=(left out) is known" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert holding(tmp_path) == []


@pytest.mark.parametrize("body", [(404, ""), (200, "no page {"), (200, "x" * (17 << 20))])
def test_a_page_of_metrics_that_fails_is_told_of_without_its_token(body: tuple[int, str]) -> None:
    with telling() as server:
        server.pages[f"/metrics?token={SECRET}"] = body[1] if body[0] == 200 else body
        address = f"{server.url}/metrics?token={SECRET}"
        for url in (address, address.replace(str(server.server_port), "1")):
            endpoint = Endpoint("127.0.0.1", server.server_port, "http")
            with Scraper(endpoint, MetricsSpec(url=url)) as scraper:
                with pytest.raises(TargetError, match=r"token=\(left out\): ") as caught:
                    scraper.find()
                assert SECRET not in f"{caught.value.message} {caught.value.hint}"


def test_a_target_that_is_down_is_told_of_without_the_token_in_its_address() -> None:
    with Asker("http://127.0.0.1:1") as asker:
        with pytest.raises(TargetError, match=r"GET .*/p\?a=1&token=\(left out\): ") as caught:
            asker.reach(f"/p?a=1&token={SECRET}")
        assert SECRET not in caught.value.message


def test_a_target_that_gets_too_much_is_told_of_without_it(tmp_path: Path) -> None:
    where = f"http://models.example/p?token={SECRET}"
    own = ("run", "steady", "--target", where, "--rate", "5000")
    told = loadbench(*own, cwd=tmp_path, code=2).stderr
    assert "token=(left out) may be somebody else's" in told
    assert SECRET not in told


def test_of_cookies_each_value_is_a_secret() -> None:
    headers = {"Cookie": f"theme=dark; session={SECRET}"}
    assert hidden(f"no such session: {SECRET}", headers) == "no such session: (left out)"
    assert hidden('{"theme": "dark"}', headers) == '{"theme": "dark"}'
    digest = {"Authorization": f'Digest realm="a", response="{SECRET}"'}
    assert hidden(f"not {SECRET}", digest) == "not (left out)"


def test_a_secret_beyond_ascii_is_found_in_what_is_utf_8() -> None:
    headers = {"X-Api-Key": "schlüssel-1234"}
    assert hidden("no schlüssel-1234".encode(), headers) == b"no (left out)"
    assert hidden("no schlüssel-1234".encode("latin-1"), headers) == b"no (left out)"
    assert hidden("no", {"X-Api-Key": "abc\udcff1234"}) == "no"


def test_a_session_in_a_body_is_work_and_one_in_a_query_is_not() -> None:
    body = '{"session_id": "5", "x": 1}'
    assert shown("request.body", body) == body
    long = "abcdefgh01234567"
    assert shown("url", f"/a?session_id={long}&x=1") == "/a?session_id=(left out)&x=1"
    assert shown("url", f"/a?X-Amz-Signature={long}") == "/a?X-Amz-Signature=(left out)"
    assert shown("target.headers.X-Session-Id", "1234") == "(left out)"


class Repeating(Handler):
    """Fails with all that it was sent."""

    def do_GET(self) -> None:
        self.body()
        self.say(500, f"no {unquote(self.path)} for {self.headers}")

    do_POST = do_GET


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", f'headers = {{ X-Api-Key = "{SECRET}" }}'),
        ("", f'path = "/p?x=1&api_key={SECRET}"'),
        ("", f'body = "a"\nheaders = {{ Authorization = "Bearer {SECRET}" }}'),
        (f"/p?x=1&api_key={SECRET}", ""),
        (f"/p?x=1&api_key={SECRET.replace('-', '%2D')}", ""),
    ],
)
def test_what_a_server_repeats_of_a_request_is_not_kept_either(
    tmp_path: Path, path: str, asked: str
) -> None:
    with serve(Answering(Repeating)) as server:
        file = written(tmp_path, f"{server.url}{path}", "")
        text = file.read_text().replace("kserve", "http").replace('model = "m"', "")
        file.write_text(f'{text}\n[[request]]\nname = "a"\n{asked}')
        for more in ("--dry-run", "--json"):
            told = loadbench("run", file, "--duration", "1s", more, cwd=tmp_path, code=None)
            assert "(left out)" in told.stdout
            assert SECRET not in unquote(told.stdout + told.stderr)
    assert holding(tmp_path) == []


@pytest.mark.long
def test_several_runs_keep_none(tmp_path: Path) -> None:
    short = ("--repeats", "2", "--cool-down", "0s", "--duration", "1s", "--set", "load.warmup=0s")
    with guarded() as (_, url):
        path = written(tmp_path, url, "")
        loadbench("run", path, *TYPED, *short, cwd=tmp_path)
        base = ("--baseline", "last", *short)
        loadbench("run", path, *TYPED, *base, cwd=tmp_path, code=None)  # compares what is kept
    assert len(runlog.runs(tmp_path / "results")) == 2
    assert holding(tmp_path) == []


# ---- a search that was broken off


def broken_off(folder: Path, headers: str = "", **overrides: Any) -> Path:
    path = written(folder, "http://127.0.0.1:1", headers)
    hunt = Hunt(TERMS, (Setting(),), {key.replace("__", "."): overrides[key] for key in overrides})
    options = Options(results=folder / "results", command=("loadbench", "find", "own.toml", *TYPED))
    finder = Finder(hunt, [load(str(path), hunt.overrides)], options, lambda _: None)
    known = runlog.read_snapshot(finder.folder)
    runlog.write_snapshot(finder.folder, {**known, "state": "stopped"})
    assert holding(folder) == []
    return finder.folder


@pytest.mark.parametrize(
    "key", [KEY.replace(".", "__"), "target__headers"], ids=["one", "the whole table"]
)
def test_a_search_goes_on_when_its_secret_is_given_again(tmp_path: Path, key: str) -> None:
    value: Any = f"Bearer {SECRET}"
    value = value if key.endswith("Authorization") else {"Authorization": value, "X-Own": "1"}
    folder = broken_off(tmp_path, **{key: value, "load__seed": 3})
    with pytest.raises(SpecError, match=f"was begun with {KEY}") as caught:
        _known(folder, {})
    assert f"--set {KEY}=…" in caught.value.hint
    with pytest.raises(SpecError, match=r"without --set load\.seed"):
        _known(folder, {KEY: "Bearer x", "load.seed": 4})
    hunt, file = _known(folder, {KEY: f"Bearer {SECRET}"})
    found = load(file, hunt.overrides).spec
    assert found.target.headers["Authorization"] == f"Bearer {SECRET}"
    assert found.load.seed == 3


def test_a_search_finds_the_secret_in_its_scenario_again(tmp_path: Path) -> None:
    folder = broken_off(tmp_path, IN_FILE)
    hunt, file = _known(folder, {})
    assert load(file, hunt.overrides).spec.target.headers["Authorization"].endswith(SECRET)
    path = Path(file)
    path.write_text(path.read_text().replace("rate = 40", "rate = 41"))
    with pytest.raises(SpecError, match="has changed"):
        _known(folder, {})


def test_no_secrets_are_searched_over() -> None:
    with pytest.raises(SpecError, match="values that look secret"):
        parse_over([f"{KEY}=Bearer a,Bearer b"])
    assert len(parse_over([f"{KEY}=Bearer $A,Bearer $B"])) == 2


# ---- what is left out is not sent


def test_what_was_left_out_is_not_sent_in_place_of_the_secret(tmp_path: Path) -> None:
    """As when a run is begun again by the command line that was kept, or from a report."""
    text = 'headers = { Authorization = "(left out)" }'
    with guarded() as (server, url):
        told = loadbench("run", written(tmp_path, url, text), cwd=tmp_path, code=2)
        assert f"{KEY}: it looks like a secret, and was left out" in told.stderr
        again = ("run", written(tmp_path, url, ""), "--set", f"{KEY}=(left out)")
        assert "give it again" in loadbench(*again, cwd=tmp_path, code=2).stderr
        assert server.refused == 0


def test_a_text_that_only_has_the_words_stops_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "http://127.0.0.1:1", "")
    title = "ablation (left out)"
    assert load(str(path), {"title": title}).spec.title == title
    for key, text in (
        (KEY, "Bearer (left out)"),
        ("target.url", "http://h/p?token=(left out)"),
        ("target.headers", "(left out)"),
        ("alerts.command", ["curl", "-H", "Authorization: (left out)"]),
        ("alerts.command", ["curl", "--token", "(left out)"]),
        ("alerts.command", ["sh", "-c", "API_TOKEN=(left out) notify"]),
    ):
        with pytest.raises(SpecError, match=f"{key}: it looks like a secret"):
            load(str(path), {key: text})


# ---- the rule


def test_a_command_line_is_kept_without_secrets() -> None:
    for given, told in (
        (["--set", f"{KEY}=Bearer abc"], ["--set", f"{KEY}=(left out)"]),
        ([f"--a-set={KEY}='Bearer abc'"], [f"--a-set={KEY}=(left out)"]),
        (["--set", f"{KEY}=Bearer $A"], ["--set", f"{KEY}=Bearer $A"]),
        (["--set", 'request=[{name="a",headers={Cookie="x"}}]'], ["--set", "request=(left out)"]),
        (["--set", 'request=[{name="a"}]'], ["--set", 'request=[{name="a"}]']),
        (
            ["--set", "load.arguments=--user me --password hunter2 --deep"],
            ["--set", "load.arguments=--user me --password (left out) --deep"],
        ),
        (["--api-key", "abc", "--name", "abc"], ["--api-key", "(left out)", "--name", "abc"]),
        (["--target", "http://h/p?a=1&token=abc"], ["--target", "http://h/p?a=1&token=(left out)"]),
        (["--gate", "first_token_p99=5%"], ["--gate", "first_token_p99=5%"]),
        (["--set", 'checks.token_gap_p99="< 9 ms"'], ["--set", 'checks.token_gap_p99="< 9 ms"']),
        (["--rate", "80 %", "--set", "load.seed=3"], ["--rate", "80 %", "--set", "load.seed=3"]),
    ):
        assert typed(given) == told
        assert typed(told) == told


def test_a_tree_is_kept_without_secrets() -> None:
    tree = {
        "target": {"headers": {"X-Api-Key": "abc", "Cookie": "sid=$A; csrf=${B}"}},
        "checks": {"first_token_p99": "< 100 ms"},
        "alerts": {"command": ["curl", "-H", "Authorization: Bearer abc", "--token", "abc"]},
        "load": {"arguments": ["-e", "API_TOKEN=abc", "-e", "MODE=a"]},
        "request": [{"path": "/p?token=abc", "options": {"max_tokens": "9", "auth_token": "abc"}}],
    }
    told = {
        "target": {"headers": {"X-Api-Key": "(left out)", "Cookie": "sid=$A; csrf=${B}"}},
        "checks": {"first_token_p99": "< 100 ms"},
        "alerts": {"command": ["curl", "-H", "Authorization: (left out)", "--token", "(left out)"]},
        "load": {"arguments": ["-e", "API_TOKEN=(left out)", "-e", "MODE=a"]},
        "request": [
            {
                "path": "/p?token=(left out)",
                "options": {"max_tokens": "9", "auth_token": "(left out)"},
            }
        ],
    }
    assert kept(tree) == told == kept(told)
    assert list(left_out(tree)) == []
    assert list(left_out(told)) == [
        "target.headers.X-Api-Key",
        "alerts.command",
        "load.arguments",
        "request",
    ]
    assert "abc" not in scenario_text(tree)


@pytest.mark.parametrize(
    ("changed", "a", "b"),
    [
        ("dims.token_len", "uniform(1, 64)", "uniform(1, 640)"),
        ("shapes.token_embeddings", ["seq", 768], ["seq", 1024]),
        ("shapes.token_embeddings", ["seq", 768], ["other", 768]),
        ("values.token_mask", "uniform(0, 1)", "constant(1)"),
        ("dims.tokens_in", "uniform(1, 64)", "uniform(1, 640)"),
        ("options.stop_token", "###", "</s>"),
        ("options.special_tokens_file", "a.json", "b.json"),
    ],
)
def test_what_only_sounds_like_a_secret_is_told_apart(changed: str, a: Any, b: Any) -> None:
    """It is the work that was done: runs that differ in it are not of the same."""
    table, name = changed.split(".")

    def snapshot(value: Any) -> dict[str, Any]:
        return {"spec": kept({"request": [{"name": "a", table: {name: value}}]})}

    assert a in snapshot(a)["spec"]["request"][0][table].values()
    (found,) = work(snapshot(a), snapshot(b))
    assert found.key.startswith(f"request[0].{changed}")
    assert (found.a, found.b) in ((a, b), (a[0], b[0]), (a[1], b[1]))


@pytest.mark.parametrize(
    "name",
    ["token", "api_token", "auth_token", "access-token", "auth_tokens", "tokensecret",
     "request[0].headers.X-Token", "request.options.token", "engine.values.token",
     "Ocp-Apim-Subscription-Key", "target.headers.X-Auth", "X-Auth-Key", "x-functions-key", "pwd",
     "X-Access-Key", "Authentication", "passphrase", "X-Signature", "X-Session-Id", "private_key"],
)  # fmt: skip
def test_what_is_one_all_the_same(name: str) -> None:
    assert shown(name, "v") == "(left out)"


@pytest.mark.parametrize(
    "name", ["target.key", "signature", "target.signature", "keys", "over.key"]
)
def test_what_has_the_word_key_is_none(name: str) -> None:
    assert shown(name, "v") == "v"


@pytest.mark.parametrize(
    "name", ["eos_token", "pad_token", "special_token", "stop-token", "tokens_in", "max_tokens"]
)
def test_words_of_a_tokenizer_are_none(name: str) -> None:
    assert shown(f"request[0].options.{name}", "v") == shown(f"--{name}", "v") == "v"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("curl -H 'Authorization: Bearer abc' -d @-", "curl -H 'Authorization: (left out)' -d @-"),
        ('curl -H "X-Api-Key: abc" http://h', 'curl -H "X-Api-Key: (left out)" http://h'),
        ("curl -H 'Authorization: Bearer $A' http://h", None),
        ("API_TOKEN=abc notify", "API_TOKEN=(left out) notify"),
        ("API_TOKEN='a b c' notify", "API_TOKEN=(left out) notify"),
        ("user=me&password=abc&a=1", "user=me&password=(left out)&a=1"),
        ("API_TOKEN=$A request.dims.token_len=3 stop_token=abc", None),
        ('{"api_key": "abc", "a": "b"}', '{"api_key": "(left out)", "a": "b"}'),
        ('{"password":"a\\"bc"}', '{"password":"(left out)"}'),
        (r'curl -d "{\"api_key\": \"abc\", \"a\": 1}"',
         r'curl -d "{\"api_key\": \"(left out)\", \"a\": 1}"'),
        ('{"stop_token": "abc", "max_tokens": "9", "a": "token"}', None),
        ("see: what a token is", None),
        ("p99 of token: 5 ms", None), ("how to choose a Password: explain", None),
        ('{"next_token": "abc"}', None),
        ("http://h/p?key=AIzaSyA1234567890&n=1", "http://h/p?key=(left out)&n=1"),
        ("http://h/p?a=1&sig=abcdefghijklmnop%3D", "http://h/p?a=1&sig=(left out)"),
        ("http://h/p?key=row-17&code=200", None), ("http://h/p?key=$THE_KEY_OF_THIS", None),
        ("A" * 100_000, None), ("-" * 100_000, None), ("?" * 100_000, None),  # quickly, too
    ],
)  # fmt: skip
def test_a_secret_within_a_word_is_left_out(text: str, told: str | None) -> None:
    assert shown("command", text) == (told or text)
    assert shown("command", told or text) == (told or text)
    assert bool(list(literal({"body": text}))) is (told is not None)
    assert not list(literal({"body": told or text}))


@pytest.mark.parametrize(
    "text", ["$A", "${A}", "Bearer $A", "Basic ${A}", "$A:$B", "sid=$A; csrf=$B"]
)
def test_what_is_only_named_is_kept(text: str) -> None:
    assert shown("Authorization", text) == text


@pytest.mark.parametrize("text", ["a", "Bearer a", "pre$A", "$A is mine", "sid=$A; csrf=abc"])
def test_what_is_more_than_named_is_not(text: str) -> None:
    assert shown("Authorization", text) == "(left out)"


def test_a_secret_that_is_repeated_is_left_out() -> None:
    headers = {"Authorization": "Bearer abcdef", "X-Own": "here"}
    assert hidden("no abcdef here: Bearer abcdef", headers) == "no (left out) here: (left out)"
    assert hidden(b"got abcde", headers) == b"got (left out)"


@pytest.mark.parametrize(
    "said",
    ["/login?key=p%2Fq%26r+s%22", "p%2fq%26r%20s%22", "p/q%26r%20s%22", 'p/q&amp;r s"',
     "p/q&amp;r s&quot;", r'{"key": "p/q&r s\""}'],
)  # fmt: skip
def test_a_secret_that_is_repeated_in_other_letters_is_left_out(said: str) -> None:
    found = hidden(said, {"X-Api-Key": 'p/q&r s"'})
    assert "(left out)" in found
    assert "q" not in found


CODED = 'p+q/r "s" <t>!~8'


@pytest.mark.parametrize(
    "said",
    [
        b64encode(CODED.encode()).decode(),
        urlsafe_b64encode(CODED.encode()).decode().rstrip("="),
        *(b64encode(b"x" * before + CODED.encode() + b": no").decode() for before in range(4)),
        "".join(f"%{byte:02x}" for byte in CODED.encode()),
        "p%2Bq%2Fr%20%22s%22%20%3Ct%3E!~8",  # JavaScript's encodeURIComponent
        "p+q/r%20%22s%22%20%3Ct%3E!~8",  # its encodeURI
        "p%252Bq%252Fr%2520%2522s%2522%2520%253Ct%253E%2521~8",  # a link within a link
        r'{"key": "p+q\/r \"s\" <t>!~8"}',  # PHP's
        r'{"key": "p+q/r \"s\" \u003ct\u003e!~8"}',  # Go's
        r'{"key": "p\u002Bq/r \u0022s\u0022 \u003Ct\u003E!~8"}',  # .NET's
        r'{"said": "{\"key\": \"p+q/r \\\"s\\\" <t>!~8\"}"}',  # JSON within JSON
    ],
)
def test_a_secret_that_is_repeated_in_a_code_is_left_out(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left around it are the letters of base64 that are of its neighbours, too."""
    monkeypatch.setenv("KEY", CODED)
    headers = {"X-Api-Key": "$KEY"}
    for text in (hidden(said, headers), hidden(said.encode(), headers).decode()):
        before, mark, after = text.partition("$KEY")
        assert mark
        assert len(before) <= len('{"said": "{\\"key\\": \\"')
        assert len(after) <= len(': no"}') + 2


@pytest.mark.parametrize("headers", [{"Authorization": "Basic $LOGIN"}, None])
def test_what_basic_authentication_is_made_of_is_left_out(
    headers: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = b64encode(b"admin:hunter22-Secret").decode()
    monkeypatch.setenv("LOGIN", value)
    headers = headers or {"Authorization": f"Basic {value}"}
    for said in ("login failed for admin:hunter22-Secret", "hunter22-Secret is wrong"):
        assert "hunter22" not in hidden(said, headers)


def test_what_the_shell_has_put_into_a_query_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://h:1/weather?appid=k-sekret-1234&city=k-sekret-1234"
    assert shown("url", url) == url
    monkeypatch.setenv("APPID", "k-sekret-1234")
    assert shown("url", url) == "http://h:1/weather?appid=(left out)&city=k-sekret-1234"
    assert list(literal(url)) == ["k-sekret-1234"]


def test_what_a_server_calls_the_parts_of_its_time_is_told_without_secrets() -> None:
    connection = Connection(kind(), 0)
    text = b"HTTP/1.1 200 OK\r\nServer-Timing: a;dur=1, tok-Sekret-998;dur=2\r\n\r\n"
    headers = {"Authorization": "Bearer tok-Sekret-998"}
    found = sample(connection, 7, "", text, Parts(headers))
    assert found.parts == {"a": MS, "(left out)": 2 * MS}


class _Page:
    """Of a server whose labels hold what it was sent."""

    urls = ("its page",)
    cards = (Gpu(0, f"card of {SECRET}", f"GPU-{SECRET}"),)
    late, timed = 0, True

    def ask(self, _: bool) -> None: ...

    def server(self, _: float | None) -> Server:
        return Server("metrics", remarks=(Note("inside-late", f'new: client="{SECRET}"', SECRET),))


class _Uncounted:
    def statistics(self, _: object) -> None:
        return None


def test_what_a_page_of_metrics_holds_of_a_secret_is_not_told() -> None:
    sent = {"Authorization": f"Bearer {SECRET}"}
    endpoint = Endpoint("127.0.0.1", 1, "http", headers=sent)
    told: Any = [Told(_Uncounted(), endpoint, _Page())]  # type: ignore[arg-type]
    inside = Inside(told)
    found = inside.read()
    assert found is not None
    assert len(found.remarks) == 1
    assert SECRET not in str(found) + str(inside.cards())


def test_a_short_secret_is_not_looked_for_in_base64() -> None:
    said = b64encode(b"abcdefg").decode()
    assert hidden(said, {"X-Api-Key": "abcdefg"}) == said


def test_looking_for_a_long_secret_takes_no_time() -> None:
    """It stands in the load's way when a request fails in a new way."""
    key = "".join(chr(33 + number * 7 % 90) for number in range(4000))
    begun = time.monotonic()
    for said in (key[:-1], "no" * 1000, "ab" * 1000 + key[:4]):
        hidden(said, {"X-Api-Key": key})
    assert time.monotonic() - begun < 0.5


def test_differences_tell_that_there_is_one_and_not_which(tmp_path: Path) -> None:
    path = written(tmp_path, "http://127.0.0.1:1", "")
    a, b = (Side(load(str(path), {KEY: f"Bearer {each}"})) for each in (SECRET, f"{SECRET}2"))
    assert [KEY, "(left out)", "(left out)"] in differences(a, b)
    whole = {"spec": {"request": [{"name": "a", "headers": {"Cookie": SECRET}}]}}
    assert SECRET not in str(work(whole, {"spec": {"request": []}}))


def test_what_an_older_version_kept_is_no_other_than_what_was_left_out() -> None:
    def snapshot(text: str) -> dict[str, Any]:
        headers = {"headers": {"Cookie": text}}
        return {"spec": {"target": headers, "request": [headers]}}

    old, new = ({"spec": kept(snapshot(SECRET)["spec"])}, snapshot(SECRET))
    assert settings(old, new) == work(old, new) == []
