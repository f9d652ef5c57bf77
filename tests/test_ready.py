"""What `loadbench doctor` says of the machine."""

from pathlib import Path

from loadbench import ready, spec


def subjects(findings: list[ready.Finding]) -> dict[str, ready.Finding]:
    return {finding.subject: finding for finding in findings}


def test_this_machine_can_make_a_run(tmp_path: Path) -> None:
    found = subjects(ready.check(results=tmp_path / "new" / "results"))
    assert {"gpu", "cores", "timer", "load", "port", "results", "files"} <= set(found)
    assert not [finding for finding in found.values() if finding.sign == "✗"]
    assert not (tmp_path / "new").exists()  # looking leaves nothing behind


def test_results_that_cannot_be_written_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = subjects(ready.check(results=tmp_path / "file" / "results"))
    assert found["results"].sign == "✗"


def test_a_rate_beyond_one_process_is_told(tmp_path: Path) -> None:
    scenario = spec.load("steady", rate="500k/s")
    texts = [finding.text for finding in ready.check(scenario, tmp_path)]
    assert any("may not reach it" in text for text in texts)
    modest = spec.load("steady")
    assert not any("may not reach it" in f.text for f in ready.check(modest, tmp_path))
