"""Counts what a service was asked, whatever its framework and however many processes it has: a
byte each, at the end of the file that $COUNT names."""

import os

_FILE = os.open(os.environ["COUNT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def count():
    os.write(_FILE, b".")


def summed(body):
    """What most of the services here are asked for: {"x": [1, 2, 3]} → {"y": 6.0}."""
    count()
    return {"y": float(sum(body["x"]))}
