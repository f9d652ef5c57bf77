"""Plain HTTP: requests from templates over data, what is refused, what answers must say."""

import base64
import email.parser
import email.policy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.plan import Endpoint, Expected, RequestPlan
from loadbench.targets import template
from loadbench.targets.inputs import prepare
from loadbench.targets.wire import BadAnswer
from tests.answering import Answering, Handler, serve
from tests.lanes import drive, plan

WHERE = Endpoint("h", 80, "http", path="/base")


class Sent(NamedTuple):
    """A request as a server reads it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def read(data: bytes) -> Sent:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers.get("Content-Length", 0)) == len(body)
    method, path, _ = first.split(" ")
    return Sent(method, path, headers, body)


def made(where: Endpoint = WHERE, **asked: Any) -> tuple[list[Sent], list[Note]]:
    pools, notes = prepare(where, [RequestPlan("r", **asked)], seed=1)
    return [read(found.data) for found in pools[0]], notes


def refused(**asked: Any) -> str:
    with pytest.raises(SpecError) as caught:
        made(**asked)
    return f"{caught.value.message} → {caught.value.hint}"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"text": 'say "hi"\n', "n": 1}, {"text": "häh", "n": 2.5}, {"text": "", "n": None}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_body_is_filled_from_each_row_as_json(prompts: Path) -> None:
    body = '{"text": ${text}, "n": ${n}, "id": "row ${row|raw}"}'
    sent, notes = made(data=str(prompts), body=body)
    assert [json.loads(found.body) for found in sent] == [
        {"text": 'say "hi"\n', "n": 1, "id": "row 0"},
        {"text": "häh", "n": 2.5, "id": "row 1"},
        {"text": "", "n": None, "id": "row 2"},
    ]
    assert notes == []
    assert {(found.method, found.path) for found in sent} == {("POST", "/base")}
    assert sent[0].headers["Content-Type"] == "application/json"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_through_any_filter(text: str) -> None:
    parts = template.parse('{"a": ${t}, "b": "${t|base64}"}')
    whole = json.loads(template.fill(parts, {"t": text}, "json", Path()))
    assert whole["a"] == text
    assert base64.b64decode(whole["b"]).decode() == text
    path = template.fill(template.parse("/x/${t}?q=${t|url}"), {"t": text}, "url", Path()).decode()
    first, _, second = path.removeprefix("/x/").partition("?q=")
    assert unquote(first) == unquote(second) == text
    assert template.fill(
        template.parse("$${t} ${t|raw}"), {"t": text}, "json", Path()
    ).decode() == ("${t} " + text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'city,n\n"Zürich, CH",1\nUlm,2\n'),
        ("a.tsv", "city\tn\nZürich, CH\t1\nUlm\t2\n"),
        ("a.ndjson", '{"city": "Zürich, CH", "n": "1"}\n\n{"city": "Ulm", "n": "2"}\n'),
        ("a.json", '[{"city": "Zürich, CH", "n": "1"}, {"city": "Ulm", "n": "2"}]'),
    ],
)
def test_paths_and_headers_are_filled_from_any_kind_of_table(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    sent, _ = made(data=str(tmp_path / name), path="/of/${city}?n=${n}", headers={"X-N": "n${n}"})
    assert [(found.method, found.path, found.headers["X-N"]) for found in sent] == [
        ("GET", "/of/Z%C3%BCrich%2C%20CH?n=1", "n1"),
        ("GET", "/of/Ulm?n=2", "n2"),
    ]
    assert {found.body for found in sent} == {b""}


def test_what_nothing_else_uses_is_the_body(prompts: Path, tmp_path: Path) -> None:
    sent, _ = made(data=str(prompts))
    assert [found.body for found in sent] == prompts.read_bytes().splitlines()
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "b.png").write_bytes(b"\x89PNG\r\n")
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / ".hidden").write_bytes(b"no")
    sent, _ = made(data=str(folder))
    assert [(found.body, found.headers["Content-Type"]) for found in sent] == [
        (bytes(range(256)), "application/octet-stream"),
        (b"\x89PNG\r\n", "image/png"),
    ]
    one, _ = made(data=str(folder / "b.png"), method="PUT", headers={"content-type": "x/y"})
    assert [(found.method, found.body) for found in one] == [("PUT", b"\x89PNG\r\n")]
    assert "Content-Type" not in one[0].headers


def test_images_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "all.csv").write_text("image,label\na.png,cat\n")
    for data, place in ((tmp_path / "all.csv", "image|file"), (tmp_path / "a.png", "content")):
        sent, _ = made(data=str(data), body='{"image": "${' + place + '|base64}"}')
        assert base64.b64decode(json.loads(sent[0].body)["image"]) == b"\x89PNG\0"


def test_a_form_is_what_browsers_upload(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n--\r\n\0")
    (tmp_path / "all.csv").write_text('image,label\na.png,"a ""cat"""\n')
    form = {"file": "${image|file}", "label": "${label}"}
    sent, _ = made(data=str(tmp_path / "all.csv"), form=form)
    head = f"Content-Type: {sent[0].headers['Content-Type']}\r\n\r\n".encode()
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    file, label = parser.parsebytes(head + sent[0].body).iter_parts()
    assert file.get_filename() == "a.png"
    assert file.get_content_type() == "image/png"
    assert file.get_payload(decode=True) == b"\x89PNG\r\n--\r\n\0"
    assert label.get_param("name", header="content-disposition") == "label"
    assert label.get_payload(decode=True) == b'a "cat"'
    assert sent[0].method == "POST"


def test_a_form_without_files_goes_as_its_header_says(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text('label,n\n"a & b=ü",1\n')
    kind = {"content-type": "application/x-www-form-urlencoded"}
    form = {"the label": "${label}", "n": "${n}", "fixed": "+"}
    sent, _ = made(data=str(tmp_path / "all.csv"), form=form, headers=kind)
    assert parse_qs(sent[0].body.decode(), strict_parsing=True) == {
        "the label": ["a & b=ü"], "n": ["1"], "fixed": ["+"],
    }  # fmt: skip
    assert (sent[0].method, sent[0].headers["content-type"]) == ("POST", *kind.values())
    assert "Content-Type" not in sent[0].headers


def test_bytes_go_where_only_text_can_be_as_base64(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\0")
    data = str(tmp_path / "a.bin")
    assert "headers.X: the bytes of a file are no text" in refused(
        data=data, headers={"X": "${content}"}
    )
    assert "bytes of a file have no JSON form" in refused(data=data, body="${content}")
    assert made(data=data, body="${content|raw}")[0][0].body == b"\xff\0"
    assert made(data=data, headers={"X": "${content|base64}"})[0][0].headers["X"] == "/wA="


def test_without_data_a_row_is_a_number_and_what_is_drawn() -> None:
    sent, _ = made(body='{"id": ${row}, "tokens": ${n}}', dims={"n": "uniform(5, 9)"}, pool=50)
    bodies = [json.loads(found.body) for found in sent]
    assert [body["id"] for body in bodies] == list(range(50))
    assert {body["tokens"] for body in bodies} == {5, 6, 7, 8, 9}
    assert len(made(path="/static")[0]) == 1


def test_of_more_rows_than_fit_the_first_are_taken_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\n".join(str(number) for number in range(70_000)))
    sent, notes = made(data=str(path), body="${line}")
    assert (len(sent), sent[-1].body) == (65_536, b'"65535"')
    assert "only the first 65,536 rows of" in notes[0].text
    sent, notes = made(data=str(path), pool=10)
    assert ([found.body for found in sent], notes) == ([b"%d" % number for number in range(10)], [])


def test_the_method_is_the_requests_own_else_the_targets() -> None:
    where = WHERE.__class__("h", 80, "http", path="/", method="PUT")
    assert made(where)[0][0].method == "PUT"
    assert made(where, method="DELETE")[0][0].method == "DELETE"
    assert made(method="GET", body="{}")[0][0].method == "GET"
    assert made(body="{}")[0][0].method == "POST"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"body": "${txt}"},
            "body: there is nothing for ${txt} → did you mean ${text}?",
        ),
        ({"path": "/${nn}"}, "request 'r': path: there is nothing for ${nn}"),
        ({"headers": {"X-A": "${nn}"}}, "request 'r': headers.X-A: there is nothing for ${nn}"),
        ({"body": '{"text": "${text}"}'}, "line 1: request 'r': body begins like JSON and is none"),
        ({"path": "x${n}"}, "path 'x1' is not one that HTTP can carry"),
        ({"headers": {"X": "${text}"}}, "line 1: request 'r': header 'X' is not one"),
        ({"headers": {"Content-Length": "${n}"}}, "set by loadbench itself"),
        ({"body": "${text|file}"}, 'say "hi"'),
        ({"body": "${n}", "shapes": {"x": (3,)}}, "shapes is only of KServe"),
        ({"body": "${n}", "rows": 3}, "rows is only of KServe"),
        ({"body": "${n}", "expect": "y.npz"}, "a file of expected outputs is only of KServe"),
        ({"body": "${n}", "check": 0.1}, "check compares with what expect says"),
        ({"body": "${n}", "expect": Expected(json={"a": "${b}"})}, "expect: there is nothing for"),
        ({"body": "${n}", "dims": {"n": "4"}}, "'n' is in dims and in the data"),
        ({"form": {"f": "${g}"}}, "form.f: there is nothing for ${g}"),
        (
            {"form": {"f": "a"}, "headers": {"Content-Type": "multipart/form-data"}},
            "leave Content-Type out: the form brings it",
        ),
    ],
)
def test_requests_at_fault_name_key_file_and_line(
    prompts: Path, asked: dict[str, Any], words: str
) -> None:
    assert words in refused(data=str(prompts), **asked)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("absent.csv", None, "absent.csv: No such file"),
        ("a.csv", "", "a.csv: no data in it"),
        ("a.csv", "a,b\n", "a.csv: no data in it"),
        ("a.csv", "a,b\n1,2\n3\n", "a.csv line 3: 1 cells, the heading has 2"),
        ("a.csv", "a,a\n1,2\n", "a.csv line 1: columns need names"),
        ("a.csv", "b\n1\n", "nothing for ${a}"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a.jsonl line 2: not JSON"),
        ("a.jsonl", '{"a": 1}\n{"b": 1}\n', "a.jsonl line 2: request 'r': body: there is nothing"),
        ("a.jsonl", "[1]\n", "a.jsonl line 1"),
        ("a.json", '{"a": 1', "a.json: not JSON"),
        ("a.csv", b"a\n\xff\n", "a.csv: not readable as text"),
    ],
)
def test_data_at_fault_are_named_with_their_line(
    tmp_path: Path, name: str, text: str | bytes | None, words: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert words in refused(data=str(path), body="${a}")


def test_a_table_that_nothing_uses_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert "nothing uses the columns" in refused(data=str(tmp_path / "a.csv"))
    (tmp_path / "empty").mkdir()
    assert "no data in it" in refused(data=str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("${a", "without its }"), ("${}", "names nothing"), ("${a|b}", "unknown filter 'b'")],
)
def test_templates_at_fault(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        template.parse(text)
    assert words in caught.value.message


def said(expect: Expected, answer: bytes, **asked: Any) -> str:
    """What the strict check says of an answer to the first request."""
    pools, _ = prepare(WHERE, [RequestPlan("r", expect=expect, **asked)], seed=1)
    strict = pools[0][0].strict
    assert strict is not None
    try:
        strict({}, answer)
    except BadAnswer as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize(
    ("expect", "answer", "words"),
    [
        ({"json": {"out[0].label": "${text}"}}, '{"out": [{"label": "say \\"hi\\"\\n"}]}', ""),
        ({"json": {"out[0].label": "${text}"}}, '{"out": [{"label": "cat"}]}', "out[0].label is"),
        ({"json": {"out[1]": 1}}, '{"out": [1]}', "there is no out[1]"),
        ({"json": {"p": 0.5}}, '{"p": 0.5004}', ""),
        ({"json": {"p": 0.5}}, '{"p": 0.502}', "p is 0.502 instead of 0.5"),
        ({"json": {"p": [0.5, "a"]}}, '{"p": [0.5, "a"]}', ""),
        ({"json": {"p": {"a": True}}}, '{"p": {"a": 1}}', "p is {'a': 1}"),
        ({"json": {"n": "${n}"}}, '{"n": 1}', ""),
        ({"json": {"n": "12"}}, '{"n": 12}', ""),
        ({"json": {"n": "5000"}}, '{"n": 5004}', "n is 5004 instead of '5000'"),
        ({"json": {"n": "5000.0"}}, '{"n": 5004.5}', ""),
        ({"json": {"a": "True", "b": "false"}}, '{"a": true, "b": false}', ""),
        ({"json": {"a": "true"}}, '{"a": false}', "a is False instead of 'true'"),
        ({"json": {"$": [1, 2]}}, "[1, 2]", ""),
        ({"json": {'a["b c"][0]["x.y"]': 1.0}}, '{"a": {"b c": [{"x.y": 1.0}]}}', ""),
        ({"json": {'$["[0]"].b c': 1}}, '{"[0]": {"b c": 1}}', ""),
        ({"json": {'["a\\"b"]': 1}}, '{"a\\"b": 2}', "is 2 instead of 1"),
        ({"json": {"a": 1}}, "<html>", "BadAnswer: not JSON"),
        ({"body": "row ${row}"}, "row 0", ""),
        ({"body": "row ${row}"}, "row 1", "the body is row 1 instead of row 0"),
        ({"regex": r"^ok \d+$"}, "ok 12", ""),
        ({"regex": r"^ok \d+$"}, "not ok", "finds nothing"),
        ({"schema": "label.json"}, '{"label": "cat"}', ""),
        (
            {"schema": "label.json"},
            '{"label": 3}',
            "WrongOutput: $.label: 3 is not of type 'string'",
        ),
        ({"schema": "label.json"}, '{"error": "gone"}', "'label' is a required property"),
        ({"schema": "label.json"}, "<html>", "BadAnswer: not JSON"),
        ({"schema": "far.json"}, "{}", "far.json cannot be applied: "),
    ],
)
def test_what_an_answer_must_say(
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
    expect: dict[str, Any],
    answer: str,
    words: str,
) -> None:
    monkeypatch.chdir(prompts.parent)
    label = {"type": "object", "required": ["label"], "properties": {"label": {"type": "string"}}}
    Path("label.json").write_text(json.dumps(label))
    Path("far.json").write_text('{"$ref": "http://127.0.0.1:9/schema.json"}')
    found = said(Expected(**expect), answer.encode(), data=str(prompts))
    assert words in found if words else not found


@contextmanager
def classifying() -> Iterator[int]:
    """A server that says the label of what it gets, and for every fourth row another one."""

    class Classifier(Handler):
        def do_POST(self) -> None:
            number = json.loads(self.body())["n"]
            self.tell(200, {"label": number if number % 4 else -1})

    with serve(Answering(Classifier)) as server:
        yield server.server_port


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "label.json: No such file"),
        ("{", "label.json is not JSON"),
        ('{"type": 3}', "label.json is no JSON schema: 3 is not valid"),
    ],
)
def test_a_schema_at_fault_is_told_before_the_run(
    tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "label.json"
    if text is not None:
        path.write_text(text)
    assert words in refused(body="{}", expect=Expected(schema=str(path)))


@pytest.mark.parametrize(
    ("status", "failed"), [((), {}), ((200, 404), {}), ((404,), {"http_200": 200})]
)
def test_an_answer_is_good_by_its_status(status: tuple[int, ...], failed: dict[str, int]) -> None:
    with classifying() as port:
        asked = RequestPlan("r", body='{"n": ${row}}', expect=Expected(status=status))
        where = Endpoint("127.0.0.1", port, "http")
        done = drive(plan(port, endpoint=where, requests=(asked,), rate=200, connections=4))
    done.check()
    assert done.failed == failed


def test_what_is_expected_of_a_service_is_asked_of_every_answer_if_not_said_otherwise() -> None:
    with classifying() as port:
        expect = Expected(json={"label": "${row}"})
        asked = RequestPlan("r", body='{"n": ${row}}', pool=100, expect=expect)
        where = Endpoint("127.0.0.1", port, "http")
        done = drive(plan(port, endpoint=where, requests=(asked,), rate=200, connections=4))
    assert done.failed == {"wrong_output": 50}


@pytest.mark.parametrize(("share", "found"), [(1.0, 50), (None, 0), (0.5, 25)])
def test_answers_over_plain_http_are_compared_under_load(share: float | None, found: int) -> None:
    """A fourth of 200 answers is wrong; compared are all, none, or each with a chance of a half
    (standard deviation 5: within 20 but once in 10,000)."""
    with classifying() as port:
        asked = RequestPlan("r", body='{"n": ${row}}', pool=100, check=share)
        if share:
            asked = RequestPlan(**{**_fields(asked), "expect": Expected(json={"label": "${row}"})})
        where = Endpoint("127.0.0.1", port, "http")
        done = drive(plan(port, endpoint=where, requests=(asked,), rate=200, connections=4))
    done.check()
    assert done.failed.get("wrong_output", 0) == pytest.approx(found, abs=20 if share == 0.5 else 0)
    assert done.sum("done") + sum(done.failed.values()) == 200


def _fields(request: RequestPlan) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__struct_fields__}
