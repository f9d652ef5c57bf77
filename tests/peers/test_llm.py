"""`loadbench run` against llama.cpp's own server, as a language model is asked: the scenario that a
user copies, and the tokens that the server itself counted."""

import re
from pathlib import Path

import pytest
from servers import ROOT, Server
from test_apps import started
from test_triton import sent_in_all
from tools import Run, run_copied

RATE, SECONDS, TOKENS = 10, 5, 16
WORDS = 20


def counted(server: Server) -> dict[str, float]:
    """Its counters, by their names."""
    answer = server.ask("/metrics")
    assert answer.status == 200, answer
    lines = [line.split() for line in answer.body.decode().splitlines() if line[:1] != "#"]
    return {line[0].removeprefix("llamacpp:"): float(line[1]) for line in lines if len(line) == 2}


def asked(
    tmp_path: Path, server: Server, path: str = "/v1/chat/completions"
) -> tuple[Run, dict[str, float]]:
    """A run of the copied scenario, with shorter requests, and what the server counted."""
    text = (ROOT / "scenarios" / "targets" / "openai.toml").read_text()
    for key, value in (("words", WORDS), ("max_tokens", TOKENS)):
        text = re.sub(rf'^{key} = "[^"]*"', f'{key} = "{value}"', text, flags=re.MULTILINE)
    copied = tmp_path / "openai.toml"
    copied.write_text(text)
    before = counted(server)
    load = ("--rate", str(RATE), "--duration", f"{SECONDS}s", "--set", f"target.path={path}")
    found = run_copied(server, tmp_path, copied, *load)
    after = counted(server)
    return found, {name: value - before.get(name, 0) for name, value in after.items()}


def test_it_counts_the_tokens_that_llama_cpp_counts(tmp_path: Path) -> None:
    with started("llamacpp", tmp_path) as (server, _):
        found, new = asked(tmp_path, server)
    assert found.summary["failed"] == {}, found.summary["examples"]
    told = found.summary["tokens"]
    assert told["counted"] == told["generated"] == found.summary["done"] * TOKENS
    assert new["tokens_predicted_total"] == sent_in_all(found) * TOKENS


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_its_first_token_and_its_gaps_are_of_the_size_that_the_server_has(
    path: str, tmp_path: Path
) -> None:
    with started("llamacpp", tmp_path) as (server, _):
        found, new = asked(tmp_path, server, path=path)
    assert found.summary["failed"] == {}, found.summary["examples"]
    told = found.summary["tokens"]
    own = new["tokens_predicted_seconds_total"] / new["tokens_predicted_total"] * 1000
    assert told["first_token_ms"]["p50"] > 0
    assert told["token_gap_ms"]["p50"] == pytest.approx(own, rel=0.5, abs=1.0)
