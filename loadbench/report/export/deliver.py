"""Where exports go: into a file, which is there whole or not at all, or to a server that was named.

Only http and https, and only to that address: a redirection is not followed, as it may lead to what
nobody has asked for.
"""

import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from loadbench.errors import RunError, SpecError, TargetError
from loadbench.printable import printable
from loadbench.snapshots import files

_WAIT_S = 30.0
_LONGEST = 1_000_000  # bytes of an answer


def is_url(where: str) -> bool:
    """Whether it names a server rather than a file."""
    return where.startswith(("http://", "https://"))


def store(path: Path, data: bytes) -> None:
    """Writes a file as a whole, so that whoever collects such files never sees half of one.
    RunError if it cannot be written."""
    try:
        files.put(path, data)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


def send(method: str, url: str, body: bytes, kind: str, token: str = "") -> bytes:
    """Sends a body of a media type; the answer's. TargetError if it is not taken, SpecError if the
    address is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"{printable(url)} is no address of a server", "http://host:port")
    headers = {"Content-Type": kind, "User-Agent": "loadbench"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    host = f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")
    try:
        request = urllib.request.Request(url, body or None, headers, method=method)
        with urllib.request.build_opener(_Here).open(request, timeout=_WAIT_S) as answer:
            data: bytes = answer.read(_LONGEST)
            return data
    except urllib.error.HTTPError as error:
        with error:
            said = printable(error.read(300)).strip()
        text = f"{host} answered {error.code}" + (f": {said}" if said else "")
        raise TargetError(text, "is this the right address, and may you write there?") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise TargetError(
            f"{host} cannot be reached: {printable(str(reason))}", "is it up?"
        ) from error


class _Here(urllib.request.HTTPRedirectHandler):
    """Follows nothing."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None
