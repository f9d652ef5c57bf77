"""What is said of a server that was restarted amid a run, however it tells of its inside."""

from loadbench.model import Note


def restarted(where: str) -> Note:
    """Of who tells of itself there."""
    return Note(
        "server-restarted",
        f"the counters of {where} began anew: the server, or a process or model of it, was"
        " restarted",
        "what it counted between the reading before and its end is in no figure",
    )
