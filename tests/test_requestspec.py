"""`[[request]]` in a scenario: what is read from it, and that every fault names file, line, key."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench import spec
from loadbench.errors import SpecError
from loadbench.plan import Expected, RequestPlan, kinds
from tests.running import adds_up, loadbench, summary

LOAD = '[load]\nwarmup = "1s"\nphases = [{ rate = 200, for = "2s" }]\n'
KSERVE = """
[[request]]
name = "text"
weight = 3
pool = 500
dims = { seq_len = "lognormal(64, 0.6) clipped 1..512", fixed = 7 }
shapes = { ids = ["seq_len", "fixed"], image = [3, "choice(8, 16)", 8] }
values = { ids = "uniform(0, 30000)" }
"""
HTTP = """
[[request]]
name = "ask"
data = "prompts.jsonl"
path = "/v1/${id}"
method = "PUT"
body = '{"text": ${text}}'
headers = { Authorization = "Bearer ${token}" }
expect = { json = { "out[0].label" = "${label}" }, regex = "^{" }
tolerance = 1e-2
check = "5 %"
"""


def load(tmp_path: Path, text: str) -> spec.Spec:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return spec.load(str(path)).spec


def test_what_is_written_is_what_is_planned(tmp_path: Path) -> None:
    text, ask = kinds(load(tmp_path, LOAD + KSERVE + HTTP))
    assert text == RequestPlan(
        "text", weight=3, pool=500,
        dims={"seq_len": "lognormal(64, 0.6) clipped 1..512", "fixed": "7"},
        shapes={"ids": ("seq_len", "fixed"), "image": (3, "choice(8, 16)", 8)},
        values={"ids": "uniform(0, 30000)"},
    )  # fmt: skip
    assert ask == RequestPlan(
        "ask", data="prompts.jsonl", path="/v1/${id}", method="PUT", body='{"text": ${text}}',
        headers={"Authorization": "Bearer ${token}"},
        expect=Expected({"out[0].label": "${label}"}, regex="^{"), tolerance=0.01, check=0.05,
    )  # fmt: skip


def test_a_dump_of_it_is_a_scenario_again(tmp_path: Path) -> None:
    found = load(tmp_path, LOAD + KSERVE + HTTP)
    dumped = found.model_dump(by_alias=True, mode="json", exclude_defaults=True)
    assert spec.check(dumped, "dump") == found
    assert dumped["request"][1]["expect"]["json"] == {"out[0].label": "${label}"}
    assert dumped["request"][1]["check"] == "5 %"


REQUEST = LOAD + '[[request]]\nname = "r"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('dims = { n = "lognormal(4)" }', "line 6: request.0.dims.n: 'lognormal(4)' is not a"),
        ('shapes = { x = ["n"] }', "line 6: request.0.shapes: no dimension 'n' in dims"),
        ('shapes = { x = ["poisson(a)"] }', "line 6: request.0.shapes: 'poisson(a)': 'a' is not"),
        ('values = { x = "gauss(1)" }', "line 6: request.0.values.x: 'gauss(1)': 'gauss' is not"),
        ("pool = 0", "line 6: request.0.pool"),
        ('body = "${a"', "line 6: request.0.body: '${a': a ${ without its }"),
        ('path = "/${a|b}"', "line 6: request.0.path: '/${a|b}': unknown filter 'b'"),
        ('headers = { A = "${}" }', "line 6: request.0.headers.A: '${}': ${} names nothing"),
        (
            'headers = { Authorization = "Bearer $TOKEN" }',
            "line 6: request.0.headers: 'Authorization': $TOKEN would be sent as it stands",
        ),
        ('method = "GOT"', "line 6: request.0.method"),
        (
            'expect = { json = { "a[" = 1 } }',
            "line 6: request.0.expect.json: 'a[' is no path into JSON",
        ),
        ("shapes = { x = [1.5] }", "request.0.shapes.x.0: 1.5 is not a dimension"),
        ('expect = { regex = "(" }', "not a regular expression"),
        ("expect = {}", "request.0.expect: say what:"),
        ('expect = "y.npz"', "request.0: expect holds the outputs of the rows of data: give data"),
        ('check = "5 %"', "request.0: check compares with what expect says: give expect"),
        ("check = 0.05", "line 6: request.0.check: 0.05 is a share without a sign"),
        ('body = "a"\nform = { a = "b" }', "request.0: give either body or form"),
        ('bdy = "a"', "line 6: unknown key 'request.0.bdy', did you mean 'body'?"),
    ],
)
def test_faults_name_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, REQUEST + text + "\n")
    assert message in caught.value.message
    assert "own.toml" in caught.value.message


def test_a_price_and_a_place_for_data_are_no_names(tmp_path: Path) -> None:
    text = REQUEST + 'headers = { Price = "$5", Id = "${id}", Meant = "$${id}" }\n'
    assert len(load(tmp_path, text).request[0].headers) == 3


def test_what_is_drawn_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(LOAD + KSERVE)
    shown = loadbench("shape", "own.toml", cwd=tmp_path).stdout
    assert "text: seq_len is lognormal(64, 0.6) clipped 1..512: " in shown
    assert " in 500 bodies" in shown
    assert "text: image[1] is choice(8, 16): 1" in shown


def run(tmp_path: Path, request: str, **fake: str) -> dict[str, Any]:
    mistakes = fake.get("mistakes", "0 %")
    (tmp_path / "own.toml").write_text(
        '[target]\nurl = "local:fake"\n'
        f'[engine]\nfake = {{ a = "1 ms", mistakes = "{mistakes}" }}\n'
        f'{LOAD}arrivals = "constant"\n[[request]]\nname = "r"\n{request}\n'
    )
    return summary("own.toml", "--on-no-verdict", "warn", cwd=tmp_path)  # on a busy machine


@pytest.mark.long
def test_a_run_compares_what_is_asked(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((50, 16)).astype(np.float32)
    np.savez(tmp_path / "all.npz", x=rows)
    np.save(tmp_path / "right.npy", rows)
    np.save(tmp_path / "false.npy", rows[::-1])
    right = run(tmp_path, 'data = "all.npz"\nexpect = "right.npy"\ncheck = "100 %"')
    assert adds_up(right)
    assert right["failed"] == {}
    assert right["done"] == 400
    wrong = run(tmp_path, 'data = "all.npz"\nexpect = "false.npy"\ncheck = "100 %"')
    assert wrong["failed"] == {"wrong_output": 400}
    some = run(tmp_path, 'data = "all.npz"\nexpect = "right.npy"\ncheck = "100 %"', mistakes="25 %")
    assert some["failed"]["wrong_output"] == pytest.approx(100, abs=35)  # 4 standard deviations
    assert adds_up(some)


def test_data_at_fault_end_the_run_before_it_begins(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 16), np.float32))
    np.save(tmp_path / "y.npy", np.zeros((4, 16), np.float32))
    (tmp_path / "own.toml").write_text(
        f'[target]\nurl = "local:fake"\n{LOAD}'
        '[[request]]\nname = "r"\ndata = "x.npy"\nexpect = "y.npy"\n'
    )
    done = loadbench("run", "own.toml", cwd=tmp_path, code=2)
    assert "y.npy: 4 rows of 'y' are expected, x.npy has 5" in done.stderr
    assert not (tmp_path / "results").exists()
