"""What is likely behind requests that fail, by the name of the failure."""

from collections.abc import Sequence

from loadbench.evidence import OWN_FAILURES
from loadbench.targets.region import NO_REGION


def behind(kind: str, sent: Sequence[str] = ()) -> tuple[str, str]:
    """What is likely behind a kind of failure, and what to try. `sent` are the names of the headers
    with a key that the target was sent."""
    if kind in OWN_FAILURES:
        what = "ephemeral ports" if kind == "no_ports" else "file descriptors"
        return f"this machine ran out of {what}", "raise its limit, or ask for less"
    if sent and refuses_who(kind):
        named = " and ".join(sent)
        guess = f"the target was sent {named}, and refuses that"
        return guess, "is it in the form that the target takes, still good, and enough for this?"
    if kind in _FAILURES:
        return _FAILURES[kind]
    begin = next((begin for begin in ("http_4", "http_5") if kind.startswith(begin)), "")
    return _FAILURES.get(begin, ("the target fails in a way of its own", "read its log"))


def refuses_who(kind: str) -> bool:
    """Whether it is about who asks, not what."""
    return _FAILURES.get(kind) == _ASKS_WHO


# how requests fail while a server is restarted that has forgotten the shared memory
RESTARTED = {
    NO_REGION, "refused", "unreachable", "reset", "closed", "truncated", "connect_timeout",
    "first_byte_timeout", "timeout", "grpc_UNAVAILABLE",
}  # fmt: skip
# of these, where most are not for the memory: that it is forgotten follows from a restart
OUTAGE = (
    "the server was away for a time, and was restarted",
    "read its log: why it ended; if no_region goes on, load.log says why it refuses the memory",
)
# of these, those of a server that does not run; the others are also of one that is only slow
GONE = {"refused", "unreachable", "reset", "closed", "truncated", "connect_timeout"}
ABSENT = {"refused", "unreachable"}
_REFUSES = (
    "the target refuses what it cannot answer in time, to protect the rest",
    "ask for less, or give it more: larger batches, more instances, a longer SLO",
)
_BREAKS = ("the target, or a proxy before it, breaks connections off", "read its log and limits")
_SLOW = ("the target does not answer in time", "ask for less, or raise target.timeout")
AWAY = ("nothing listens there (any more)", "is it up, and is this its port?")
_TAKES = ("the target does not take what is sent", "look at [[request]] and the first answer")
_ASKS_WHO = (
    "the target wants a key that it was not sent, or refuses the one that it was",
    "target.headers: is it there, still good, and enough for this?",
)
INSIDE = ("an error inside the target", "read its log")
_FAILURES = {
    NO_REGION: (
        "the server was restarted and has forgotten the shared memory",
        "the load registers it again: if these go on, load.log says why the server refuses it",
    ),
    "grpc_RESOURCE_EXHAUSTED": _REFUSES, "grpc_UNAVAILABLE": _REFUSES,
    "grpc_DEADLINE_EXCEEDED": _SLOW, "grpc_INTERNAL": INSIDE, "grpc_UNKNOWN": INSIDE,
    "grpc_INVALID_ARGUMENT": _TAKES, "grpc_NOT_FOUND": _TAKES, "grpc_UNIMPLEMENTED": _TAKES,
    "http_401": _ASKS_WHO, "http_403": _ASKS_WHO,
    "grpc_UNAUTHENTICATED": _ASKS_WHO, "grpc_PERMISSION_DENIED": _ASKS_WHO,
    "http_429": _REFUSES, "http_503": _REFUSES, "refused": AWAY, "unreachable": AWAY,
    "reset": _BREAKS, "closed": _BREAKS, "truncated": _BREAKS,
    "connect_timeout": _SLOW, "first_byte_timeout": _SLOW, "timeout": _SLOW,
    "http_4": _TAKES, "http_5": INSIDE,
    "wrong_output": ("the model answers otherwise than expected", "a looser tolerance, or the fix"),
    "bad_answer": ("the answers are not what the protocol says", "look at the first answer"),
}  # fmt: skip
