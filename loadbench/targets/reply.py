"""What a server that is asked says: in JSON, or why not."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import msgspec

from loadbench import environment

_REDIRECTIONS = (301, 302, 303, 307, 308)
WHO, FORBIDDEN = 401, 403  # how servers say that they do not know who asks, or do not let them


def json_of(answer: httpx.Response, anyhow: bool = False) -> Any:
    """What it says in JSON; None if that is none, or (unless `anyhow`) a refusal."""
    if answer.status_code != 200 and not anyhow:
        return None
    try:
        return msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def refusal(answer: httpx.Response) -> str:
    """What a server says in refusing, on one line."""
    said = words(answer)
    place = led(answer.status_code, answer.headers.get("location", ""))
    status = answer.headers.get("grpc-status") or f"HTTP {answer.status_code}"
    if place:
        return f"{status}: {place}"
    return status if said in ("", status) else f"{status} {said}"


def led(status: int, location: str) -> str:
    """Where an answer sends who asks; empty of any that does not."""
    to = environment.shown("url", location[:200])
    return f"it leads to {to}" if status in _REDIRECTIONS and location else ""


def elsewhere(answer: httpx.Response) -> str:
    """What to try where it sends who asks; empty of any other. Nobody follows: the headers are for
    the server that was named."""
    if not answer.has_redirect_location:
        return ""
    to = answer.request.url.join(answer.headers["location"])
    there = to.copy_with(raw_path=b"/", userinfo=b"", fragment=None)
    if there == answer.request.url.copy_with(raw_path=b"/"):
        said = "no redirection is followed: the server, or a proxy before it, has to answer that"
        return f"{said} itself; for a login target.headers"
    return f"if the server is there: --target {str(there).rstrip('/')}; for a login target.headers"


def words(answer: httpx.Response) -> str:
    """Its error in words, as servers put it into JSON, else all that it says; without a full stop,
    for it is put into sentences of ours."""
    found = json_of(answer, anyhow=True)
    said = (found.get("error") or found.get("detail")) if isinstance(found, dict) else None
    if isinstance(said, dict):
        said = said.get("message", said)
    return " ".join(str(said or answer.text).split())[:300].rstrip(". ")


def unwelcome(
    status: int, headers: Mapping[str, str], beside: Sequence[str] = ()
) -> tuple[str, str]:
    """Of a refusal for who asks: why, as far as is told by the headers that were sent and by what
    else was shown `beside` them, and what to try, both without what they hold; empty of any
    other."""
    if status not in (WHO, FORBIDDEN):
        return "", ""
    keys = environment.keys_among(headers)
    sent = (*keys, *beside)
    if not sent:
        hint = 'target.headers = { Authorization = "Bearer $NAME" }'
        if status == WHO:
            return "it asks for a key or a password", hint
        return "", f"if it wants a key: {hint}"
    found = [match[0] for name in keys for match in environment.NAME.finditer(headers[name])]
    values = f", in {' and '.join(dict.fromkeys(found))} of the environment," if found else ""
    why = f"it was sent {' and '.join(sent)}, and refuses that"
    return why, f"is what is sent{values} in the form that it takes, still good, and enough there?"
