"""The table that `make verdicts` leaves in the benchmarks' README."""

from pathlib import Path

from tests.benchmarks.verdicts.__main__ import BEGIN, END, README, Part, table, write


def test_what_all_parts_found_stands_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}of last time\n{END}after\n")
    parts = [Part("live", 4.25, True, ["a | b", "c"]), Part("gate", 8.5, False, [])]
    for _ in range(2):  # and again
        write(table(parts), path)
    before, begin, rest = path.read_text().partition(BEGIN)
    found, end, after = rest.partition(END)
    assert (before, begin, end, after) == ("before\n", BEGIN, END, "after\n")
    lines = found.strip().splitlines()
    assert lines[2:] == [
        "| live | 4.2 | ✓ | a \\| b<br>c |",
        "| gate | 8.5 | ✗ |  |",
        "| all | 12.8 | | |",
    ]


def test_the_readme_has_the_marks() -> None:
    assert BEGIN in (text := README.read_text())
    assert text.index(BEGIN) < text.index(END)
