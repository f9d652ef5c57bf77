"""A terminal that takes its time for each frame shows the present, not a backlog."""

import sys
from contextlib import suppress
from pathlib import Path

from tests.benchmarks.slow_terminal import SlowTerminal
from tests.ended import finished

FRAME_S = 0.2


def test_keys_that_come_faster_than_frames_leave_none_waiting(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 20.0)
    command = [sys.executable, "-m", "loadbench", "tui", "--attach", str(folder)]
    screen = SlowTerminal(command, (120, 40), FRAME_S)
    try:
        for _ in range(200):
            screen.look(FRAME_S)
            if "DONE" in screen.shown:
                break
        for _ in range(5):  # a second of a key that is held down, which draws anew each time
            for key in "+-+-+-":
                screen.press(key)
                screen.look(FRAME_S / 6)
        before = screen.frames
        screen.press("?")
        for _ in range(100):
            screen.look(FRAME_S / 2)
            if "Zoom in: a shorter time" in screen.shown:
                break
    finally:
        screen.close()
    assert "Zoom in: a shorter time" in screen.shown
    assert 1 <= screen.frames - before <= 5  # at most two on their way, and those of the page


def test_no_answer_is_left_for_who_reads_the_terminal_next(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 20.0)
    command = [sys.executable, "-m", "loadbench", "tui", "--attach", str(folder)]
    screen = SlowTerminal(command, (120, 40), FRAME_S)
    try:
        for _ in range(200):
            screen.look(FRAME_S)
            if "DONE" in screen.shown:
                break
        screen.late_answers = 0
        for key in "+-+-q":  # frames are on their way when it ends
            screen.press(key)
            screen.look(FRAME_S / 6)
        with suppress(OSError):  # Linux: the other side is closed
            for _ in range(100):
                screen.look(FRAME_S / 2)
        assert screen.process.wait(20) == 0
        assert screen.late_answers == 0
    finally:
        screen.close()
