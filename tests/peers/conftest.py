"""One environment for all tests here, and the real Triton that several share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import LOADBENCH, PEERS, Server, triton


def pytest_configure() -> None:
    for needed in (PEERS / ".installed", LOADBENCH):
        if not needed.exists():
            raise pytest.UsageError(f"{needed} is missing: run these tests with `make peers`")


@pytest.fixture
def real_triton(tmp_path: Path) -> Iterator[Server]:
    """A Triton that has served nothing yet, with the models `matmul` and `echo`."""
    with triton(tmp_path) as server:
        yield server
