"""Memory that is freed stays with the process, so that the next batch need not map it again."""

import os
import platform
import subprocess
import sys

import pytest

# How many pages a second round of the same blocks touches for the first time
FAULTS = """
import resource, sys, threading
import numpy as np
from loadbench.engine.heap import keep_freed
kept = sys.argv[1] == "kept" and keep_freed()
def batch():
    parts = [np.ones(1 << 18, np.float32) for _ in range(12)]
def work():
    global found
    for _ in range(3): batch()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(5): batch()
    found = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
thread = threading.Thread(target=work); thread.start(); thread.join()
print(kept, found)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_a_batch_does_not_map_the_memory_of_the_one_before_again() -> None:
    found = {}
    for how in ("kept", "plain"):
        command = [sys.executable, "-c", FAULTS, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean())
        kept, faults = done.stdout.split()
        assert kept == str(how == "kept")
        found[how] = int(faults)
    # 12 MB are 3,000 pages, five times; far fewer where the system maps huge ones
    assert found["plain"] > 3 * found["kept"] + 5, found


def test_what_the_environment_says_is_left_alone() -> None:
    command = [sys.executable, "-c", FAULTS, "kept"]
    environment = clean() | {"MALLOC_TRIM_THRESHOLD_": "131072"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split()[0] == "False"


def clean() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
