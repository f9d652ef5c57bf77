"""Counts what a service was asked, whatever its framework and however many processes it has: a
byte each, at the end of the file that $COUNT names."""

import os

_FILE = os.open(os.environ["COUNT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def summed(body):
    """What each of the services here is asked for: {"x": [1, 2, 3]} → {"y": 6.0}."""
    os.write(_FILE, b".")
    return {"y": float(sum(body["x"]))}
