"""Where exports go: into a file, which is there whole or not at all, or to a server that was named.

Only http and https, and only to that address: a redirection is not followed, as it may lead to what
nobody has asked for.
"""

import http.client
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote_to_bytes, urlsplit

from loadbench.errors import RunError, SpecError, TargetError
from loadbench.printable import printable
from loadbench.snapshots import files

_WAIT_S = 30.0
_LONGEST = 1_000_000  # bytes of an answer


def is_url(where: str) -> bool:
    """Whether it names a server rather than a file."""
    return where.lower().startswith(("http://", "https://"))


def parted(url: str) -> tuple[str, str]:
    """An address without the name and password that may stand in it (`http://me:word@host`), and
    these as the value of an Authorization header; "" without. SpecError if it is no address."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, brackets that do not close
        known = False
    if not known:
        shown = printable(url.rpartition("@")[2])
        raise SpecError(f"{shown!r} is no address of a server", "http://host:port")
    user, mark, host = parts.netloc.rpartition("@")
    if not mark:
        return url, ""
    pair = b64encode(unquote_to_bytes(user if ":" in user else f"{user}:")).decode()
    return parts._replace(netloc=host).geturl(), f"Basic {pair}"


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
    url, own = parted(url)
    headers = {"Content-Type": kind, "User-Agent": "loadbench"}
    if token or own:
        headers["Authorization"] = f"Bearer {token}" if token else own
    host = "://".join(urlsplit(url)[:2])
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
