"""What makes and checks pictures, film and figures of the real program: its parts, without tmux."""

import json
import re
from pathlib import Path

import pytest
from rich.ansi import AnsiDecoder
from rich.style import Style

from loadbench.value import encode
from tests.benchmarks import cast, figures
from tests.benchmarks.account import between, read
from tests.benchmarks.figures import Figure
from tests.benchmarks.tour_moments import of_log, shown_as
from tests.storyline import Story, records

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
FILM = ROOT / "docs" / "tour.cast"


def stored(name: str) -> dict[str, str]:
    """The screens of a golden file by their size."""
    text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^(\d+×\d+)\n", text)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the story that the golden screens show."""
    path = tmp_path_factory.mktemp("run") / "log.ndjson"
    path.write_bytes(b"".join(encode(record) + b"\n" for record in records(Story(end=None))))
    return path


@pytest.mark.parametrize("size", ["80×24", "120×40", "200×60"])
def test_figures_read_from_a_screen_are_those_of_the_log(size: str, log: Path) -> None:
    found = figures.live(stored("live-running")[size])
    windows = read(log)
    wanted = {"done/s", "p50", "p95", "p99", "errors", "queue"}
    assert {figure.name for figure in found} >= wanted
    for figure in found:
        assert figure.end == 240
        value = of_log(figure, between(windows, figure.begin, figure.end))
        assert shown_as(figure.text, value), (figure, value)


def test_batches_read_from_the_engine_screen_are_those_of_the_log(log: Path) -> None:
    found = figures.engine(stored("engine-running")["120×40"])
    windows = read(log)
    assert {figure.end - figure.begin for figure in found} == {10, 240}
    for figure in found:
        value = of_log(figure, between(windows, figure.begin, figure.end))
        assert shown_as(figure.text, value), (figure, value)


def test_the_line_of_one_second_is_read() -> None:
    line = " ▽ 01:05  ▲ p99 > 100 ms  done 1184 of 1200/s  p99 > 100 ms  failed 0.12%  waiting 12"
    found = {figure.name: figure for figure in figures.second(f"\n{line}\n")}
    assert found["done/s"] == Figure("done/s", "1184", 65, 66)
    assert found["asked/s"].text == "1200"
    assert found["errors"].text == "0.12"
    assert found["queue"].text == "12"


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [
        ("12.1", 12.14, True), ("12.1", 12.16, False), ("1184", 1184.4, True),
        ("1184", 1183.4, False), ("n/a", None, True), ("n/a", 1.0, False), ("0", None, False),
        ("> 100", float("inf"), True), ("> 100", 101.0, False), ("101", float("inf"), False),
    ],
)  # fmt: skip
def test_a_figure_is_held_to_the_digits_it_has(text: str, value: float, same: bool) -> None:
    assert shown_as(text, value) is same


def test_the_stored_film_can_be_played() -> None:
    assert cast.faults(FILM.read_text(encoding="utf-8").splitlines()) == []


def test_a_film_that_goes_back_in_time_is_refused() -> None:
    header = json.dumps({"version": 2, "width": 120, "height": 40})
    film = [header, '[0.0, "o", "a"]', '[20.0, "o", "b"]']
    assert cast.faults(film) == []
    assert cast.faults([*film, '[19.0, "o", "c"]'])
    assert cast.faults([*film, '[21.0, "o"]'])
    assert cast.faults([header, *film[1:2]])
    assert cast.faults([header.replace("2,", "3,", 1), *film[1:]])
    assert cast.faults([*film, "{"])


def test_what_a_film_stores_of_a_change_makes_the_new_screen() -> None:
    red, bold = Style.parse("#ff0000"), Style.parse("bold #ff0000 on #0000ff")
    before = [[(char, Style()) for char in "hello"], [(char, red) for char in "world"]]
    after = [before[0], [("w", red), ("O", bold), ("R", red), ("l", red), ("d", red)]]
    drawn = cast.difference(before, after)
    place, rest = drawn.split("H", 1)
    assert place == "\x1b[2;2"
    (line,) = AnsiDecoder().decode(rest)
    assert line.plain == "OR"
    assert [str(span.style) for span in line.spans] == [str(bold), str(red)]
    assert cast.difference(after, after) == ""


def test_a_screen_of_which_a_part_is_missing_is_not_whole() -> None:
    screen = stored("live-running")["120×40"]
    assert cast.whole(screen)
    assert not cast.whole(screen.replace("│", " ", 1))
    assert not cast.whole(screen.split("\n", 1)[1])


def test_pictures_that_the_readme_shows_are_there_and_small() -> None:
    shown = re.findall(r"\]\((docs/[\w-]+\.png)\)", (ROOT / "README.md").read_text("utf-8"))
    assert len(shown) >= 7
    for name in shown:
        data = (ROOT / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 200_000
