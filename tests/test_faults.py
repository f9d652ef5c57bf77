"""Wrong kinds in a scenario: each is said in our words, with its file, its line, its key, what
stands there and what to write."""

from pathlib import Path

import pytest

from loadbench import spec
from loadbench.errors import SpecError
from loadbench.overrides import parse_settings

BEGIN = """[load]
phases = [{ rate = 30, for = "1s" }]
"""
TEXT, WHOLE, NUMBER, YES = "a text in quotes", "a whole number", "a number", "true or false"
LIST, TABLE = "a list, [ … ]", "a table of keys, { … }"


def fault(folder: Path, text: str, *settings: str) -> str:
    """What is said of a scenario of this text, by the name of its file alone."""
    path = folder / "own.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        spec.load(str(path), parse_settings(settings))
    return caught.value.said.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("table", "line", "got", "wanted"),
    [
        ("target", "url = 5", "5", TEXT),
        ("target", "connections = 'many'", "'many'", WHOLE),
        ("target", "connections = 1.5", "1.5", WHOLE),
        ("target", "connections = []", "[]", WHOLE),
        ("target", "connections = nan", "nan", "a finite number"),
        ("target", "connections = 0", "0", "1 or more"),
        ("target", "connections = 70000", "70000", "65536 or less"),
        ("target", "owned = 'maybe'", "'maybe'", YES),
        ("target", "owned = [true]", "[true]", YES),
        ("target", "headers = []", "[]", TABLE),
        ("target", "metrics = 3", "3", TABLE),
        ("target", "metrics.url = 3", "3", f"{TEXT} or {LIST}"),
        ("target", "layout = { a = 1 }", "{ a = 1 }", "'rows' or 'columns'"),
        ("engine", "max_batch = 2024-01-01", "2024-01-01", WHOLE),
        ("engine", "graphs = 'x'", "'x'", f"{YES} or 'auto'"),
        ("engine", "preferred = 3", "3", LIST),
        ("engine", "preprocess = 3", "3", LIST),
        ("alerts", "webhook = false", "false", TEXT),
    ],
)
def test_a_wrong_kind_is_told_with_what_to_write(
    tmp_path: Path, table: str, line: str, got: str, wanted: str
) -> None:
    key = f"{table}.{line.partition(' ')[0]}"
    said = fault(tmp_path, f"{BEGIN}[{table}]\n{line}\n")
    assert said == f"own.toml line 4: {key}: {got} cannot be taken: write {wanted}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("target = 3", f"line 1: target: 3 cannot be taken: write {TABLE}"),
        ("request = { name = 'a' }", f"request: {{ name = 'a' }} cannot be taken: write {LIST}"),
        ("checks = 3", "line 1: checks: 3 is no table of checks: write it like { p99 ="),
        ("engine.slo = true", "true is not a duration: write it like"),
        ("engine.slo = 2024-01-01", "2024-01-01 is not a duration: write it like"),
        ("engine.cache = []", "[] is not a size: write it like"),
        ("engine.canary = {}", "{} is not a share: write it like"),
        ("engine.level = { a = {} }", f"engine.level.a: 'a' cannot be taken: write {WHOLE}"),
    ],
)
def test_so_are_tables_and_quantities(tmp_path: Path, line: str, words: str) -> None:
    assert words in fault(tmp_path, f"{line}\n{BEGIN}")


def test_a_list_for_a_rate_is_no_rate(tmp_path: Path) -> None:
    said = fault(tmp_path, '[load]\nphases = [{ rate = [], for = "1s" }]\n')
    assert "line 2: load.phases.0.rate: [] is not a rate: write it like 300" in said


def test_of_tables_of_one_name_the_line_is_that_of_the_one_at_fault(tmp_path: Path) -> None:
    good = "[[request]]\nname = 'a'\npool = 3\n"
    said = fault(tmp_path, f"{BEGIN}{good}[[request]]\nname = 'b'\npool = 'x'\n")
    assert said == f"own.toml line 8: request.1.pool: 'x' cannot be taken: write {WHOLE}"
    said = fault(tmp_path, f"{BEGIN}{good}{good}[[request]]\npool = 3\n")
    assert said == "own.toml line 9: 'request.2.name' is missing"


def test_what_was_given_is_told_without_the_file(tmp_path: Path) -> None:
    said = fault(tmp_path, BEGIN, "engine.max_batch=many")
    assert said == f"engine.max_batch: 'many' cannot be taken: write {WHOLE}"


def test_a_secret_of_the_wrong_kind_is_not_repeated(tmp_path: Path) -> None:
    line = "headers = { Authorization = ['Bearer 4c1d7b9e'] }"
    said = fault(tmp_path, f"{BEGIN}[target]\n{line}\n")
    assert f"cannot be taken: write {TEXT}" in said
    assert "4c1d7b9e" not in said
