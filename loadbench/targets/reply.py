"""What a server that is asked says: in JSON, or why not."""

from typing import Any

import httpx
import msgspec


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
    status = answer.headers.get("grpc-status") or f"HTTP {answer.status_code}"
    return status if said in ("", status) else f"{status} {said}"


def words(answer: httpx.Response) -> str:
    """Its error in words, as servers put it into JSON, else all that it says; without a full stop,
    for it is put into sentences of ours."""
    found = json_of(answer, anyhow=True)
    said = (found.get("error") or found.get("detail")) if isinstance(found, dict) else None
    if isinstance(said, dict):
        said = said.get("message", said)
    return " ".join(str(said or answer.text).split())[:200].rstrip(". ")
