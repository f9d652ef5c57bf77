"""Forms as browsers send them: multipart/form-data (RFC 7578), which carries files, and what has
none also as application/x-www-form-urlencoded."""

import hashlib
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from loadbench.errors import SpecError
from loadbench.targets import template
from loadbench.targets.template import Parts, Place

TYPE, URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"


def encode(
    where: str, form: Mapping[str, Parts], values: Mapping[str, Any], folder: Path
) -> tuple[bytes, str]:
    """(body, content type). A field that is nothing but the bytes of a file is sent as that file,
    with its name and type. Raises SpecError naming the field."""
    parts = []
    for field, text in form.items():
        content = _content(where, field, text, values, folder)
        head = f'Content-Disposition: form-data; name="{_quoted(field)}"'
        name = _file(text, values)
        if name is not None:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            head += f'; filename="{_quoted(name)}"\r\nContent-Type: {kind}'
        parts.append(f"{head}\r\n\r\n".encode() + content)
    boundary = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32].encode()
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    return body + b"--%s--\r\n" % boundary, f"{TYPE}; boundary={boundary.decode()}"


def urlencode(
    where: str, form: Mapping[str, Parts], values: Mapping[str, Any], folder: Path
) -> bytes:
    """The body of a form whose fields are all text, or short. Raises SpecError naming the field."""
    pairs = [
        f"{quote_plus(field)}={quote_plus(_content(where, field, text, values, folder))}"
        for field, text in form.items()
    ]
    return "&".join(pairs).encode()


def _content(where: str, field: str, text: Parts, values: Mapping[str, Any], folder: Path) -> bytes:
    try:
        return template.fill(text, values, "raw", folder)
    except SpecError as error:
        raise SpecError(f"{where}form.{field}: {error.message}", error.hint) from error


def _file(parts: Parts, values: Mapping[str, Any]) -> str | None:
    """The name of the file that a field is, if it is one."""
    if len(parts) != 1 or not isinstance(parts[0], Place):
        return None
    place = parts[0]
    if place.filters in (("file",), ("file", "raw")):
        return Path(str(values[place.name])).name
    if isinstance(values.get(place.name), bytes) and place.filters in ((), ("raw",)):
        return str(values.get("name", place.name))
    return None


def _quoted(text: str) -> str:
    """As browsers write it: what would end the name is percent-encoded."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
